"""What a set of embeddings tells about its labels: copies under two labels, bursts, labels of no identity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.array_types import Int64s
from common.label_spelling import MAX_EXAMPLES, describe_spellings, describe_unknown_labels
from embeddings.embedding_set import EmbeddingSet
from evaluation.pairs.copies import SAME, group_copies, has_own_ids, measure_burst_share
from evaluation.pairs.exclusions import NEAR_COPY, ExcludeSame, list_exclusions
from evaluation.pairs.pairs import arrange
from evaluation.pairs.ranks import compute_ranks

NEAR = 0.063  # distance of near copies, a similarity of 0.998
NEAR_IN_LARGE_SET = 0.03  # a similarity of 0.9995, for sets of more items than MOST_RANKED
NEAR_FRACTION = 0.02  # of the median squared distance within a class, where that is less
BURSTS = 0.25  # of the items with near copies, from which a set is taken to hold bursts
MOST_RANKED = 20_000  # items up to which recall is measured once more, without near copies

FOLD = "Fold them with --fold-labels, or correct them."
UNKNOWN = (
    "If it is not, give --unknown-label with its name: its items are then queries that nothing should match."
)


@dataclass(frozen=True)
class ContradictingCopies:
    """Groups of rows that are copies of each other under two labels or more: the same vector, or nearly."""

    same: list[Int64s]
    near: list[Int64s]


def list_data_faults(
    items: EmbeddingSet,
    exclude_same: ExcludeSame = None,
    *,
    gallery: EmbeddingSet | None = None,
    unknown: EmbeddingSet | None = None,
) -> list[str]:
    """A sentence for everything about the labels that spoils figures, whatever the order of the rows.

    Args:
        items: compared with each other, or the queries of ``gallery``.
        unknown: queries whose labels are not asked about.
    """
    known = items if gallery is None else _join(items, gallery, "gallery")
    labels = known.classes.tolist()
    sentences = [describe_spellings(labels, FOLD), describe_unknown_labels(labels, UNKNOWN)]
    sentences += describe_contradictions(known if unknown is None else _join(known, unknown, "unknown"))
    if gallery is None and NEAR_COPY not in list_exclusions(exclude_same):
        sentences.append(describe_bursts(items, exclude_same))
    return [sentence for sentence in sentences if sentence is not None]


def _join(first: EmbeddingSet, second: EmbeddingSet, name: str) -> EmbeddingSet:
    """Both as one set, the ids of the second after its name."""
    return EmbeddingSet(
        np.concatenate([first.vectors, second.vectors]),
        np.concatenate([first.labels, second.labels]),
        np.concatenate([first.ids, np.char.add(f"{name} ", second.ids)]),
    )


def find_contradictions(items: EmbeddingSet) -> ContradictingCopies:
    """Copies under two labels."""
    same = _group_under_two_labels(items, group_copies(items.vectors, SAME))
    widest = NEAR if len(items) <= MOST_RANKED else NEAR_IN_LARGE_SET
    distance = min(widest, np.sqrt(NEAR_FRACTION * _compute_typical_square(items)))
    near: list[Int64s] = []
    if distance > SAME:
        near = _group_under_two_labels(items, group_copies(items.vectors, distance))
    named = {int(row) for rows in same for row in rows}
    return ContradictingCopies(same, [rows for rows in near if not named.issuperset(rows.tolist())])


def _compute_typical_square(items: EmbeddingSet) -> float:
    """The median squared distance of two items of a class, by the means of the classes; 0 without such pairs.

    In a class of n items the mean squared distance of two is 2 (1 - |m|^2) n / (n - 1), m their mean vector.
    """
    sums = np.zeros((len(items.classes), items.dimension))
    np.add.at(sums, items.codes, items.vectors)
    counts = np.bincount(items.codes)
    several = counts > 1
    means = sums[several] / counts[several, None]
    n = counts[several]
    squares = 2 * (1 - np.einsum("ij,ij->i", means, means)) * n / (n - 1)
    return float(max(0.0, np.median(squares))) if len(squares) else 0.0


def _group_under_two_labels(items: EmbeddingSet, groups: Int64s) -> list[Int64s]:
    """Rows of the groups that hold two labels, in the order of labels and ids of each."""
    order = np.lexsort((items.ids, items.codes, groups))
    edges = np.flatnonzero(np.diff(groups[order], prepend=-1, append=-1))
    firsts, lasts = order[edges[:-1]], order[edges[1:] - 1]
    mixed = np.flatnonzero(items.codes[firsts] != items.codes[lasts])
    return [order[edges[group] : edges[group + 1]] for group in mixed]


def describe_contradictions(items: EmbeddingSet) -> list[str]:
    """Sentences that name copies under two labels."""
    found = find_contradictions(items)
    return [
        f"{sum(map(len, groups))} items are {what} under two labels, so that no answer is right for both: "
        f"{_name_rows(items, groups)}. Correct the labels, or leave such items out."
        for groups, what in ((found.same, "copies"), (found.near, "near copies"))
        if groups
    ]


def _name_rows(items: EmbeddingSet, groups: list[Int64s]) -> str:
    what = "" if has_own_ids(items) else "row "
    named = sorted(
        " = ".join(sorted(f"{what}'{items.ids[row]}' ({items.labels[row]})" for row in (rows[0], rows[-1])))
        for rows in groups
    )
    more = f" and {len(named) - MAX_EXAMPLES} more groups" if len(named) > MAX_EXAMPLES else ""
    return ", ".join(named[:MAX_EXAMPLES]) + more


def describe_bursts(items: EmbeddingSet, exclude_same: ExcludeSame = None) -> str | None:
    """A sentence where many items have near copies in their class, with recall@1 without those."""
    fraction = measure_burst_share(items.vectors, items.codes)
    if fraction < BURSTS:
        return None
    effect = ""
    if len(items) <= MOST_RANKED:
        forms = [*list_exclusions(exclude_same), NEAR_COPY]
        ranks = compute_ranks(arrange(items, exclude_same=forms))
        known = ranks.n_partners > 0
        if known.any():
            recall = float((ranks.first_rank[known] == 1).mean())
            effect = f" Without them recall@1 is {100 * recall:.1f} %."
    return (
        f"{100 * fraction:.0f} % of the items have near copies in their own class, as photos of one burst or "
        f"session are, which makes figures better than other days will be.{effect} Leave such pairs out with "
        f"--exclude-same and a column (session, camera, folder), near-time:COLUMN, or {NEAR_COPY}."
    )
