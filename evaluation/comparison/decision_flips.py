"""Pairs that two models decide differently, and new queries against an old gallery."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from api_schemas.comparison import Compatibility, Flips
from embeddings.embedding_set import EmbeddingSet
from evaluation.pairs.pairs import Pairs
from evaluation.pairs.sweep import Sweep
from evaluation.pairs.worst_pairs import Examples

EXAMPLES = 20
ROWS = 512


def flips(items: EmbeddingSet, a: Pairs, b: Pairs, threshold_a: np.float32, threshold_b: np.float32) -> Flips:
    """Decisions that differ between two models of the same items in the same order.

    Args:
        items: for the names of the examples.
        a, b: pairs of one set against itself, by each model.
        threshold_a, threshold_b: each model's own.
    """
    gained = genuine_lost = 0
    lost = Examples(EXAMPLES, lowest=True)
    for old, new in zip(a.genuine_parts(), b.genuine_parts(), strict=True):
        was, is_now = old.scores >= threshold_a, new.scores >= threshold_b
        gained += int((~was & is_now).sum())
        here = was & ~is_now
        genuine_lost += int(here.sum())
        lost.meet(new.a[here], new.b[here], new.scores[here])
    impostor_gained = impostor_lost = 0
    accepted = Examples(EXAMPLES)
    for rows, columns in a.tiles:
        before, after = a.block(rows, columns), b.block(rows, columns)
        impostor = a.impostors(before)
        was, is_now = before.scores >= threshold_a, after.scores >= threshold_b
        impostor_gained += int((impostor & was & ~is_now).sum())
        r, c = np.nonzero(impostor & ~was & is_now)
        impostor_lost += len(r)
        accepted.meet(r + rows.start, c + columns.start, after.scores[r, c])
    return Flips(
        threshold_a=float(threshold_a),
        threshold_b=float(threshold_b),
        genuine_gained=gained,
        genuine_lost=genuine_lost,
        impostor_gained=impostor_gained,
        impostor_lost=impostor_lost,
        examples_genuine_lost=lost.named(b, items, items),
        examples_impostor_lost=accepted.named(b, items, items),
    )


def compatibility(old: Sweep, new: Sweep, threshold: np.float32) -> Compatibility:
    """New queries against the old gallery, each query's own old vector left out.

    Both sweeps are of the same items in the same order. All ordered pairs are looked at: query i of the
    new model with item j of the old one is another pair than query j with item i.
    """
    a, b = old.pairs, new.pairs
    n = len(a.a)
    queries = replace(b.a, densities=None if a.a.densities is None else a.scorer.densities(b.a.vectors))
    crossed = Pairs(a.classes, queries, a.a, False, a.scorer)
    accepted = total = kept_genuine = n_genuine = kept_impostor = 0
    right = np.zeros(n, dtype=bool)
    everything = slice(0, n)
    for first in range(0, n, ROWS):
        rows = slice(first, min(first + ROWS, n))
        was = a.block(rows, everything).scores
        block = crossed.block(rows, everything)
        mixed = block.scores
        allowed = np.ones(mixed.shape, dtype=bool)
        allowed[np.arange(len(mixed)), np.arange(rows.start, rows.stop)] = False
        if a.a.groups is not None:
            allowed &= a.a.groups[rows][:, None] != a.a.groups[None, :]
        same = a.a.codes[rows][:, None] == a.a.codes[None, :]
        genuine, impostor = allowed & same, allowed & ~same
        accepted += int((impostor & (mixed >= threshold)).sum())
        total += int(impostor.sum())
        kept_genuine += int((genuine & (mixed >= was)).sum())
        n_genuine += int(genuine.sum())
        kept_impostor += int((impostor & (mixed <= was)).sum())
        nearest = np.where(allowed, block.similarities, -np.inf).argmax(axis=1)
        right[rows] = same[np.arange(len(mixed)), nearest] & genuine.any(axis=1)
    assert old.ranks is not None
    assert new.ranks is not None
    have = old.ranks.n_partners > 0
    before, after = (float((ranks.first_rank[have] == 1).mean()) for ranks in (old.ranks, new.ranks))
    mixed_recall = float(right[have].mean())
    return Compatibility(
        recall_at_1_old_old=before,
        recall_at_1_new_old=mixed_recall,
        recall_at_1_new_new=after,
        compatible=mixed_recall > before,
        far_at_old_threshold=accepted / total,
        genuine_kept=kept_genuine / n_genuine,
        impostor_kept=kept_impostor / total,
    )
