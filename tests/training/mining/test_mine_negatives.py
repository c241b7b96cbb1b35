"""Mining against a loop over all pairs, its filters, and what a wrong label does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from api_schemas.config import MiningRule
from common.array_types import Int64s, UnitVectors
from training.mining import mine_negatives as module
from training.mining import neighbours
from training.mining.mine_negatives import draw_positives, mine_negatives
from training.mining.sensitivity import sample_by_sensitivity


def draw_items(
    n: int = 90, classes: int = 9, spread: float = 0.5, seed: int = 0
) -> tuple[UnitVectors, Int64s]:
    random = np.random.default_rng(seed)
    codes = np.arange(n) % classes
    codes[-1] = classes  # the only one of its class
    vectors = random.normal(size=(classes + 1, 12))[codes] + spread * random.normal(size=(n, 12))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), codes


def could_be_a_member(vectors: UnitVectors, codes: Int64s, item: int, label: int, margin: float) -> bool:
    def compare(row: int, code: int) -> float:
        others = [i for i in np.flatnonzero(codes == code) if i != row]
        if not others:
            return -1.0
        mean = vectors[others].sum(0)
        return float(vectors[row] @ mean / np.linalg.norm(mean))

    members = sorted(compare(row, label) for row in np.flatnonzero(codes == label))
    similarity = compare(item, label)
    least = members[round(0.05 * (len(members) - 1))]
    return similarity >= least - margin and similarity > compare(item, int(codes[item])) - margin


RULES: list[dict[str, Any]] = [
    {},
    {"skip": 3, "top": 7},
    {"margin": 0.1},
    {"margin": -0.2, "top": 20},
    {"percentage": 0.9},
    {"max_score": 0.5, "min_score": 0.1},
    {"class_margin": 0.1, "top": 30},
    {"class_margin": 0.0, "margin": 0.05, "skip": 1},
]


@pytest.mark.parametrize("parameters", RULES)
def test_it_finds_what_a_loop_finds(parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", 16)
    monkeypatch.setattr(module, "BLOCK", 16)
    vectors, codes = draw_items()
    rule = MiningRule(**parameters)
    mined = mine_negatives(vectors, codes, rule, seed=3)
    s = vectors @ vectors.T
    n_candidates = n_dropped = 0
    for a in range(len(codes)):
        p = int(mined.positives[a])
        if a == len(codes) - 1:
            assert p == -1
            assert (mined.negatives[a] == -1).all()
            continue
        assert p != a
        assert codes[p] == codes[a]
        ranked = sorted((int(n) for n in np.flatnonzero(codes != codes[a])), key=lambda n: -s[a, n])
        window = ranked[rule.skip : rule.top]
        passed = [
            n
            for n in window
            if (rule.margin is None or s[a, n] < s[a, p] - rule.margin)
            and (rule.percentage is None or s[a, n] < s[a, p] - (1 - rule.percentage) * abs(s[a, p]))
            and (rule.max_score is None or s[a, n] <= rule.max_score)
            and (rule.min_score is None or s[a, n] >= rule.min_score)
            and not (
                rule.class_margin is not None
                and could_be_a_member(vectors, codes, n, int(codes[a]), rule.class_margin)
            )
        ]
        n_candidates += len(window)
        n_dropped += len(window) - len(passed)
        found = mined.negatives[a][mined.negatives[a] >= 0].tolist()
        assert found == passed[: rule.negatives]
        np.testing.assert_allclose(mined.negative_scores[a, : len(found)], s[a, found], atol=1e-6)
    assert (mined.n_candidates, mined.n_dropped) == (n_candidates, n_dropped)


def test_a_percentage_keeps_its_direction_below_zero() -> None:
    angles = np.deg2rad([0.0, 101.5, 100.0, 104.0])  # the positive at cosine -0.2; negatives at -0.17, -0.24
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    mined = mine_negatives(vectors, np.array([0, 0, 1, 1]), MiningRule(percentage=0.95, top=3))
    assert mined.negatives[0].tolist() == [3, -1, -1]


@pytest.mark.parametrize("clusters", [None, 3])
def test_random_negatives_are_of_the_window_and_the_same_every_time(clusters: int | None) -> None:
    vectors, codes = draw_items()
    rule = MiningRule(sampling="random", top=12, clusters=clusters)
    mined, again = (mine_negatives(vectors, codes, rule, seed=1) for _ in range(2))
    np.testing.assert_array_equal(mined.negatives, again.negatives)
    assert (mine_negatives(vectors, codes, rule, seed=2).negatives != mined.negatives).any()
    s = vectors @ vectors.T
    assigned = neighbours.assign_clusters(vectors, 3)[0]
    for a in range(len(codes) - 1):
        found = mined.negatives[a][mined.negatives[a] >= 0]
        assert len(set(found.tolist())) == len(found)
        assert (codes[found] != codes[a]).all()
        if clusters is None:
            ranked = sorted((int(n) for n in np.flatnonzero(codes != codes[a])), key=lambda n: -s[a, n])
            assert set(found.tolist()) <= set(ranked[:12])
            assert len(found) == 3
        else:
            assert (assigned[found] == assigned[a]).all()


def test_every_other_member_is_drawn_as_a_positive() -> None:
    codes = np.array([7, 3, 7, 3, 7, 7, 9])
    drawn = np.stack([draw_positives(codes, np.random.default_rng(seed)) for seed in range(60)])
    for row in range(6):
        expected = {int(i) for i in np.flatnonzero(codes == codes[row])} - {row}
        assert set(drawn[:, row].tolist()) == expected
    assert (drawn[:, 6] == -1).all()


def test_classes_under_two_names_are_left_out_and_true_neighbours_kept() -> None:
    random = np.random.default_rng(1)
    truth = np.repeat(np.arange(60), 20)
    centres = random.normal(size=(30, 24)).repeat(2, axis=0) + 0.7 * random.normal(
        size=(60, 24)
    )  # lookalikes
    vectors = centres[truth] + 0.5 * random.normal(size=(1200, 24))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    codes = np.where((truth < 12) & (random.random(1200) < 0.5), 60 + truth, truth)
    dropped, kept = [], []
    for margin in (None, 0.07):
        rule = MiningRule(top=30, negatives=30, class_margin=margin)
        mined = mine_negatives(vectors, codes, rule)
        line, column = np.nonzero(mined.negatives >= 0)
        is_false = truth[line] == truth[mined.negatives[line, column]]
        dropped.append(int(is_false.sum()))
        kept.append(int((~is_false).sum()))
    assert dropped[1] <= 0.1 * dropped[0]
    assert kept[1] >= 0.9 * kept[0]


@pytest.mark.parametrize("with_losses", [False, True])
def test_a_weighted_sample_estimates_the_mean_over_all_items(with_losses: bool) -> None:
    vectors, codes = draw_items(600, 12)
    losses = (1 + codes + np.random.default_rng(0).random(600)).astype(np.float32)
    estimates = []
    for seed in range(200):
        sample = sample_by_sensitivity(
            vectors, 60, 12, losses if with_losses else None, distance_weight=1.0, seed=seed
        )
        assert (np.diff(sample.rows) > 0).all()
        estimates.append(float((sample.weights * losses[sample.rows]).sum()))
    error = np.std(estimates) / np.sqrt(200)
    assert abs(np.mean(estimates) - losses.mean()) < 4 * error
    plain = np.std([np.random.default_rng(seed).choice(losses, 60).mean() for seed in range(200)])
    assert not with_losses or np.std(estimates) < plain / 2, (
        "draws by loss tell the mean better than even ones"
    )
