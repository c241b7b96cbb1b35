"""The debiased OPIS against loops over halvings, and its noise."""

from __future__ import annotations

import numpy as np
import pytest

from api_schemas.report import Consistency
from embeddings.embedding_set import EmbeddingSet
from evaluation.metrics import split_half_opis
from evaluation.metrics.split_half_opis import LANES, compute_debiased_opis
from evaluation.pairs.pairs import arrange
from evaluation.pairs.sweep import sweep_pairs
from evaluation.pairs.threshold_levels import sort_by_level
from tests.evaluation.samples import make_sessions, measure_opis


def test_few_items_of_a_class_make_a_noise_floor_and_debiasing_takes_it_away() -> None:
    """60 classes of one law in 16 dimensions, 2 to 20 items each."""
    plain = {2: 0.0169, 3: 0.0027, 5: 0.0009, 10: 0.00035, 20: 0.00014}
    for size, expected in plain.items():
        measured = [_measure_one_law(seed, size) for seed in range(3)]
        assert 0.5 < np.mean([consistency.opis for consistency in measured]) / expected < 2
        if size >= 10:
            assert abs(np.mean([consistency.opis_debiased for consistency in measured])) < 0.4 * expected


def _measure_one_law(seed: int, size: int) -> Consistency:
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(60, 16))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    vectors = np.repeat(centres, size, axis=0) + 0.66 * draw.normal(size=(60 * size, 16)) / 4
    items = EmbeddingSet.from_arrays(vectors, np.repeat(np.arange(60), size))
    return measure_opis(arrange(items))


@pytest.mark.parametrize(
    ("exclude", "with_gallery"),
    [(None, False), ("session", False), (None, True)],
    ids=["plain", "excluded", "gallery"],
)
def test_debiased_value_against_loops(
    exclude: str | None, with_gallery: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split_half_opis, "MOST", LANES * split_half_opis.BATCHES)
    items = make_sessions(0, 6, 7)
    gallery = make_sessions(1, 7, 5) if with_gallery else None
    pairs = arrange(items, gallery=gallery, exclude_same=exclude)
    drawn: list[np.ndarray] = []
    original = split_half_opis._draw_halves

    def remember(side: object, seed: int) -> np.ndarray:
        drawn.append(original(side, seed))  # type: ignore[arg-type]
        return drawn[-1]

    monkeypatch.setattr(split_half_opis, "_draw_halves", remember)
    monkeypatch.setattr(
        split_half_opis, "run_in_threads", lambda function, calls: [function(*call) for call in calls]
    )
    sweep = sweep_pairs(pairs)
    genuine = pairs.collect_genuine().scores
    thresholds = np.sort(np.quantile(genuine, np.linspace(0.3, 0.9, 5)).astype(np.float32))
    thresholds = np.maximum(thresholds, sweep.floor)
    result = compute_debiased_opis(
        pairs, sort_by_level(sweep, thresholds), np.array([0, 1, 0, 1, 1]), 1.0, seed=3
    )
    assert result.halvings == LANES * split_half_opis.BATCHES
    step = 1 if pairs.symmetric else 2
    expected = np.zeros((2, result.halvings))
    for number in range(result.halvings):
        batch, lane = divmod(number, LANES)
        ina, inb = drawn[batch * step][:, lane], drawn[batch * step + step - 1][:, lane]
        u = [compute_naive_utilities(pairs, ina == side, inb == side, thresholds) for side in (1, 0)]
        usable = [c for c in result.classes if all(c in half for half in u)]
        first, second = (np.array([half[c] for c in usable]) for half in u)
        product = ((first - first.mean(axis=0)) * (second - second.mean(axis=0))).mean(axis=0)
        expected[0, number] = product[[0, 2]].mean()
        expected[1, number] = product[[1, 3, 4]].mean()
    np.testing.assert_allclose(result.values, expected.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(
        result.error, expected.std(axis=1, ddof=1) / np.sqrt(result.halvings), atol=1e-12
    )


def compute_naive_utilities(pairs, in_a, in_b, thresholds):  # type: ignore[no-untyped-def]
    """class -> utility at each threshold, from the pairs whose ends are both chosen."""
    utilities = {}
    scores = pairs.score_block(slice(0, len(pairs.a)), slice(0, len(pairs.b))).scores
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
            utilities[c] = 2 * phi * psi / np.maximum(phi + psi, 1e-300)
    return utilities


def test_halvings_are_even_and_differ() -> None:
    side = arrange(make_sessions(0, 5, 7)).a
    drawn = split_half_opis._draw_halves(side, 11)
    first = drawn[:, :LANES]
    np.testing.assert_array_equal(first + drawn[:, LANES:], 1)
    sizes = np.add.reduceat(first.astype(int), side.starts[:-1])
    assert set(sizes.ravel()) == {3, 4}
    assert len(np.unique(first, axis=1).T) == LANES
    np.testing.assert_array_equal(drawn, split_half_opis._draw_halves(side, 11))


def test_monte_carlo_error_is_below_two_percent_or_a_hundred_thousandth() -> None:
    sweep = sweep_pairs(arrange(make_sessions(3, 20, 8)))
    thresholds = np.sort(sweep.find_impostor_scores(np.linspace(50, 900, 20).astype(np.int64)))
    result = compute_debiased_opis(
        sweep.pairs, sort_by_level(sweep, thresholds), np.zeros(20, dtype=np.int64), 1.0, seed=0
    )
    assert np.all(result.error <= np.maximum(0.02 * np.abs(result.values), 1e-5))
