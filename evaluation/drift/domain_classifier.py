"""Two-sample test by a classifier: AUC 0.5 = one distribution, 1 = told apart in every case.

A linear classifier learns to tell two samples of vectors apart and is scored on vectors it has not seen
(Lopez-Paz & Oquab 2017, Revisiting Classifier Two-Sample Tests; Rabanser et al. 2019, Failing Loudly,
section 3.2). The classifier is Fisher's discriminant with a ridge, which has a closed form, so that the
AUC of hundreds of permuted samples costs little; their mean and spread are what chance alone gives.

Groups (the classes of the items) keep a changed mix of classes from counting as drift: both samples are
thinned to equally many rows of each group, every row is taken relative to the mean of its group, all rows
of a group are in one fold, and permutations exchange rows within a group alone. What is left is how the rows
of one and the same class have moved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from common.array_types import Float64s, Int64s, UnitVectors

PERMUTATIONS = 200
RIDGE = 0.1  # times the mean variance of a direction


@dataclass(frozen=True)
class DomainShift:
    """How well a classifier tells two samples apart, and what chance alone gives.

    Attributes:
        auc: of unseen rows, mean over two folds.
        chance: mean AUC of permuted samples, about 0.5.
        spread: their standard deviation.
        n: rows of each sample that were compared.
    """

    auc: float
    chance: float
    spread: float
    n: int

    def find_lower(self, alpha: float) -> float:
        """The AUC less what chance exceeds with probability ``alpha``; over 0.5 is drift."""
        return self.auc - self.spread * float(-ndtri(alpha)) - max(0.0, self.chance - 0.5)


def measure_domain_shift(
    reference: UnitVectors,
    recent: UnitVectors,
    reference_groups: Int64s | None = None,
    recent_groups: Int64s | None = None,
    *,
    min_rows: int = 100,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> DomainShift | None:
    """The shift of ``recent`` float32 [m, d] from ``reference`` float32 [n, d].

    Args:
        reference_groups: int64 [n], the class of each row; None compares the samples as they are.
        recent_groups: int64 [m].
        min_rows: None is returned where fewer rows of each sample can be compared.
    """
    rng = np.random.default_rng(seed)
    if reference_groups is None or recent_groups is None:
        at, to = _thin(len(reference), rng), _thin(len(recent), rng)
        n = min(len(at), len(to))
        at, to, groups = at[:n], to[:n], np.arange(n)
    else:
        at, to = _pair_groups(reference_groups, recent_groups, rng)
        groups = np.unique(reference_groups[at], return_inverse=True)[1]
    n = len(at)
    if n < min_rows or groups.max(initial=0) < 1:
        return None
    rows = np.concatenate([reference[at], recent[to]]).astype(np.float64)
    both = np.concatenate([groups, groups])
    if reference_groups is not None:
        rows -= _compute_means(rows, both)[both]
    labels = np.repeat([-1.0, 1.0], n)
    permuted = [_permute(labels, both, rng) for _ in range(permutations)]
    aucs = _compute_aucs(rows, np.stack([labels, *permuted]), _draw_fold(both, rng))
    return DomainShift(float(aucs[0]), float(aucs[1:].mean()), float(aucs[1:].std(ddof=1)), n)


def _thin(n: int, rng: np.random.Generator) -> Int64s:
    return np.asarray(rng.permutation(n))


def _pair_groups(a: Int64s, b: Int64s, rng: np.random.Generator) -> tuple[Int64s, Int64s]:
    """Rows of two samples, equally many of each group, ordered by group; a random choice of the larger."""
    of_a, of_b = _thin(len(a), rng), _thin(len(b), rng)
    of_a, of_b = of_a[np.argsort(a[of_a], kind="stable")], of_b[np.argsort(b[of_b], kind="stable")]
    shared = np.intersect1d(a, b)
    chosen_a, chosen_b = [], []
    for group in shared:
        rows_a = of_a[slice(*np.searchsorted(a[of_a], [group, group + 1]))]
        rows_b = of_b[slice(*np.searchsorted(b[of_b], [group, group + 1]))]
        n = min(len(rows_a), len(rows_b))
        chosen_a.append(rows_a[:n])
        chosen_b.append(rows_b[:n])
    nothing = np.empty(0, dtype=np.int64)
    return np.concatenate([nothing, *chosen_a]), np.concatenate([nothing, *chosen_b])


def _compute_means(rows: Float64s, groups: Int64s) -> Float64s:
    sums = np.zeros((groups.max() + 1, rows.shape[1]))
    np.add.at(sums, groups, rows)
    return np.asarray(sums / np.bincount(groups)[:, None])


def _permute(labels: Float64s, groups: Int64s, rng: np.random.Generator) -> Float64s:
    """The labels exchanged within groups."""
    order = np.lexsort([rng.random(len(labels)), groups])
    permuted = np.empty_like(labels)
    permuted[np.argsort(groups, kind="stable")] = labels[order]
    return permuted


def _draw_fold(groups: Int64s, rng: np.random.Generator) -> Int64s:
    """0 or 1 for each row: whole groups, of which the larger are dealt out first."""
    sizes = np.bincount(groups)
    order = np.lexsort([rng.random(len(sizes)), -sizes])
    fold, filled = np.empty(len(sizes), dtype=np.int64), [0, 0]
    for group in order:
        fold[group] = int(filled[1] < filled[0])
        filled[fold[group]] += sizes[group]
    return np.asarray(fold[groups])


def _compute_aucs(rows: Float64s, labels: Float64s, fold: Int64s) -> Float64s:
    """float64 [p]: the AUC under each of the labellings -1/1, float64 [p, n], of two-fold cross-validation.

    The discriminant's direction is the same under the covariance of all rows as under that within the
    samples, up to a factor, so one inverse serves every labelling.
    """
    aucs = np.zeros(len(labels))
    for part in (0, 1):
        learn, test = fold == part, fold != part
        learned = rows[learn] - rows[learn].mean(axis=0)
        covariance = learned.T @ learned / len(learned)
        d = len(covariance)
        covariance += (RIDGE * np.trace(covariance) / d + np.finfo(float).tiny) * np.eye(d)
        balance = labels[:, learn] - labels[:, learn].mean(axis=1, keepdims=True)
        directions = np.linalg.solve(covariance, (balance @ learned).T)
        ranks = np.stack([_rank(scores) for scores in (rows[test] @ directions).T])
        positive = labels[:, test] > 0
        n_positive = positive.sum(axis=1)
        n_negative = test.sum() - n_positive
        wins = (ranks * positive).sum(axis=1) - n_positive * (n_positive + 1) / 2
        aucs += 0.5 * wins / np.maximum(1, n_positive * n_negative)
    return aucs


def _rank(scores: Float64s) -> Float64s:
    """Ranks from 1, float64 [n]; the mean of those that tied scores have."""
    ordered = np.sort(scores)
    below, up_to = np.searchsorted(ordered, scores), np.searchsorted(ordered, scores, side="right")
    return np.asarray((below + up_to + 1) / 2)
