"""The population stability index against its definition, its noise, and the share of unknown queries."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.drift.stability_index import MixtureReference, count_bins, measure_stability

ALPHA = 0.001


def draw_scores(seed: int, n: int, unknown_share: float = 0.0, shift: float = 0.0) -> np.ndarray:
    """Scores of known queries around 0.8 and of unknown ones around 0.4."""
    rng = np.random.default_rng(seed)
    is_unknown = rng.random(n) < unknown_share
    return np.where(is_unknown, rng.normal(0.4, 0.1, n), rng.normal(0.8 + shift, 0.08, n))


def make_reference(bins: int = 10, lowest: float = -np.inf) -> MixtureReference:
    found = MixtureReference.from_scores(draw_scores(0, 1_500), draw_scores(1, 1_500, 1.0), bins, lowest)
    assert found is not None
    return found


def test_the_index_is_its_definition() -> None:
    reference, scores = make_reference(), draw_scores(2, 400, shift=0.03)
    found = measure_stability(reference, scores, ALPHA, unknown_share=0.0)
    assert found is not None
    psi = 0.0
    edges = [-np.inf, *reference.edges, np.inf]
    for place, expected in enumerate(reference.known):
        n = sum(edges[place] <= score < edges[place + 1] for score in scores)
        observed = (n + 0.5) / (400 + 0.5 * len(reference.known))
        psi += (observed - expected) * np.log(observed / expected)
    assert found.psi == pytest.approx(psi, abs=1e-12)


def test_the_share_of_unknown_queries_is_found_and_is_no_shift() -> None:
    reference = make_reference()
    for share in (0.0, 0.2, 0.7, 1.0):
        found = measure_stability(reference, draw_scores(3, 1_000, share), ALPHA)
        assert found is not None
        assert abs(found.unknown_share - share) < 0.05
        assert found.psi < found.noise
        assert found.unknown_share_error < 0.03


def test_a_shift_of_the_known_queries_is_seen_where_unknown_ones_are_rare() -> None:
    reference = make_reference(5, lowest=0.6)
    for share in (0.0, 0.3, 0.6):
        calm = measure_stability(reference, draw_scores(4, 600, share), ALPHA, unknown_share=share)
        shifted = measure_stability(reference, draw_scores(5, 600, share, -0.08), ALPHA, unknown_share=share)
        assert calm is not None
        assert shifted is not None
        assert calm.psi < calm.noise
        assert shifted.psi - shifted.noise > 0.1


def test_noise_is_exceeded_as_rarely_as_said() -> None:
    exceeded = 0
    for seed in range(200):
        reference = MixtureReference.from_scores(
            draw_scores(3 * seed, 500), draw_scores(3 * seed + 1, 500, 1.0)
        )
        assert reference is not None
        found = measure_stability(reference, draw_scores(3 * seed + 2, 300), 0.05, unknown_share=0.0)
        assert found is not None
        exceeded += found.psi > found.noise
    assert exceeded <= 20, "10 are expected"


def test_scores_that_are_all_alike_or_few_give_no_reference() -> None:
    unknown = draw_scores(1, 200, 1.0)
    assert MixtureReference.from_scores(np.ones(500), unknown) is None
    assert MixtureReference.from_scores(draw_scores(0, 10), unknown) is None
    assert measure_stability(make_reference(), draw_scores(0, 10), ALPHA) is None


def test_without_unknown_scores_the_known_ones_are_the_reference() -> None:
    found = MixtureReference.from_scores(draw_scores(0, 500), np.empty(0))
    assert found is not None
    assert found.unknown is None
    measured = measure_stability(found, draw_scores(1, 500), ALPHA)
    assert measured is not None
    assert measured.unknown_share == 0
    assert measured.psi < measured.noise


def test_every_score_is_in_one_bin() -> None:
    scores = np.array([-5.0, 0.0, 0.1, 0.1, 3.0])
    assert count_bins(scores, np.array([0.0, 0.1])).tolist() == [1, 1, 3]
