"""What requests leave behind: counts, and the latest queries of the point that decides."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from api_schemas.operating_point import OperatingPoint, Score
from decision.decider import MatchDecision, VerifyDecision
from service.monitoring.documents import MOST_KEYS, OTHERS
from service.monitoring.recorder import MATCHED, OF_REQUEST, SECONDS, WINDOW, Recorder, compute_quantile
from service.monitoring.score_bins import BINS, get_bin_finder, list_edges
from tests.service.bundles import calibrate_points

DENSITY = Score(kind="density", form="logistic", cohort_sha256="0" * 64)


@pytest.fixture(scope="module")
def point() -> OperatingPoint:
    return calibrate_points()["match"]


def decide(score: float, label: str = "a", threshold: float = 0.7, similarity: float = 0.5) -> MatchDecision:
    decision = "match" if score >= threshold else "unknown"
    return MatchDecision(
        decision, label, "item", similarity, score, None, threshold, None, "point", score < 0
    )


def test_counts_are_taken_once(point: OperatingPoint) -> None:
    recorder = Recorder()
    decisions = [decide(0.9), decide(0.8), decide(0.1), decide(-0.1)]
    recorder.observe_match(point, decisions, None)
    pair = VerifyDecision("no_match", 0.2, 0.2, None, 0.7, "verify")
    recorder.observe_verify(point, [pair, pair._replace(decision="match")])
    taken = recorder.take()["decisions"]
    matched, verified = taken["match"][point.id], taken["verify"][point.id]
    assert (matched["n"], matched["unknown"], matched["beyond_proof"]) == (4, 2, 1)
    assert sum(matched["scores"]) == 4
    assert (verified["n"], verified["unknown"], sum(verified["scores"])) == (2, 1, 2)
    assert recorder.take() == {}


def test_a_decision_without_a_candidate_is_unknown_and_has_no_score(point: OperatingPoint) -> None:
    recorder = Recorder()
    nothing = decide(0.1)._replace(score=None, label=None, id=None, similarity=None)
    recorder.observe_match(point, [nothing], np.ones((1, 3), np.float32))
    counts = recorder.take()["decisions"]["match"][point.id]
    assert (counts["n"], counts["unknown"], sum(counts["scores"])) == (1, 1, 0)
    assert recorder.read_window(point.id) is None


def test_many_points_are_counted_as_others(point: OperatingPoint) -> None:
    recorder = Recorder()
    for number in range(3 * MOST_KEYS):
        other = point.model_copy(update={"id": f"point-{number}"})
        recorder.observe_match(other, [decide(0.9)], None)
    counts = recorder.take()["decisions"]["match"]
    assert len(counts) == MOST_KEYS + 1
    assert counts[OTHERS]["n"] == 2 * MOST_KEYS


def test_the_window_holds_the_latest_queries_and_few_of_one_request(point: OperatingPoint) -> None:
    recorder = Recorder()
    rows = np.random.default_rng(0).normal(size=(1_000, 4)).astype(np.float32)
    recorder.observe_match(point, [decide(0.9)] * 1_000, rows)
    window = recorder.read_window(point.id)
    assert window is not None
    assert len(window.scores) <= OF_REQUEST
    for number in range(2 * WINDOW):
        recorder.observe_match(point, [decide(0.75, f"label-{number}")], rows[number % 1_000][None])
        if number % 100 == 0:
            recorder.read_window(point.id)
    window = recorder.read_window(point.id)
    assert window is not None
    assert len(window.scores) == WINDOW
    assert window.vectors is not None
    assert window.vectors.shape == (MATCHED, 4)
    assert np.linalg.norm(window.vectors, axis=1) == pytest.approx(np.ones(MATCHED))
    assert window.labels[-1] == f"label-{2 * WINDOW - 1}"
    assert recorder.read_window("another point") is None


def test_copies_of_items_are_no_queries(point: OperatingPoint) -> None:
    recorder = Recorder()
    rows = np.ones((2, 4), np.float32)
    recorder.observe_match(point, [decide(1.0, similarity=1.0), decide(0.9)], rows)
    window = recorder.read_window(point.id)
    assert window is not None
    assert window.scores.tolist() == [0.9]
    assert recorder.take()["decisions"]["match"][point.id]["n"] == 2


def test_a_point_of_another_kind_begins_another_window(point: OperatingPoint) -> None:
    recorder, rows = Recorder(), np.ones((1, 4), np.float32)
    recorder.observe_match(point, [decide(0.9)], rows)
    other = point.model_copy(update={"id": "other"})
    recorder.observe_match(other, [decide(0.2), decide(0.3)], np.ones((2, 4), np.float32))
    assert recorder.read_window(point.id) is None
    assert recorder.peek_outcomes("other") == (2, 2)


def test_only_known_routes_are_counted() -> None:
    recorder = Recorder()
    for route, code, problem in (
        ("/v1/match", 200, None),
        ("/v1/match", 500, "internal"),
        ("/v1/match", 429, "overloaded"),
        ("/v1/items", 503, "write-failed"),
        ("/v1/../etc", 404, "not-found"),
        ("(none)", 404, None),
    ):
        recorder.observe_response(route, code, 0.003, problem)
    routes = recorder.take()["http"]
    assert routes.keys() == {"/v1/match", "/v1/items"}
    match = routes["/v1/match"]
    assert (match["n"], match["failed"], match["refused"]) == (3, 1, 1)
    assert routes["/v1/items"]["write_failed"] == 1


def test_nothing_is_lost_between_threads(point: OperatingPoint) -> None:
    recorder, taken = Recorder(), []

    def work() -> None:
        for _ in range(300):
            recorder.observe_match(point, [decide(0.9)] * 3, None)
            taken.append(recorder.take())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken.append(recorder.take())
    assert sum(part["decisions"]["match"][point.id]["n"] for part in taken if part) == 4 * 300 * 3


@pytest.mark.parametrize("score", [Score(), DENSITY])
def test_a_score_is_in_the_bin_between_its_edges(score: Score) -> None:
    edges, find_bin = list_edges(score), get_bin_finder(score)
    assert len(edges) == BINS + 1
    assert edges == sorted(edges)
    for value in np.random.default_rng(0).uniform(edges[0], edges[-1], 500):
        place = find_bin(float(value))
        assert edges[place] - 1e-9 <= value <= edges[place + 1] + 1e-9
    assert find_bin(edges[0] - 100) == 0
    assert find_bin(edges[-1] + 100) == BINS - 1


def test_quantiles_are_within_their_bin() -> None:
    rng = np.random.default_rng(0)
    times = rng.lognormal(-5, 1, 5_000)
    counts = np.bincount(np.searchsorted(SECONDS, times), minlength=len(SECONDS) + 1).tolist()
    for share in (0.01, 0.5, 0.95, 0.99):
        exact, found = float(np.quantile(times, share)), compute_quantile(counts, share)
        place = int(np.searchsorted(SECONDS, exact))
        assert (0.0, *SECONDS)[place] <= found <= SECONDS[place]
    assert compute_quantile([0] * len(SECONDS) + [5], 0.5) == SECONDS[-1]
