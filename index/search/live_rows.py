"""What is left of a generation's rows while readers still search it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from common.array_types import Bools
from index.engines.base import NodeBits


@dataclass(frozen=True, eq=False)
class Alive:
    """Which rows of a generation have not been deleted or replaced since it was built.

    ``rows`` bool [n] and ``nodes`` bool [nodes], a node being alive while any of its rows is.
    """

    rows: Bools
    nodes: Bools

    @cached_property
    def count(self) -> int:
        """How many rows are alive."""
        return int(self.rows.sum())

    @cached_property
    def node_count(self) -> int:
        """How many nodes are alive."""
        return int(self.nodes.sum())

    @cached_property
    def node_bits(self) -> NodeBits:
        """The nodes as the engine takes them."""
        return np.packbits(self.nodes, bitorder="little")
