"""Base class of data kinds: from files to labelled items, and from items to the input of a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from api_schemas.data_config import DataConfig
from common.array_types import Float32s, RowIndices
from common.errors import InputError
from common.progress import Say, Track, silent_say
from embeddings.files import check_metadata_names
from encoder.inputs.preprocessing import Preprocessing
from training.data.items import Items
from training.data.near_duplicates import NearDuplicates

P = TypeVar("P", bound=Preprocessing)


class DataKind(ABC, Generic[P]):
    """One value of ``data.kind``, for one configuration.

    Attributes:
        noun: what an item is called in messages.
        suffixes: of a file that is taken for this kind where no configuration says its kind.
        needs_labels: whether items without a label are refused; they have an empty one otherwise.
    """

    noun: ClassVar[str] = "row"
    suffixes: ClassVar[frozenset[str]] = frozenset()
    needs_labels: bool = True

    def __init__(self, data: DataConfig, say: Say = silent_say) -> None:
        self.data, self.say = data, say

    @property
    def source(self) -> str:
        """Name of the data's source in messages."""
        return join_paths(self.data.paths)

    @property
    def split_columns(self) -> set[str]:
        """The columns that say something about items, a split or their hierarchy, and are no input."""
        names = (self.data.split_column, self.data.group_column, self.data.time_column)
        groups = self.data.hierarchy if isinstance(self.data.hierarchy, list) else []
        return {name for name in (*names, *groups) if name is not None}

    def read_all(self) -> Items:
        """Every item that the configuration names; see ``read``."""
        return self.read(self.data.paths)

    @abstractmethod
    def read(self, paths: Sequence[Path], preprocessing: P | None = None) -> Items:
        """Labels, ids and metadata of every item at those paths; their inputs are still raw.

        Args:
            preprocessing: of the model that the items are for, where there is one already.

        Raises:
            InputError: a missing, empty or broken file, or one that does not fit the preprocessing.
        """

    @abstractmethod
    def fit_preprocessing(self, train: Items) -> P:
        """The rule from raw input to network input, from the raw training items alone."""

    @abstractmethod
    def build_placeholder(self) -> P:
        """Preprocessing of such data in any size: what can be checked before data is read."""

    def prepare(self, raw: Items, preprocessing: P, track: Track) -> Items:
        """Raw items as they are stored for training; those that cannot be read are left out where
        ``data.broken`` says so, else they raise InputError."""
        return replace(raw, inputs=preprocessing.prepare(raw.inputs))

    def store(
        self, parts: Mapping[str, Items], paths: Sequence[Path], preprocessing: P, track: Track
    ) -> dict[str, Items]:
        """All parts of a data set as ``prepare`` gives them, but not necessarily in memory.

        Args:
            paths: that the items were read from.
        """
        return {name: self.prepare(raw, preprocessing, track) for name, raw in parts.items()}

    def check_ids(self, items: Items, parts: Iterable[RowIndices], source: str) -> None:
        """Check what an embeddings file of a part can hold, while nothing is lost.

        Args:
            parts: rows of the items that come into a file together.

        Raises:
            InputError: an id that comes twice in a part, or a metadata column with a reserved name.
        """
        check_metadata_names(items.metadata, source)
        for rows in parts:
            if len(np.unique(items.ids[rows])) == len(rows):
                continue
            first: dict[str, int] = {}
            for row, item_id in zip(rows.tolist(), items.ids[rows].tolist(), strict=True):
                if item_id in first:
                    raise InputError(f"{source}: {self._describe_same_id(first[item_id], row, item_id)}")
                first[item_id] = row

    def compute_likeness(self, items: Items) -> Float32s | None:
        """Rows float32 [n, d] that are near each other in near copies; None for a kind that cannot tell."""
        return None

    def find_near_duplicates(self, parts: dict[str, Items]) -> Iterable[NearDuplicates]:
        """Items of different parts that differ by hardly anything; kinds that can tell override this."""
        return ()

    def _describe_same_id(self, row: int, other: int, item_id: str) -> str:
        return f"rows {row} and {other} of column 'id' are both '{item_id}': give each its own or none."


AnyDataKind = DataKind[Any]


def join_paths(paths: Sequence[Path]) -> str:
    """Several paths in one message."""
    return ", ".join(str(path) for path in paths)
