"""What ``--fold-labels`` and ``--unknown-label`` do to embeddings, for every command that has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from common.errors import InputError
from common.label_spelling import fold_label, fold_labels
from embeddings.embedding_set import EmbeddingSet, concatenate
from limen.pipeline.evaluation_source import EvaluationSource


def apply_label_options(
    source: EvaluationSource,
    *,
    fold: bool = False,
    unknown_labels: Sequence[str] = (),
    unknown: EmbeddingSet | None = None,
    gallery: EmbeddingSet | None = None,
) -> tuple[EvaluationSource, EmbeddingSet | None, EmbeddingSet | None]:
    """The source and the gallery without the items of unknown labels, and the unknown queries.

    Args:
        fold: labels that are equal after NFC, case folding and blanks become one, in all sets alike.
        unknown_labels: labels that stand for no identity, e.g. ``oos``: their items are unknown queries.
        unknown: further unknown queries, of a file.

    Returns:
        The source, the unknown queries (of its ``items`` and ``unknown``; None where there are none), and the
        gallery (None where none was given).

    Raises:
        InputError: no item has one of the labels, or none is left.
    """
    parts = [source.items, source.validation, source.training, gallery]
    if fold:
        spellings: dict[str, str] = {}
        parts = [part and _fold(part, spellings) for part in parts]
    wanted = _find_labels(parts, unknown_labels)
    taken = _select_labels(parts[0], wanted)
    items, validation, training, gallery = (part and _leave_out(part, wanted) for part in parts)
    assert items is not None
    source = replace(source, items=items, validation=validation, training=training)
    return source, _join_unknown(unknown, taken), gallery


def split_unknown(
    items: EmbeddingSet, unknown_labels: Sequence[str]
) -> tuple[EmbeddingSet, EmbeddingSet | None]:
    """A set without the items of unknown labels, and those; raises InputError as ``apply_label_options``."""
    wanted = _find_labels([items], unknown_labels)
    return _leave_out(items, wanted), _select_labels(items, wanted)


def _fold(items: EmbeddingSet, spellings: dict[str, str]) -> EmbeddingSet:
    return replace(items, labels=np.array(fold_labels(items.labels.tolist(), spellings), dtype=np.str_))


def _find_labels(parts: Sequence[EmbeddingSet | None], labels: Sequence[str]) -> set[str]:
    """The labels as they are written in the data; raises InputError for one that is not in it."""
    known = {label for part in parts if part is not None for label in part.classes.tolist()}
    for label in labels:
        if label not in known:
            alike = sorted(other for other in known if fold_label(other) == fold_label(label))
            hint = f"did you mean '{alike[0]}'?" if alike else "give a label as the data writes it."
            raise InputError(f"--unknown-label {label}: no item has this label; {hint}")
    return set(labels)


def _select_labels(items: EmbeddingSet | None, labels: set[str]) -> EmbeddingSet | None:
    if items is None or not (chosen := np.isin(items.labels, list(labels))).any():
        return None
    return items.subset(chosen)


def _leave_out(items: EmbeddingSet, labels: set[str]) -> EmbeddingSet:
    if not labels:
        return items
    kept = ~np.isin(items.labels, list(labels))
    if not kept.any():
        raise InputError(f"--unknown-label: every item is labelled {' or '.join(sorted(labels))}.")
    return items.subset(kept)


def _join_unknown(given: EmbeddingSet | None, taken: EmbeddingSet | None) -> EmbeddingSet | None:
    """Both sets of unknown queries as one."""
    if given is None or taken is None:
        return given if taken is None else taken
    if given.dimension != taken.dimension:
        raise InputError(
            f"the unknown queries have vectors of {given.dimension} numbers, the data of {taken.dimension}."
        )
    if np.isin(given.ids, taken.ids).any():
        given = replace(given, ids=np.char.add("unknown ", given.ids))
    return concatenate([given, taken])
