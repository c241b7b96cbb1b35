"""The training classes, as losses know them, from the training items."""

from __future__ import annotations

import numpy as np

from training.data.items import Items
from training.losses.parts.training_classes import TrainingClasses


def describe_classes(items: Items, forms: int = 1) -> TrainingClasses:
    """The classes in the order of their codes; every form of an item is a class of its own.

    Args:
        forms: of each item, see ``training.batches.batch_inputs.count_forms``.
    """
    labels, counts = np.unique(items.labels, return_counts=True)
    return TrainingClasses(
        tuple(_name_form(label, form) for label in labels.tolist() for form in range(forms)),
        tuple(int(count) for count in counts for _ in range(forms)),
    )


def _name_form(label: str, form: int) -> str:
    return label if form == 0 else f"{label} (form {form})"
