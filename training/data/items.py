"""Items for the trainer: inputs, labels, ids, and the rule from raw input to inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.array_types import Bools, Float32s, RowIndices, Texts
from common.errors import InputError
from embeddings.embedding_set import convert_columns, read_single_values
from encoder.inputs.preprocessing import Preprocessing
from training.data.row_store import RowStore, select_rows

ROLE, QUERY, ITEM = "role", "query", "item"  # a column, and what it says of items


@dataclass(frozen=True, eq=False)
class Items:
    """Labelled inputs, one row an item: in memory, or elsewhere.

    Attributes:
        inputs: raw as a data kind reads them, then as its preprocessing stores them: uint8 [n, channels,
            height, width] for images (not yet normalised), else float32 [n, ...] as the network takes it;
            any float type where they are mapped from a file.
        labels: text [n].
        ids: text [n], distinct within all items of a data set; for files their path.
        metadata: columns of length n, as those of an ``EmbeddingSet``.
        columns: names of the inputs' columns, of a table.
        is_query: bool [n], which items ask and are in no gallery; None where all do both.
    """

    inputs: Any  # NDArray, or RowStore, which is indexed as one
    labels: Texts
    ids: Texts
    metadata: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    is_query: Bools | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", convert_columns(self.metadata))

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, rows: NDArray[Any]) -> Items:
        """The rows of an index array or boolean mask, in that order."""
        metadata = {name: column[rows] for name, column in self.metadata.items()}
        inputs = select_rows(self.inputs, rows)
        is_query = None if self.is_query is None else self.is_query[rows]
        return Items(inputs, self.labels[rows], self.ids[rows], metadata, self.columns, is_query)

    @property
    def n_classes(self) -> int:
        """Number of distinct labels."""
        return len(np.unique(self.labels))

    @property
    def is_measurable(self) -> bool:
        """Whether there are two classes, and two items of one."""
        return 2 <= self.n_classes < len(self)


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """Items whose labels are not looked at, and a teacher's features of them, float32 [n, d]."""

    items: Items
    features: Float32s


@dataclass(frozen=True, eq=False)
class Splits:
    """Items by part, and the one rule that turns raw input into ``inputs``; a part may be None.

    Attributes:
        teacher: a teacher's features of the training items, float32 [n, d]; None without a teacher.
        unlabelled: the teacher's own data; None without.
    """

    train: Items
    validation: Items | None
    test: Items | None
    preprocessing: Preprocessing
    teacher: Float32s | None = None
    unlabelled: Unlabelled | None = None

    def get_parts(self) -> dict[str, Items]:
        """The parts that exist, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: items for name, items in named.items() if items is not None}

    def describe_sizes(self) -> str:
        """Items and classes of each part, in words."""
        return "; ".join(
            f"{name} {len(items)} items of {items.n_classes} classes"
            for name, items in self.get_parts().items()
        )

    def check_unchanged(self) -> None:
        """Raise InputError when a file that is read while training is not what it was at the start."""
        for items in self.get_parts().values():
            if isinstance(items.inputs, RowStore):
                items.inputs.check_unchanged()


def read_text_column(items: Items, column: str, source: str) -> tuple[Texts, Bools]:
    """The values of a column as text [n], and which are missing, bool [n].

    Raises:
        InputError: no such column, or one of lists; the sentence begins with ``source``.
    """
    given = read_single_values(
        items.metadata, column, lambda known: f"{source} has no column '{column}'; found {known}."
    )
    return np.ma.getdata(given).astype(np.str_), np.ma.getmaskarray(given)


def read_roles(items: Items, column: str | None, source: str) -> Items:
    """The items with what a column says of their roles; as they are without a column.

    Raises:
        InputError: no such column, or a value that is neither ``query`` nor ``item``; names the item.
    """
    if column is None:
        return items
    roles, missing = read_text_column(items, column, f"data.role_column: {source}")
    other = np.flatnonzero(missing | ~np.isin(roles, (QUERY, ITEM)))
    if len(other):
        row = other[0]
        found = "nothing" if missing[row] else f"'{roles[row]}'"
        raise InputError(
            f"data.role_column: item '{items.ids[row]}' has {found} in column '{column}', expected "
            f"'{QUERY}' or '{ITEM}'."
        )
    return replace(items, is_query=roles == QUERY)


def check_roles(items: Items, parts: Mapping[str, RowIndices], source: str) -> None:
    """Raises InputError for a part in which fewer than two classes have both a query and an item."""
    if items.is_query is None:
        return
    for name, rows in parts.items():
        labels, is_query = items.labels[rows], items.is_query[rows]
        both = np.intersect1d(labels[is_query], labels[~is_query])
        if len(rows) and len(both) < 2:
            raise InputError(
                f"{source}: {len(both)} of {len(np.unique(labels))} {name} classes have both a query and an "
                "item, at least 2 are needed: give more of the other role, or pairs that share less (all "
                "that pairs connect is one class)."
            )
