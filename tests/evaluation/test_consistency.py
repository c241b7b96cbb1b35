"""OPIS in its forms: worked numbers, the debiased value against loops, and what it is there to do."""

from __future__ import annotations

import numpy as np
import pytest

from api_schemas.report import Consistency
from decision.scorers import CosineScorer
from embeddings.embedding_set import EmbeddingSet
from evaluation.evaluate import evaluate
from evaluation.metrics import split_half_opis
from evaluation.metrics.opis import Settings, consistency, epsilon_opis, opis, utilities
from evaluation.metrics.opis_intervals import interval
from evaluation.metrics.split_half_opis import LANES, debiased
from evaluation.metrics.threshold_grid import distance_of, similarity_within
from evaluation.pairs.pairs import arrange
from evaluation.pairs.sweep import sweep
from evaluation.pairs.threshold_levels import levels_of

TPR = np.array([[2 / 3, 1, 1], [0, 0, 2 / 3], [1 / 3, 1 / 3, 1 / 3]])
TNR = np.array([[1, 1, 8 / 9], [1, 8 / 9, 7 / 9], [1, 8 / 9, 8 / 9]])


def clustered(seed: int, classes: int, size: int, spread: float | None = None) -> EmbeddingSet:
    """Classes around random centres; unequal spreads unless one is given."""
    draw = np.random.default_rng(seed)
    centres = np.repeat(draw.normal(size=(classes, 8)), size, axis=0)
    widths = draw.uniform(0.2, 1.2, classes) if spread is None else np.full(classes, spread)
    vectors = centres + np.repeat(widths, size)[:, None] * draw.normal(size=centres.shape)
    sessions = draw.integers(0, 4, classes * size)
    return EmbeddingSet.from_arrays(vectors, np.repeat(np.arange(classes), size), metadata={"s": sessions})


def test_worked_example() -> None:
    u = utilities(TPR, TNR)
    np.testing.assert_allclose(u[0], [0.8, 1, 0.941176], atol=1e-6)
    np.testing.assert_allclose(u[1], [0, 0, 0.717949], atol=1e-6)
    np.testing.assert_allclose(u[2], [0.5, 0.484848, 0.484848], atol=1e-6)
    assert opis(u) == pytest.approx(0.103439, abs=1e-6)
    assert epsilon_opis(u, 1 / 3) == pytest.approx(0.616078, abs=1e-6)
    assert epsilon_opis(u, 1 / 3, "worst-mean") == pytest.approx(0.161855, abs=1e-6)


def test_nine_points_with_another_weight_of_specificity() -> None:
    angles = np.deg2rad([0, 10, 20, 50, 80, 110, 130, 135, 190])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    items = EmbeddingSet.from_arrays(points, np.repeat([0, 1, 2], 3))
    found = evaluate(items, model_hash="m", split="all", settings=Settings(c=2.0)).consistency
    assert found.opis == pytest.approx(0.125826, abs=1e-6)
    assert found.c == 2.0


def test_nine_points_with_a_grid_of_cosines() -> None:
    """A grid that is uniform in score instead of in distance, as for every kind but cosine."""

    class Doubled:
        score = CosineScorer().score

        def densities(self, vectors: np.ndarray) -> np.ndarray:
            return np.zeros(len(vectors), dtype=np.float32)

        def __call__(self, similarities, densities_a=None, densities_b=None):  # type: ignore[no-untyped-def]
            return np.asarray(2 * np.asarray(similarities), dtype=np.float32)

    angles = np.deg2rad([0, 10, 20, 50, 80, 110, 130, 135, 190])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    pairs = arrange(EmbeddingSet.from_arrays(points, np.repeat([0, 1, 2], 3)), scorer=Doubled())
    found, _ = consistency(sweep(pairs, deepest_far=0.1, per_query=False), Settings(), 0)
    assert found.opis == pytest.approx(0.104988, abs=1e-6)


def test_few_items_of_a_class_make_a_noise_floor_and_debiasing_takes_it_away() -> None:
    """The simulation of methods 1.7: 60 classes of one law in 16 dimensions, 2 to 20 items each."""
    plain = {2: 0.0169, 3: 0.0027, 5: 0.0009, 10: 0.00035, 20: 0.00014}
    for size, expected in plain.items():
        measured = [_one_law(seed, size) for seed in range(3)]
        assert 0.5 < np.mean([found.opis for found in measured]) / expected < 2
        if size >= 10:
            assert abs(np.mean([found.opis_debiased for found in measured])) < 0.4 * expected


def _one_law(seed: int, size: int) -> Consistency:
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(60, 16))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    vectors = np.repeat(centres, size, axis=0) + 0.66 * draw.normal(size=(60 * size, 16)) / 4
    items = EmbeddingSet.from_arrays(vectors, np.repeat(np.arange(60), size))
    return consistency(sweep(arrange(items), deepest_far=0.1, per_query=False), Settings(), 0)[0]


def test_thresholds_accept_exactly_the_distances_within() -> None:
    draw = np.random.default_rng(0)
    similarities = np.sort(np.concatenate([draw.uniform(-1, 1, 500), [1, 1, 0, -1]]).astype(np.float32))
    distances = np.concatenate([distance_of(similarities[::7]), draw.uniform(0, 2, 50)])
    thresholds = similarity_within(distances)
    for threshold, distance in zip(thresholds, distances, strict=True):
        np.testing.assert_array_equal(similarities >= threshold, distance_of(similarities) <= distance)


@pytest.mark.parametrize(
    ("exclude", "with_gallery"),
    [(None, False), ("s", False), (None, True)],
    ids=["plain", "excluded", "gallery"],
)
def test_debiased_value_against_loops(
    exclude: str | None, with_gallery: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split_half_opis, "MOST", LANES * split_half_opis.BATCHES)
    items = clustered(0, 6, 7)
    gallery = clustered(1, 7, 5) if with_gallery else None
    pairs = arrange(items, gallery=gallery, exclude_same=exclude)
    drawn: list[np.ndarray] = []
    original = split_half_opis._halves

    def remember(side: object, seed: int) -> np.ndarray:
        drawn.append(original(side, seed))  # type: ignore[arg-type]
        return drawn[-1]

    monkeypatch.setattr(split_half_opis, "_halves", remember)
    monkeypatch.setattr(
        split_half_opis, "in_threads", lambda function, calls: [function(*call) for call in calls]
    )
    found = sweep(pairs, deepest_far=0.1, per_query=False)
    genuine = found.pairs.genuine().scores
    thresholds = np.sort(np.quantile(genuine, np.linspace(0.3, 0.9, 5)).astype(np.float32))
    thresholds = np.maximum(thresholds, found.bar)
    result = debiased(pairs, levels_of(found, thresholds), np.array([0, 1, 0, 1, 1]), 1.0, seed=3)
    assert result is not None
    assert result.halvings == LANES * split_half_opis.BATCHES
    step = 1 if pairs.symmetric else 2
    expected = np.zeros((2, result.halvings))
    for number in range(result.halvings):
        batch, lane = divmod(number, LANES)
        ina, inb = drawn[batch * step][:, lane], drawn[batch * step + step - 1][:, lane]
        u = [naive_utilities(pairs, ina == side, inb == side, thresholds) for side in (1, 0)]
        usable = [c for c in result.classes if all(c in half for half in u)]
        first, second = (np.array([half[c] for c in usable]) for half in u)
        product = ((first - first.mean(axis=0)) * (second - second.mean(axis=0))).mean(axis=0)
        expected[0, number] = product[[0, 2]].mean()
        expected[1, number] = product[[1, 3, 4]].mean()
    np.testing.assert_allclose(result.values, expected.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(
        result.error, expected.std(axis=1, ddof=1) / np.sqrt(result.halvings), atol=1e-12
    )


def naive_utilities(pairs, in_a, in_b, thresholds):  # type: ignore[no-untyped-def]
    """class -> utility at each threshold, from the pairs whose ends are both chosen."""
    found = {}
    scores = pairs.block(slice(0, len(pairs.a)), slice(0, len(pairs.b))).scores
    for c in range(len(pairs.classes)):
        genuine, impostor = [], []
        for i in np.flatnonzero(in_a):
            for j in np.flatnonzero(in_b):
                if pairs.symmetric and j <= i:
                    continue
                if pairs.a.groups is not None and pairs.a.groups[i] == pairs.b.groups[j]:
                    continue
                ends = int(pairs.a.codes[i] == c) + int(pairs.b.codes[j] == c)
                if ends:
                    (genuine if ends == 2 else impostor).append(scores[i, j])
        if genuine and impostor:
            psi = np.array([np.mean(np.array(genuine) >= t) for t in thresholds])
            phi = np.array([np.mean(np.array(impostor) < t) for t in thresholds])
            found[c] = utilities(psi, phi)
    return found


def test_halvings_are_even_and_differ() -> None:
    side = arrange(clustered(0, 5, 7)).a
    drawn = split_half_opis._halves(side, 11)
    first = drawn[:, :LANES]
    np.testing.assert_array_equal(first + drawn[:, LANES:], 1)
    sizes = np.add.reduceat(first.astype(int), side.starts[:-1])
    assert set(sizes.ravel()) == {3, 4}
    assert len(np.unique(first, axis=1).T) == LANES
    np.testing.assert_array_equal(drawn, split_half_opis._halves(side, 11))


def test_monte_carlo_error_is_below_two_percent_or_a_hundred_thousandth() -> None:
    found = sweep(arrange(clustered(3, 20, 8)), deepest_far=0.1, per_query=False)
    thresholds = np.sort(found.impostors_ranked(np.linspace(50, 900, 20).astype(np.int64)))
    result = debiased(found.pairs, levels_of(found, thresholds), np.zeros(20, dtype=np.int64), 1.0, seed=0)
    assert result is not None
    assert np.all(result.error <= np.maximum(0.02 * np.abs(result.values), 1e-5))


def test_log_far_form_does_not_change_under_a_monotone_transform() -> None:
    class Cubed:
        """Similarity cubed: another score with the same order."""

        score = arrange(clustered(0, 2, 2)).scorer.score

        def densities(self, vectors):  # type: ignore[no-untyped-def]
            return np.zeros(len(vectors), dtype=np.float32)

        def __call__(self, similarities, densities_a=None, densities_b=None):  # type: ignore[no-untyped-def]
            return (np.asarray(similarities, dtype=np.float64) ** 3 * 7 - 2).astype(np.float32)

    items = clustered(5, 15, 6)
    plain, _ = consistency(sweep(arrange(items), deepest_far=0.1, per_query=False), Settings(), 0)
    other, _ = consistency(
        sweep(arrange(items, scorer=Cubed()), deepest_far=0.1, per_query=False), Settings(), 0
    )
    assert other.opis_logfar == pytest.approx(plain.opis_logfar, abs=1e-12)
    assert other.opis_logfar_debiased == pytest.approx(plain.opis_logfar_debiased, abs=1e-12)
    assert other.opis_logfar_ci == pytest.approx(plain.opis_logfar_ci, abs=1e-12)
    assert other.opis != pytest.approx(plain.opis, abs=1e-4)
    assert other.calibration_range is not None
    assert other.calibration_range.distance is None


def test_unequal_spreads_are_seen_and_equal_ones_are_not() -> None:
    draw = np.random.default_rng(1)
    classes, size = 40, 8
    centres = np.repeat(np.linalg.qr(draw.normal(size=(64, classes)))[0].T, size, axis=0)
    labels = np.repeat(np.arange(classes), size)
    equal = centres + 0.12 * draw.normal(size=centres.shape)
    unequal = centres + np.repeat(draw.uniform(0.05, 0.25, classes), size)[:, None] * draw.normal(
        size=centres.shape
    )
    same, different = (
        evaluate(EmbeddingSet.from_arrays(vectors, labels), model_hash="m", split="all").consistency
        for vectors in (equal, unequal)
    )
    assert same.opis_ci is not None
    assert different.opis_ci is not None
    assert same.opis_ci[0] < 0.002
    assert different.opis_ci[0] > 10 * abs(same.opis_debiased or 0.0)
    assert same.noise_floor == pytest.approx((same.opis or 0) - (same.opis_debiased or 0))


def test_an_interval_needs_five_classes() -> None:
    u = np.random.default_rng(0).random((4, 9))
    assert interval(np.ones(4), u, 0) is None
    low, high = interval(np.arange(30) / 30, np.zeros((30, 9)), 0) or (0.0, 0.0)
    assert low < np.arange(30).mean() / 30 < high


def test_small_classes_are_named_in_the_reasons() -> None:
    items = clustered(0, 12, 5)
    report = evaluate(items, model_hash="m", split="all")
    assert any("fewer than 8 items" in reason for reason in report.reasons)
    report = evaluate(items.subset(np.arange(len(items)) % 5 < 3), model_hash="m", split="all")
    assert report.consistency.opis_debiased is None
    assert any("at least 4 items" in reason for reason in report.reasons)
