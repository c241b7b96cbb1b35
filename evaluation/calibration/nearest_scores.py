"""The 1:N rule ``nearest``: a query's score with a class is that of the nearest of the class's items."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from common.array_types import Float32s, Int64s
from common.progress import Track, silent
from evaluation.calibration.fit_probability import LabelledScores
from evaluation.calibration.impostor_scores import sample_impostors
from evaluation.calibration.match_rate_tail import compute_start_rate
from evaluation.calibration.pair_thresholds import score_genuine_pairs
from evaluation.calibration.trials import SearchRule, TailCoordinate, Trials, number_gallery_classes
from evaluation.pairs.pairs import Pairs

GENUINE = IMPOSTORS = 100_000  # pairs that a probability is fitted on
STREAM = 5  # of random impostor pairs
STRIP = 2**22  # pairs of one class that are scored at a time


def score_nearest_trials(pairs: Pairs, track: Track = silent) -> Trials:
    """Every query's best score within every class, its own item left out."""
    best = np.full((len(pairs.a), len(pairs.classes)), -np.inf, dtype=np.float32)
    for block in track(pairs.iterate_blocks(), "best scores", len(pairs.tiles)):
        scores = block.scores
        if pairs.has_groups:
            excluded = pairs.is_within_group(block.rows, block.columns)
            scores = np.where(excluded, np.float32(-np.inf), scores)
        codes, starts = _find_runs(pairs.b.codes[block.columns])
        _raise_to(best[block.rows], codes, np.maximum.reduceat(scores, starts, axis=1))
        if pairs.symmetric:
            codes, starts = _find_runs(pairs.a.codes[block.rows])
            _raise_to(best[block.columns], codes, np.maximum.reduceat(scores, starts, axis=0).T)
    best[np.arange(len(best)), pairs.a.codes] = -np.inf
    columns, codes = number_gallery_classes(pairs)
    return Trials(
        other=best if len(columns) == best.shape[1] else best[:, columns],
        own=_score_own_classes(pairs),
        codes=codes,
        gallery_items=len(pairs.b),
        coordinate=TailCoordinate.fit(pairs),
    )


def _find_runs(codes: Int64s) -> tuple[Int64s, Int64s]:
    """The distinct ones of ascending codes, and where each begins."""
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    return codes[starts], starts


def _raise_to(best: Float32s, columns: Int64s, scores: Float32s) -> None:
    """Raise the columns of a view to scores, where these are higher."""
    if columns[-1] - columns[0] == len(columns) - 1:
        part = best[:, columns[0] : columns[-1] + 1]
        np.maximum(part, scores, out=part)
    else:
        best[:, columns] = np.maximum(best[:, columns], scores)


def _score_own_classes(pairs: Pairs) -> Float32s:
    """float32 [n]: best score with another item of the own class; -inf if there is none."""
    own = np.full(len(pairs.a), -np.inf, dtype=np.float32)
    for code in np.flatnonzero(pairs.genuine_per_class):
        height = max(1, STRIP // int(pairs.b.sizes[code]))
        for first in range(pairs.a.starts[code], pairs.a.starts[code + 1], height):
            rows = slice(int(first), int(min(first + height, pairs.a.starts[code + 1])))
            scores, _, is_pair = pairs.score_class(int(code), rows)
            own[rows] = np.where(is_pair, scores, np.float32(-np.inf)).max(axis=1)
    return own


def sample_labelled_pairs(pairs: Pairs, seed: int) -> LabelledScores:
    """A random part of the genuine pairs and of the impostor pairs, with their ground truth."""
    genuine = score_genuine_pairs(pairs)
    if len(genuine.scores) > GENUINE:
        drawn = np.random.default_rng([seed, STREAM, 1]).permutation(len(genuine.scores))[:GENUINE]
        genuine = replace(genuine, codes=genuine.codes[drawn], scores=genuine.scores[drawn])
    a, b, scores = sample_impostors(pairs, IMPOSTORS, seed, STREAM)
    return LabelledScores(
        scores=np.concatenate([genuine.scores, scores]).astype(np.float64),
        genuine=np.repeat([True, False], [len(genuine.scores), len(scores)]),
        first=np.concatenate([genuine.codes, pairs.a.codes[a]]),
        second=np.concatenate([genuine.codes, pairs.a.codes[b]]),
    )


NEAREST = SearchRule(
    description="the nearest item of a class",
    scores_name="best scores",
    is_of_pairs=True,
    compute_start_rate=compute_start_rate,
    score_trials=score_nearest_trials,
    sample_labelled=lambda pairs, _, seed: sample_labelled_pairs(pairs, seed),
)
