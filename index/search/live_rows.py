"""The rows of a generation that have not been deleted or replaced while readers still search it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from common.array_types import Bools
from index.engines.engine import NodeBits


@dataclass(frozen=True, eq=False)
class LiveRows:
    """Which rows of a generation a search may return: ``rows`` bool [n], and ``nodes`` bool [nodes].

    A node is live while any of its rows is.
    """

    rows: Bools
    nodes: Bools

    @cached_property
    def count(self) -> int:
        """How many rows are live."""
        return int(self.rows.sum())

    @cached_property
    def node_count(self) -> int:
        """How many nodes are live."""
        return int(self.nodes.sum())

    @cached_property
    def node_bits(self) -> NodeBits:
        """The nodes as the engine takes them."""
        return np.packbits(self.nodes, bitorder="little")
