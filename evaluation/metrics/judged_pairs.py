"""OPIS of pairs that people have judged: few of each class, and not all pairs of any items.

The utilities are those of any OPIS (docs/specification.md, OPIS), over judged pairs. A class counts with at
least four pairs of either kind, so that its pairs can be halved: the debiased value is the mean product of
the deviations in the two halves (docs/specification.md, Debiased OPIS), averaged over random halvings.
"""

from __future__ import annotations

import numpy as np

from api_schemas.report import Consistency
from common.array_types import Bools, Float64s, Int64s, Texts
from decision.scorers import count_reached
from evaluation.kernels.scalar_kernels import compute_utility
from evaluation.metrics.class_bootstrap import CLASSES_NEEDED, compute_opis_interval
from evaluation.metrics.opis import (
    OpisSettings,
    build_class_rows,
    build_consistency,
    summarize_utilities,
)

PAIRS_NEEDED = 4  # of either kind, of a class
HALVINGS = 200


def measure_judged_consistency(
    classes: Texts,
    codes: Int64s,
    scores: Float64s,
    same: Bools,
    thresholds: Float64s,
    seed: int = 0,
) -> tuple[Consistency, list[str]]:
    """The figures of the section ``consistency`` that judged pairs give, and what is to be said of them.

    Args:
        classes: names.
        codes: int64 [n], the class that a pair is about; a pair of two classes is given once for each.
        scores: float64 [n].
        same: [n], whether the two are of one class.
        thresholds: float32 [k], over which OPIS is taken.
    """
    settings = OpisSettings(grid=max(2, len(thresholds)))
    n_classes = len(classes)
    n_genuine = np.bincount(codes[same], minlength=n_classes)
    n_impostor = np.bincount(codes[~same], minlength=n_classes)
    scored = np.flatnonzero(np.minimum(n_genuine, n_impostor) >= PAIRS_NEEDED)
    if len(scored) < CLASSES_NEEDED:
        return build_consistency(settings), [
            f"OPIS needs {CLASSES_NEEDED} classes of which {PAIRS_NEEDED} pairs that are the same and "
            f"{PAIRS_NEEDED} that are not were judged; {len(scored)} of {n_classes} judged classes have that."
        ]
    order = np.argsort(thresholds, kind="stable")
    back = np.argsort(order)
    levels = count_reached(scores, np.asarray(thresholds)[order])
    chosen = np.isin(codes, scored)
    rows, kinds = np.searchsorted(scored, codes[chosen]), same[chosen].astype(np.int64)
    levels = levels[chosen]

    def rate(halves: Int64s, n_halves: int) -> Float64s:
        """Fractions of accepted pairs, float64 [halves, 2 (impostor, genuine), classes, k]."""
        shape = (n_halves, 2, len(scored), len(thresholds) + 1)
        reached = np.bincount(
            np.ravel_multi_index((halves, kinds, rows, levels), shape), minlength=int(np.prod(shape))
        ).reshape(shape)
        from_above = reached[..., ::-1].cumsum(axis=-1)[..., ::-1]
        return np.asarray((from_above[..., 1:] / from_above[..., :1])[..., back])

    (accepted,) = rate(np.zeros_like(rows), 1)
    far, frr = accepted[0], 1 - accepted[1]
    u = compute_utility(1 - far, accepted[1], settings.c)
    products = np.zeros(len(scored))
    rng = np.random.default_rng(seed)
    for _ in range(HALVINGS):
        deviations = []
        for half in rate(_draw_halves(rows * 2 + kinds, rng), 2):
            of_half = compute_utility(1 - half[0], half[1], settings.c)
            deviations.append(of_half - of_half.mean(axis=0))
        products += (deviations[0] * deviations[1]).mean(axis=1) / HALVINGS
    figures = summarize_utilities(u, settings)
    debiased = float(products.mean())
    consistency = build_consistency(
        settings,
        **figures,
        opis_debiased=debiased,
        opis_ci=compute_opis_interval(products, u, seed),
        noise_floor=figures["opis"] - debiased,
        thresholds=np.asarray(thresholds, dtype=np.float64).tolist(),
        per_class=build_class_rows(
            classes[scored], (n_genuine + n_impostor)[scored], far, np.arange(len(scored)), frr, u
        ),
    )
    return consistency, [
        f"OPIS is over the {len(scored)} of {n_classes} classes with {PAIRS_NEEDED} judged pairs of either "
        "kind; the items of a class are its judged pairs. Where close calls were judged, it is larger than "
        "that of all decisions."
    ]


def _draw_halves(cells: Int64s, rng: np.random.Generator) -> Int64s:
    """0 or 1 for each pair, int64 [n]: a random half of each cell; of an odd number either half is larger."""
    order = np.lexsort([rng.random(len(cells)), cells])
    starts = np.searchsorted(cells[order], np.arange(cells.max() + 1))
    halves = np.empty(len(cells), dtype=np.int64)
    first = rng.integers(0, 2, len(starts))
    halves[order] = (np.arange(len(cells)) - starts[cells[order]] + first[cells[order]]) % 2
    return halves
