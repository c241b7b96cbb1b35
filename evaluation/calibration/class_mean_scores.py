"""The 1:N rule ``mean_of_class``: a query's score with a class is its mean score with the class's items.

A query's own item is left out of the mean of its own class; the class of a copy of it scores as that copy
alone. Match rates, their tails and their bounds are those of trials of a query and a class, as for the
nearest item (``nearest_scores.py``).

The tail is extrapolated over a short way only. Classes differ in how long their mean vector is, so the tail
of means is a mixture and heavier than an exponential: extrapolated from 80 times a match rate it came to 0.87
of it on classes of unequal spread, and its bound held in 0.83 of 60 draws; counted, 0.99 and 0.93.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from common.array_types import Float32s
from common.progress import Track, silent
from embeddings.similarity import are_copies
from evaluation.calibration.trials import (
    SearchRule,
    TailCoordinate,
    Trials,
    number_gallery_classes,
    sample_labelled_trials,
)
from evaluation.pairs.pairs import Pairs

ROWS = 256


def iterate_class_means(pairs: Pairs, track: Track = silent) -> Iterator[tuple[slice, Float32s]]:
    """Rows with float32 [m, classes]: each row's mean score with the gallery's items of each class.

    A row of a set against itself is left out of its own class, and excluded pairs of every class; -inf for
    a class that nothing is left of.
    """
    all_columns = slice(0, len(pairs.b))
    present = np.flatnonzero(pairs.b.sizes)
    strips = [slice(first, min(first + ROWS, len(pairs.a))) for first in range(0, len(pairs.a), ROWS)]
    for rows in track(strips, "class means", len(strips)):
        block = pairs.score_block(rows, all_columns)
        scores = block.scores
        sums = np.zeros((len(scores), len(pairs.classes)))
        sums[:, present] = np.add.reduceat(scores, pairs.b.starts[present], axis=1, dtype=np.float64)
        counts = np.broadcast_to(pairs.b.sizes, sums.shape).copy()
        left_out = pairs.mask_left_out(rows)
        query, item = np.nonzero(left_out)
        at = query, pairs.b.codes[item]
        np.subtract.at(sums, at, scores[query, item].astype(np.float64))
        np.subtract.at(counts, at, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            means = np.where(counts > 0, sums / counts, -np.inf)
        query, item = np.nonzero(are_copies(block.similarities) & ~left_out)
        np.maximum.at(means, (query, pairs.b.codes[item]), scores[query, item])
        yield rows, means.astype(np.float32)


def score_mean_trials(pairs: Pairs, track: Track = silent) -> Trials:
    """Every query's mean score within every class, its own item left out."""
    columns, codes = number_gallery_classes(pairs)
    other = np.empty((len(pairs.a), len(columns)), dtype=np.float32)
    own = np.empty(len(pairs.a), dtype=np.float32)
    for rows, means in iterate_class_means(pairs, track):
        position = np.arange(len(means)), pairs.a.codes[rows]
        own[rows] = means[position]
        means[position] = -np.inf
        other[rows] = means[:, columns]
    return Trials(other, own, codes, len(pairs.b), TailCoordinate.fit(pairs))


MEAN_OF_CLASS = SearchRule(
    description="the mean over a class's items",
    scores_name="means",
    is_of_pairs=False,
    compute_start_rate=lambda rate, _: rate,
    score_trials=score_mean_trials,
    sample_labelled=sample_labelled_trials,
)
