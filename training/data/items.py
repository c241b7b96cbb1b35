"""Items for the trainer: inputs, labels, ids, and the rule from raw input to inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.array_types import Float32s, Texts
from embeddings.embedding_set import convert_columns
from encoder.inputs.preprocessing import Preprocessing
from training.data.row_store import RowStore


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
    """

    inputs: Any  # NDArray, or RowStore, which is indexed as one
    labels: Texts
    ids: Texts
    metadata: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", convert_columns(self.metadata))

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, rows: NDArray[Any]) -> Items:
        """The rows of an index array or boolean mask, in that order."""
        metadata = {name: column[rows] for name, column in self.metadata.items()}
        inputs = self.inputs
        inputs = inputs.subset(rows) if isinstance(inputs, RowStore) else inputs[rows]
        return Items(inputs, self.labels[rows], self.ids[rows], metadata, self.columns)

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
