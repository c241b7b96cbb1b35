"""OPIS of judged pairs: its definition, what it takes, and that noise alone gives none."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.metrics.judged_pairs import PAIRS_NEEDED, measure_judged_consistency

THRESHOLDS = np.float32([0.9, 0.7, 0.7, 0.5, 0.1])


def draw_pairs(
    seed: int, n_classes: int, n: int, spread: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, scores and ground truth; classes differ by ``spread`` in where their genuine scores lie."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(n_classes), 2 * n)
    same = np.tile(np.repeat([True, False], n), n_classes)
    shift = spread * np.linspace(-1, 1, n_classes)[codes]
    scores = np.where(same, 0.7 + shift, 0.4) + 0.2 * rng.normal(size=len(codes))
    return codes, np.round(scores, 1), same  # ties, some of them at a threshold


def test_the_figures_are_those_of_the_definition() -> None:
    codes, scores, same = draw_pairs(0, 7, 6, 0.2)
    names = np.array([f"class {code}" for code in range(7)])
    found, reasons = measure_judged_consistency(names, codes, scores, same, THRESHOLDS)
    utilities = []
    for code in range(7):
        row = []
        for threshold in THRESHOLDS:
            genuine, impostor = scores[(codes == code) & same], scores[(codes == code) & ~same]
            sensitivity = np.mean([np.float32(score) >= threshold for score in genuine])
            specificity = 1 - np.mean([np.float32(score) >= threshold for score in impostor])
            both = sensitivity + specificity
            row.append(2 * sensitivity * specificity / both if both else 0.0)
        utilities.append(row)
    u = np.array(utilities)
    assert found.opis == pytest.approx(np.mean((u - u.mean(axis=0)) ** 2))
    assert found.mean_utility == pytest.approx(u.mean(axis=0))
    assert [row.utility for row in found.per_class] == pytest.approx(u.mean(axis=1))
    assert [(row.label, row.n_items) for row in found.per_class] == [(name, 12) for name in names]
    assert "7 of 7 classes" in reasons[0]


def test_what_few_pairs_bring_by_chance_is_taken_off() -> None:
    """Classes that are all alike have a plain OPIS by chance, and a debiased one around zero."""
    alike, apart = [], []
    for seed in range(12):
        names = np.arange(30).astype(str)
        for values, spread in ((alike, 0.0), (apart, 0.3)):
            found, _ = measure_judged_consistency(names, *draw_pairs(seed, 30, 8, spread), THRESHOLDS)
            assert found.opis is not None
            assert found.opis_debiased is not None
            assert found.opis_ci is not None
            values.append((found.opis, found.opis_debiased, found.opis_ci[0] > 0))
    plain, debiased, is_seen = np.mean(alike, axis=0)
    assert plain > 0.004
    assert abs(debiased) < plain / 8
    assert is_seen < 0.2
    assert np.mean(apart, axis=0)[2] == 1, "classes that differ are seen to differ"


def test_too_few_classes_or_pairs_give_a_sentence() -> None:
    names = np.arange(5).astype(str)
    codes, scores, same = draw_pairs(0, 5, PAIRS_NEEDED)
    assert measure_judged_consistency(names, codes, scores, same, THRESHOLDS)[0].opis is not None
    for keep in (codes < 4, np.arange(len(codes)) > 0, ~same):
        found, reasons = measure_judged_consistency(names, codes[keep], scores[keep], same[keep], THRESHOLDS)
        assert found.opis is None
        assert found.per_class == []
        assert "OPIS needs 5 classes" in reasons[0]
    nothing = np.zeros(0)
    empty = measure_judged_consistency(
        names[:0], nothing.astype(int), nothing, nothing.astype(bool), THRESHOLDS
    )
    assert empty[0].opis is None
