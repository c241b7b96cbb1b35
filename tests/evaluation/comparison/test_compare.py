"""Two models on the same items, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from api_schemas.comparison import Comparison
from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet
from evaluation.comparison.compare import compare_models
from tests.evaluation.samples import evaluate


def make_model(noise: float, seed: int = 0) -> EmbeddingSet:
    """The same items seen by models that add more or less noise to what the items are."""
    rng = np.random.default_rng(0)
    labels = np.repeat([f"c{k}" for k in range(15)], 6)
    vectors = np.repeat(rng.normal(size=(15, 8)), 6, axis=0) + 0.5 * rng.normal(size=(90, 8))
    vectors = vectors + noise * np.random.default_rng(seed).normal(size=vectors.shape)
    return EmbeddingSet.from_arrays(vectors, labels, [f"i{k}" for k in range(90)])


def compare_two(a: EmbeddingSet, b: EmbeddingSet) -> Comparison:
    return compare_models(a, b, model_hash_a="a", model_hash_b="b")


def read_difference(comparison: Comparison, name: str) -> tuple[float, tuple[float, float]]:
    row = next(row for row in comparison.differences if row.name == name)
    assert row.difference is not None
    return row.difference, row.interval or (np.nan, np.nan)


def compute_scores(a: EmbeddingSet, b: EmbeddingSet) -> np.ndarray:
    return np.clip(a.vectors.astype(np.float64) @ b.vectors.astype(np.float64).T, -1, 1).astype(np.float32)


def test_a_model_is_not_different_from_itself_in_any_order_of_rows() -> None:
    items = make_model(0.3, 1)
    comparison = compare_two(items, items.subset(np.random.default_rng(3).permutation(len(items))))
    for row in comparison.differences:
        assert row.difference == pytest.approx(0, abs=1e-12)
        if row.interval is not None:
            assert row.interval[0] <= 1e-12
            assert row.interval[1] >= -1e-12
    flips = comparison.flips
    assert flips.genuine_gained == flips.genuine_lost == flips.impostor_gained == flips.impostor_lost == 0
    assert comparison.compatibility.genuine_kept == comparison.compatibility.impostor_kept == 1
    assert comparison.compatibility.compatible
    assert comparison.compatibility.recall_at_1_new_old == comparison.compatibility.recall_at_1_old_old


def test_a_noisier_model_is_worse_beyond_chance() -> None:
    comparison = compare_two(make_model(0.1, 1), make_model(1.5, 2))
    difference, (_, high) = read_difference(comparison, "map_at_r")
    assert difference < 0
    assert high < 0
    difference, (low, _) = read_difference(comparison, "frr")
    assert difference > 0
    assert low > 0


def test_figures_are_those_of_the_reports() -> None:
    a, b = make_model(0.3, 1), make_model(0.8, 2)
    comparison, reports = (compare_two(a, b), [evaluate(items) for items in (a, b)])
    rows = {row.name: row for row in comparison.differences}
    for name in ("recall_at_1", "map_at_r"):
        assert rows[name].a == pytest.approx(getattr(reports[0].retrieval, name))
        assert rows[name].b == pytest.approx(getattr(reports[1].retrieval, name))
    assert rows["eer"].b == pytest.approx(reports[1].verification.eer)
    assert rows["frr"].a == pytest.approx(1 - (reports[0].verification.tar_at_far["0.01"] or 0))
    value = reports[0].consistency.opis_logfar_debiased or 0
    assert rows["opis_logfar_debiased"].a == pytest.approx(value, rel=0.1, abs=1e-4)


def test_the_fnir_is_at_the_threshold_that_keeps_the_fpir() -> None:
    a, b = make_model(0.3, 1), make_model(0.8, 2)
    row = next(row for row in compare_two(a, b).differences if row.name == "fnir")
    for items, value in ((a, row.a), (b, row.b)):
        scores = compute_scores(items, items)
        np.fill_diagonal(scores, -np.inf)
        same = items.codes[:, None] == items.codes[None, :]
        own = np.where(same, scores, -np.inf).max(axis=1)
        other = np.where(same, -np.inf, scores).max(axis=1)
        refused = np.sort(other)[::-1][int(0.01 * len(other))]  # scores above it keep 1 %
        assert value == pytest.approx(1 - ((own > other) & (own > refused)).mean())


def compute_naive_resampled_eer(items: EmbeddingSet, weights: np.ndarray) -> float:
    """Every pair counts as often as its class, or both of its classes, were drawn."""
    scores = compute_scores(items, items)
    drawn = weights[items.codes]
    same = items.codes[:, None] == items.codes[None, :]
    upper = np.triu(np.ones_like(same), 1)
    genuine, impostor = upper & same, upper & ~same
    w_genuine = np.broadcast_to(drawn[:, None], same.shape)[genuine]
    w_impostor = (drawn[:, None] * drawn[None, :])[impostor]
    return min(
        max(
            w_impostor[scores[impostor] >= t].sum() / w_impostor.sum(),
            w_genuine[scores[genuine] < t].sum() / w_genuine.sum(),
        )
        for t in np.quantile(scores[upper], np.linspace(0.7, 1, 150))
    )


def test_the_interval_of_the_eer_is_that_of_draw_classes_both_models_at_once() -> None:
    a, b = make_model(0.3, 1), make_model(0.8, 2)
    difference, (low, high) = read_difference(compare_two(a, b), "eer")
    draws = np.random.default_rng(5).multinomial(15, np.full(15, 1 / 15), size=400)
    naive = [compute_naive_resampled_eer(b, w) - compute_naive_resampled_eer(a, w) for w in draws]
    assert low < difference < high
    expected = np.quantile(naive, [0.025, 0.975])
    assert high - low == pytest.approx(expected[1] - expected[0], rel=0.25)


def test_separable_models_have_no_eer_to_differ_in() -> None:
    labels = np.repeat(np.arange(8), 4)
    items = EmbeddingSet.from_arrays(np.eye(8)[labels] + 1e-3 * np.arange(32)[:, None], labels)
    assert read_difference(compare_two(items, items), "eer") == (0, (0, 0))


def test_flipped_decisions() -> None:
    a, b = make_model(0.3, 1), make_model(0.8, 2)
    flips = compare_two(a, b).flips
    same = a.labels[:, None] == a.labels[None, :]
    upper = np.triu(np.ones_like(same), 1)
    was = compute_scores(a, a) >= np.float32(flips.threshold_a)
    is_now = compute_scores(b, b) >= np.float32(flips.threshold_b)
    assert flips.genuine_gained == (upper & same & ~was & is_now).sum()
    assert flips.genuine_lost == (upper & same & was & ~is_now).sum()
    assert flips.impostor_gained == (upper & ~same & was & ~is_now).sum()
    assert flips.impostor_lost == (upper & ~same & ~was & is_now).sum()
    worst = np.sort(compute_scores(b, b)[upper & ~same & ~was & is_now])[::-1]
    np.testing.assert_allclose([pair.score for pair in flips.examples_impostor_lost], worst[:20])
    assert all(pair.label_a == pair.label_b for pair in flips.examples_genuine_lost)


def test_new_queries_against_the_old_gallery() -> None:
    a, b = make_model(0.3, 1), make_model(0.5, 2)
    comparison = compare_two(a, b)
    compatibility = comparison.compatibility
    mixed, old = compute_scores(b, a), compute_scores(a, a)
    same = a.labels[:, None] == a.labels[None, :]
    different = ~np.eye(len(a), dtype=bool)
    nearest = np.where(different, mixed, -2).argmax(axis=1)
    assert compatibility.recall_at_1_new_old == pytest.approx(np.mean(same[np.arange(len(a)), nearest]))
    assert compatibility.genuine_kept == pytest.approx(np.mean((mixed >= old)[same & different]), abs=1e-3)
    assert compatibility.impostor_kept == pytest.approx(np.mean((mixed <= old)[~same]), abs=1e-3)
    threshold = np.float32(comparison.flips.threshold_a)
    assert compatibility.far_at_old_threshold == pytest.approx(np.mean(mixed[~same] >= threshold), abs=1e-3)
    assert Comparison.model_validate_json(comparison.to_json()) == comparison


def test_models_of_other_dimensions_cannot_share_a_gallery() -> None:
    a = make_model(0.3, 1)
    b = EmbeddingSet.from_arrays(a.vectors[:, :5], a.labels, a.ids)
    comparison = compare_two(a, b)
    assert comparison.compatibility is None
    assert any("8 numbers, the new ones 5" in reason for reason in comparison.reasons)


def test_other_items_and_other_labels_are_refused() -> None:
    a = make_model(0.3, 1)
    with pytest.raises(InputError, match=r"1 ids are in the first alone, 0 in the second.*'i89'"):
        compare_two(a, a.subset(np.arange(89)))
    relabelled = EmbeddingSet.from_arrays(a.vectors, np.where(a.ids == "i3", "c9", a.labels), a.ids)
    with pytest.raises(InputError, match="'i3' is labelled 'c0' in the first set and 'c9'"):
        compare_two(a, relabelled)


def test_models_of_one_class_are_refused_with_what_is_missing() -> None:
    items = EmbeddingSet.from_arrays(np.eye(4), ["a"] * 4)
    with pytest.raises(InputError, match="no impostor pair: at least one pair of two classes"):
        compare_two(items, items)


def test_a_model_is_compatible_with_itself_where_copies_tie() -> None:
    """Copies under two labels: which of them comes first must not depend on who asks."""
    draw = np.random.default_rng(0)
    vectors = np.repeat(draw.normal(size=(30, 8)), 4, axis=0)
    items = EmbeddingSet.from_arrays(vectors, draw.integers(0, 10, 120), [f"i{k}" for k in range(120)])
    comparison = compare_two(items, items)
    assert comparison.compatibility.compatible
    assert comparison.compatibility.recall_at_1_new_old == comparison.compatibility.recall_at_1_new_new
