"""Proof, on sampled queries, that two galleries decide alike: what a migration shows before it switches."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from common.array_types import UnitVectors
from common.errors import LimenError
from common.progress import Track, silent
from decision.errors import NoOperatingPoint, OtherGroup
from index.gallery.gallery import Gallery

SAMPLED_ROWS = 100_000
AT_ONCE = 200
NOISE = (0.1, 1.0)  # lengths of what is added to a stored vector of length 1


class DecisionsDiffer(LimenError):
    """Two galleries that should decide alike do not."""


def check_same_decisions(before: Gallery, after: Gallery, n: int, track: Track = silent) -> None:
    """Raises DecisionsDiffer unless both answer ``n`` queries alike, to the last bit.

    Compared is what is decided, on which item and by which score. The margin, and with it the probability,
    says how near the second class is, which one graph finds and another may miss.
    """
    if before.n_items != after.n_items:
        raise DecisionsDiffer(
            f"The new gallery has {after.n_items} items, the old one {before.n_items}: nothing was switched. "
            "Stop what writes to it, and run the command again."
        )
    queries = sample_queries(before, n)
    n_different, first = 0, ""
    starts = range(0, len(queries), AT_ONCE)
    for start in track(starts, "decisions compared", len(starts)):
        block = queries[start : start + AT_ONCE]
        for number, (old, new) in enumerate(zip(_ask(before, block), _ask(after, block), strict=True), start):
            if old != new:
                n_different += 1
                first = first or f"query {number} is answered {_describe(new)} instead of {_describe(old)}"
    if n_different:
        raise DecisionsDiffer(
            f"{n_different} of {len(queries)} sampled decisions differ, the first: {first}. Nothing was "
            "switched; search wider, for instance with --set index.ef_search=512, and run the command again."
        )


def sample_queries(gallery: Gallery, n: int) -> UnitVectors:
    """float32 [n, d]: stored vectors, others near them or halfway between two; the same every time."""
    rng = np.random.default_rng(0)
    stored = gallery.view.sample(SAMPLED_ROWS)
    if not len(stored):
        return np.empty((0, gallery.dim), dtype=np.float32)
    first, second = (stored[rng.integers(0, len(stored), n)].astype(np.float64) for _ in range(2))
    noise = rng.normal(size=first.shape)
    noise *= rng.uniform(*NOISE, size=(n, 1)) / np.linalg.norm(noise, axis=1, keepdims=True)
    kind = np.arange(n)[:, None] % 3
    mixed = np.where(kind == 0, first, np.where(kind == 1, first + noise, first + 0.999 * second))
    lengths = np.linalg.norm(mixed, axis=1, keepdims=True)
    return np.where(lengths > 1e-3, mixed / np.maximum(lengths, 1e-3), first).astype(np.float32)


def _ask(gallery: Gallery, queries: UnitVectors) -> list[Any]:
    """The decisions; without a 1:N point for all the nearest items."""
    with suppress(NoOperatingPoint, OtherGroup):
        decided = gallery.match(queries)
        return [(one.decision, one.label, one.id, one.similarity, one.score) for one in decided]
    return [[(hit.id, hit.label, hit.similarity) for hit in hits] for hits in gallery.search(queries, 1)]


def _describe(answer: Any) -> str:
    if isinstance(answer, list):
        return f"'{answer[0][0]}' ({answer[0][2]:.6f})" if answer else "nothing"
    decision, label, item, similarity, score = answer
    return f"{decision}, '{label}' by '{item}' (similarity {similarity}, score {score})"
