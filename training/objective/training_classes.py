"""The training classes, as losses know them, from the training items."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from api_schemas.data_config import DataConfig
from common.array_types import Float32s, Int64s, Texts
from common.errors import InputError
from training.data.items import Items, read_text_column
from training.losses.parts.training_classes import TrainingClasses


def describe_classes(
    items: Items,
    data: DataConfig,
    forms: int = 1,
    teacher: Float32s | None = None,
    ignores_labels: bool = False,
) -> TrainingClasses:
    """The classes in the order of their codes; every form of an item is a class in a tree of its own.

    Args:
        forms: of each item, see ``training.batches.batch_inputs.count_forms``.
        teacher: a teacher's features of the items, [n, d].
        ignores_labels: every item is a class of its own, named by its id.

    Raises:
        InputError: classes that ``data.hierarchy`` does not give one path each, all of one length.
    """
    if ignores_labels:
        rows = np.arange(len(items))
        return TrainingClasses(
            name_classes(items.ids, forms),
            (1,) * (len(items) * forms),
            ((),) * (len(items) * forms),
            None if teacher is None else _compute_directions(teacher, rows),
        )
    labels, first, counts = np.unique(items.labels, return_index=True, return_counts=True)
    if data.hierarchy is None:
        levels = []
    elif data.hierarchy == "path":
        levels = _read_folders(labels)
    else:
        levels = [_read_groups(items, column, labels, first) for column in data.hierarchy]
    codes = [np.unique(level, return_inverse=True)[1] for level in levels]
    return TrainingClasses(
        name_classes(labels, forms),
        tuple(int(count) for count in counts for _ in range(forms)),
        tuple(_list_path(codes, row, forms, form) for row in range(len(labels)) for form in range(forms)),
        None if teacher is None else _compute_directions(teacher, np.searchsorted(labels, items.labels)),
    )


def name_classes(labels: Texts, forms: int) -> tuple[str, ...]:
    """Names of the classes of distinct labels in their order; every form of each is one."""
    return tuple(_name_form(label, form) for label in labels.tolist() for form in range(forms))


def _compute_directions(features: Float32s, codes: Int64s) -> Tensor:
    """Direction of the mean feature of each class, float32 [c, d]."""
    sums = torch.zeros(int(codes.max()) + 1, features.shape[1], dtype=torch.float64)
    sums.index_add_(0, torch.from_numpy(codes), torch.from_numpy(features).double())
    return F.normalize(sums, dim=1).float()


def _name_form(label: str, form: int) -> str:
    return label if form == 0 else f"{label} (form {form})"


def _list_path(codes: list[Int64s], row: int, forms: int, form: int) -> tuple[int, ...]:
    return tuple(int(level[row]) * forms + form for level in codes)


def _read_folders(labels: Texts) -> list[Texts]:
    """The folders above each class's folder, a text [c] for each level."""
    folders = [label.split("/")[:-1] for label in labels.tolist()]
    depths = [len(path) for path in folders]
    if min(depths) != max(depths):
        shallow, deep = labels[depths.index(min(depths))], labels[depths.index(max(depths))]
        raise InputError(
            f"data.hierarchy: 'path' needs class folders of one depth, found '{shallow}' and '{deep}': move "
            "them, or name columns of a list of images."
        )
    if not depths[0]:
        raise InputError(
            f"data.hierarchy: 'path' takes the folders above the classes' own, and '{labels[0]}' has none: "
            "put class folders into folders, or name columns of a list of images."
        )
    return [np.array(["/".join(path[: level + 1]) for path in folders]) for level in range(depths[0])]


def _read_groups(items: Items, column: str, labels: Texts, first: Int64s) -> Texts:
    """The value of a column that all items of a class share, text [c]."""
    values, missing = read_text_column(items, column, "data.hierarchy: the data")
    empty = np.flatnonzero(missing | (np.strings.strip(values) == ""))
    if len(empty):
        raise InputError(
            f"data.hierarchy: item '{items.ids[empty[0]]}' has no value in column '{column}': fill it in."
        )
    of_class = values[first]
    other = np.flatnonzero(values != of_class[np.searchsorted(labels, items.labels)])
    if len(other):
        label = items.labels[other[0]]
        raise InputError(
            f"data.hierarchy: class '{label}' has '{of_class[np.searchsorted(labels, label)]}' and "
            f"'{values[other[0]]}' in column '{column}': all items of a class must be in one group."
        )
    return of_class
