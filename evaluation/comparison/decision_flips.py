"""Pairs that two models decide differently, and new queries against an old gallery."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from api_schemas.comparison import Compatibility, Flips
from decision.scorers import accepts
from embeddings.embedding_set import EmbeddingSet
from evaluation.pairs.pairs import Pairs
from evaluation.pairs.sweep import Sweep
from evaluation.pairs.worst_pairs import WorstPairs

EXAMPLES = 20
ROWS = 512


def count_flips(items: EmbeddingSet, a: Pairs, b: Pairs, threshold_a: float, threshold_b: float) -> Flips:
    """Decisions that differ between two models of the same items, in one order, each at its own threshold."""
    genuine_gained = genuine_lost = 0
    lost = WorstPairs(EXAMPLES, lowest=True)
    for old, new in zip(a.iterate_genuine(), b.iterate_genuine(), strict=True):
        was, is_now = accepts(old.scores, threshold_a), accepts(new.scores, threshold_b)
        genuine_gained += int((~was & is_now).sum())
        flipped = was & ~is_now
        genuine_lost += int(flipped.sum())
        lost.add(new.a[flipped], new.b[flipped], new.scores[flipped])
    impostor_gained = impostor_lost = 0
    accepted = WorstPairs(EXAMPLES)
    for rows, columns in a.tiles:
        before, after = a.score_block(rows, columns), b.score_block(rows, columns)
        impostor = a.mask_impostors(before)
        was, is_now = accepts(before.scores, threshold_a), accepts(after.scores, threshold_b)
        impostor_gained += int((impostor & was & ~is_now).sum())
        r, c = np.nonzero(impostor & ~was & is_now)
        impostor_lost += len(r)
        accepted.add(r + rows.start, c + columns.start, after.scores[r, c])
    return Flips(
        threshold_a=threshold_a,
        threshold_b=threshold_b,
        genuine_gained=genuine_gained,
        genuine_lost=genuine_lost,
        impostor_gained=impostor_gained,
        impostor_lost=impostor_lost,
        examples_genuine_lost=lost.name_pairs(b, items, items),
        examples_impostor_lost=accepted.name_pairs(b, items, items),
    )


def measure_compatibility(old: Sweep, new: Sweep, threshold: float) -> Compatibility:
    """New queries against the old gallery, each query's own old vector left out.

    Both sweeps are of the same items in the same order. All ordered pairs are counted: query i of the
    new model with item j of the old one is another pair than query j with item i.
    """
    a, b = old.pairs, new.pairs
    n = len(a.a)
    queries = replace(
        b.a, densities=None if a.a.densities is None else a.scorer.compute_densities(b.a.vectors)
    )
    crossed = Pairs(a.classes, queries, a.a, False, a.scorer)
    accepted = total = kept_genuine = n_genuine = kept_impostor = 0
    right, was_right = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    matched, was_matched = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    answered, was_answered = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    all_columns = slice(0, n)
    for first in range(0, n, ROWS):
        rows = slice(first, min(first + ROWS, n))
        old_block = a.score_block(rows, all_columns)
        was = old_block.scores
        block = crossed.score_block(rows, all_columns)
        mixed = block.scores
        is_pair = np.ones(mixed.shape, dtype=bool)
        is_pair[np.arange(len(mixed)), np.arange(rows.start, rows.stop)] = False
        is_pair &= ~a.is_within_group(rows, all_columns)
        same = a.a.codes[rows][:, None] == a.a.codes[None, :]
        genuine, impostor = is_pair & same, is_pair & ~same
        accepted += int((impostor & accepts(mixed, threshold)).sum())
        total += int(impostor.sum())
        kept_genuine += int((genuine & (mixed >= was)).sum())
        n_genuine += int(genuine.sum())
        kept_impostor += int((impostor & (mixed <= was)).sum())
        for similarities, found in ((block.similarities, right), (old_block.similarities, was_right)):
            nearest = np.where(is_pair, similarities, -np.inf).argmax(axis=1)
            found[rows] = same[np.arange(len(mixed)), nearest] & genuine.any(axis=1)
        for scores, found, strangers in ((mixed, answered, matched), (was, was_answered, was_matched)):
            best_own = np.where(genuine, scores, -np.inf).max(axis=1)
            best_other = np.where(impostor, scores, -np.inf).max(axis=1)
            found[rows] = accepts(best_own, threshold) & (best_own > best_other)
            strangers[rows] = accepts(best_other, threshold)
    assert old.ranks is not None
    assert new.ranks is not None
    has_partner = old.ranks.n_partners > 0
    after = float((new.ranks.first_rank[has_partner] == 1).mean())
    before, mixed_recall = float(was_right[has_partner].mean()), float(right[has_partner].mean())
    return Compatibility(
        recall_at_1_old_old=before,
        recall_at_1_new_old=mixed_recall,
        recall_at_1_new_new=after,
        compatible=mixed_recall >= before,
        far_at_old_threshold=accepted / total,
        genuine_kept=kept_genuine / n_genuine,
        impostor_kept=kept_impostor / total,
        fpir_old_old=float(was_matched.mean()),
        fpir_new_old=float(matched.mean()),
        fnir_old_old=float(1 - was_answered[has_partner].mean()),
        fnir_new_old=float(1 - answered[has_partner].mean()),
    )
