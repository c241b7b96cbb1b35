"""Queries of several vectors of one object, decided together: the frames of a track, a burst of photos.

Where nothing says which items were recorded together, items of one class are put together at random; with
exclusions (a session, a camera) those of one class and one group of these, as real tracks are. A track is
compared with nothing that it holds and with nothing that shares a group with it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from common.errors import CalibrationRefused
from common.progress import Track
from decision.scorers import Scorer
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.class_evidence.class_features import average_rows
from evaluation.calibration.trials import SearchRule, Trials, sample_labelled_trials
from evaluation.pairs.exclusions import ExcludeSame, list_exclusions, read_groups
from evaluation.pairs.ordered_items import hash_rows
from evaluation.pairs.pairs import Pairs, arrange

TRACK = "(track)"


def add_tracks(
    items: EmbeddingSet, n: int, exclude_same: ExcludeSame = None, prefix: str = ""
) -> EmbeddingSet:
    """The set with a column of tracks of ``n`` items each, empty for items that no whole track is left for.

    ``prefix`` tells the tracks of one set from those of another. Tracks do not depend on the order of rows.
    """
    groups, _ = read_groups(items, None, exclude_same)
    keys = np.stack([items.codes, *([] if groups is None else groups.T)])
    order = np.lexsort((hash_rows(items.vectors), *keys[::-1]))
    is_first = np.any(np.diff(keys[:, order], axis=1, prepend=-1) != 0, axis=0)
    starts = np.flatnonzero(is_first)
    sizes = np.diff(starts, append=len(order))
    position = np.arange(len(order)) - np.repeat(starts, sizes)
    is_whole = position < np.repeat(sizes // n * n, sizes)
    track = np.cumsum(is_whole & (position % n == 0)) - 1
    names = np.full(len(items), "", dtype=object)  # which is shared with no other item
    names[order[is_whole]] = [f"{prefix}{number}" for number in track[is_whole].tolist()]
    return EmbeddingSet(items.vectors, items.labels, items.ids, {**items.metadata, TRACK: names.astype(str)})


def exclude_tracks(exclude_same: ExcludeSame) -> list[str]:
    """The exclusions of sets with tracks; ``select_tracks`` finds these in the first column."""
    return [TRACK, *list_exclusions(exclude_same)]


def arrange_queries(
    items: EmbeddingSet, gallery: EmbeddingSet | None, n: int, exclude_same: ExcludeSame, scorer: Scorer
) -> Pairs:
    """Items with themselves or with a gallery, with tracks where queries are of several vectors."""
    if n == 1:
        return arrange(items, gallery=gallery, exclude_same=exclude_same, scorer=scorer)
    queries = add_tracks(items, n, exclude_same, "" if gallery is None else "query ")
    if gallery is not None:
        gallery = add_tracks(gallery, n, exclude_same)
    return arrange(queries, gallery=gallery, exclude_same=exclude_tracks(exclude_same), scorer=scorer)


def select_tracks(pairs: Pairs, n: int) -> Pairs:
    """The tracks of ``pairs.a`` against all of ``b``: each ``n`` consecutive rows.

    Raises CalibrationRefused where there is none.
    """
    assert pairs.a.groups is not None
    of_track = pairs.a.groups[:, 0]
    rows = np.flatnonzero(np.bincount(of_track)[of_track] == n)
    if not len(rows):
        raise CalibrationRefused(
            f"No class has {n} items that could be queried together and are no part of one another's "
            "gallery: give more items of each class, or a smaller number of vectors."
        )
    rows = rows[np.lexsort((of_track[rows], pairs.a.codes[rows]))]
    return replace(pairs, a=pairs.a.select(rows), symmetric=False)


def average_trials(rule: SearchRule, pairs: Pairs, n: int, track: Track) -> Trials:
    """The trials of tracks, ``n`` consecutive queries each: the mean of their scores with each class."""
    trials = rule.score_trials(pairs, track)
    return replace(
        trials,
        other=average_rows(trials.other, n),
        own=average_rows(trials.own, n),
        codes=trials.codes[::n],
    )


@cache
def combine_vectors(rule: SearchRule, n: int) -> SearchRule:
    """The rule for queries of ``n`` vectors each, of sets that have tracks (``add_tracks``).

    The tail of means is heavier than an exponential, so that match rates are counted, not extrapolated.
    """
    if n == 1:
        return rule

    def score_trials(pairs: Pairs, track: Track) -> Trials:
        tracks = select_tracks(pairs, n)
        if rule.score_tracks is not None:
            return rule.score_tracks(tracks, n, track)
        return average_trials(rule, tracks, n, track)

    return replace(
        rule,
        description=f"{rule.description}, {n} vectors of a query together",
        is_of_pairs=False,
        compute_start_rate=lambda rate, _: rate,
        score_trials=score_trials,
        sample_labelled=sample_labelled_trials,
    )
