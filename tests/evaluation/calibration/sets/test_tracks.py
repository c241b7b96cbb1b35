"""Queries of several vectors: their trials against loops over tracks and classes, and points made of them."""

from __future__ import annotations

import numpy as np
import pytest

from api_schemas.operating_point import Aggregate, OperatingPoint, Target
from common.errors import CalibrationRefused, InputError
from common.progress import silent
from decision.class_evidence import ClassModels, EvidenceScorer
from decision.scorers import CosineScorer, Scorer
from embeddings.embedding_set import EmbeddingSet
from embeddings.similarity import compute_pair_similarities
from evaluation.calibration.class_evidence.choose_evidence import choose_evidence
from evaluation.calibration.fpir_thresholds import get_search_rule
from evaluation.calibration.ladder import calibrate_ladder
from evaluation.calibration.sets.sources import CalibrationSources
from evaluation.calibration.sets.tracks import TRACK, add_tracks, arrange_queries, select_tracks
from evaluation.calibration.trials import UNKNOWN, Trials
from tests.evaluation.samples import calibrate, make_clusters, make_sessions

ITEMS = make_clusters(3, classes=12, each=7)
SESSIONS = make_sessions(5, 12, 11)


def score_slowly(
    aggregate: Aggregate, scorer: Scorer, query: EmbeddingSet, gallery: EmbeddingSet, label: str
) -> float:
    """The score of the rows of one query together with one class of a gallery; -inf without an item."""
    own = gallery.vectors[gallery.labels == label]
    if not len(own):
        return -np.inf
    n = len(query)
    near = np.array(
        [compute_pair_similarities(np.repeat(row[None], len(own), 0), own) for row in query.vectors]
    )
    if aggregate == "mean_of_class":
        return float(near.mean())
    if aggregate == "nearest":
        return float(near.max(axis=1).mean())
    assert isinstance(scorer, EvidenceScorer)
    models = ClassModels(own.sum(axis=0, dtype=np.float64)[None], np.array([len(own)]))
    none = np.zeros(1, dtype=np.int64)
    mean = query.vectors.mean(axis=0, dtype=np.float64)[None]
    best = near.max(axis=1).mean(keepdims=True)
    return float(scorer.score_trials(mean, none, best, scorer.prepare(models), none, vectors=n)[0])


def score_tracks(
    aggregate: Aggregate, scorer: Scorer, items: EmbeddingSet, n: int, exclude_same: str | None = None
) -> tuple[Trials, EmbeddingSet, list[np.ndarray]]:
    """The trials, the set with its tracks, and the rows of each track in the order of the trials."""
    pairs = arrange_queries(items, None, n, exclude_same, scorer)
    trials = get_search_rule(Target(kind="fpir", value=0.1, aggregate=aggregate, vectors=n)).score_trials(
        pairs, silent
    )
    rows = select_tracks(pairs, n).a.rows.reshape(-1, n)
    return trials, add_tracks(items, n, exclude_same), list(rows)


@pytest.mark.parametrize("aggregate", ["nearest", "mean_of_class", "evidence"])
@pytest.mark.parametrize("exclude_same", [None, "session"])
def test_scores_of_tracks_are_those_of_a_loop(aggregate: Aggregate, exclude_same: str | None) -> None:
    items = SESSIONS if exclude_same else ITEMS
    scorer: Scorer = CosineScorer()
    if aggregate == "evidence":
        chosen = choose_evidence(make_clusters(9, dim=items.dimension, prefix="f"), required=True).scorer
        assert chosen is not None
        scorer = chosen
    trials, tracked, tracks = score_tracks(aggregate, scorer, items, 3, exclude_same)
    assert len(trials) == len(tracks) > 10
    finite = 0
    for row, track in enumerate(tracks):
        assert len(set(items.labels[track])) == 1
        names = tracked.metadata[TRACK]
        assert len({names[at] for at in track}) == 1
        left_out = np.zeros(len(items), dtype=bool)
        left_out[track] = True
        if exclude_same:
            sessions = np.asarray(items.metadata["session"])
            assert len(set(sessions[track])) == 1
            left_out |= sessions == sessions[track[0]]
        gallery = items.subset(np.flatnonzero(~left_out))
        for column, label in enumerate(items.classes):
            expected = score_slowly(aggregate, scorer, items.subset(track), gallery, label)
            is_own = trials.codes[row] == column
            assert is_own == (label == items.labels[track[0]])
            found = trials.own[row] if is_own else trials.other[row, column]
            assert found == pytest.approx(expected, abs=2e-5)
            finite += np.isfinite(expected)
            if is_own:
                assert trials.other[row, column] == -np.inf
    assert finite > 100


def test_tracks_do_not_depend_on_the_order_of_rows() -> None:
    order = np.random.default_rng(0).permutation(len(ITEMS))
    tracked, shuffled = add_tracks(ITEMS, 3), add_tracks(ITEMS.subset(order), 3)
    assert shuffled.metadata[TRACK].tolist() == tracked.metadata[TRACK][order].tolist()
    names = [name for name in tracked.metadata[TRACK].tolist() if name]
    assert len(names) == 12 * 6
    assert set(np.unique(names, return_counts=True)[1]) == {3}


def test_a_point_for_several_vectors_misses_fewer_at_the_same_target() -> None:
    items = make_clusters(1, classes=60, each=12)
    points: list[OperatingPoint] = [
        calibrate(items, Target(kind="fpir", value=0.05, vectors=n), status="estimated").point for n in (1, 3)
    ]
    one, three = (point.proof for point in points)
    assert one is not None
    assert three is not None
    assert [point.target.vectors for point in points] == [1, 3]
    assert three.fnir is not None
    assert one.fnir is not None
    assert three.fnir < 0.9 * one.fnir
    assert three.fpir_ci is not None
    assert three.fpir_ci[0] < 0.05 < three.fpir_ci[1]
    assert points[1].answer is not None


def test_the_ladder_leaves_pairs_alone() -> None:
    ladder = calibrate_ladder(
        CalibrationSources(make_clusters(1, each=9), vectors=3), aggregate="nearest", model_hash="m"
    )
    vectors = {point.point.target.kind: point.point.target.vectors for point in ladder.points}
    assert vectors == {"far": 1, "fpir": 3}
    assert all("3-vectors" in one.point.name for one in ladder.points if one.point.target.kind == "fpir")


def test_what_cannot_be_taken_together_is_said() -> None:
    target = Target(kind="fpir", value=0.1, vectors=9)
    with pytest.raises(CalibrationRefused, match="No class has 9 items"):
        calibrate(make_clusters(1), target)
    strangers = EmbeddingSet.from_arrays(make_clusters(8).vectors, ["oos"] * 240)
    target = Target(kind="fpir", value=0.1, vectors=2)
    with pytest.raises(InputError, match="does not say which of them are of one object"):
        calibrate(make_clusters(1), target, unknown=strangers)


def test_real_unknown_tracks_are_of_one_person_each() -> None:
    target = Target(kind="fpir", value=0.1, vectors=2, gallery=None)
    made = calibrate(
        make_clusters(1), target, unknown=make_clusters(8, prefix="u", classes=60), status="estimated"
    ).point
    assert made.proof is not None
    assert made.proof.unknown is not None
    assert made.proof.unknown.n_queries == 30 * 3


@pytest.mark.parametrize("aggregate", ["nearest", "mean_of_class", "evidence"])
def test_what_shares_a_session_is_no_reference(aggregate: Aggregate) -> None:
    """Bursts: two near copies in each of four sessions; without the exclusion nobody is missed."""
    draw = np.random.default_rng(0)
    centres = draw.standard_normal((40, 1, 1, 10))
    days = centres + 0.9 * draw.standard_normal((40, 4, 1, 10))
    vectors = (days + 0.05 * draw.standard_normal((40, 4, 2, 10))).reshape(-1, 10)
    items = EmbeddingSet.from_arrays(
        vectors,
        np.repeat(np.arange(40), 8),
        metadata={"session": np.repeat(np.arange(160), 2)},
    )
    target = Target(kind="fpir", value=0.1, aggregate=aggregate)
    plain = calibrate(items, target, status="estimated").point.proof
    other_days = calibrate(items, target, status="estimated", exclude_same="session").point.proof
    assert plain is not None
    assert other_days is not None
    assert plain.fnir is not None
    assert other_days.fnir is not None
    assert other_days.fnir > plain.fnir + 0.1
    assert "one 'session'" in other_days.method


def test_unknown_is_no_class() -> None:
    pairs = arrange_queries(make_clusters(8, prefix="u"), ITEMS, 2, None, CosineScorer())
    rule = get_search_rule(Target(kind="fpir", value=0.1, vectors=2))
    trials = rule.score_trials(pairs, silent)
    assert len(trials) == 40 * 3
    assert (trials.codes == UNKNOWN).all()
    assert trials.gallery_items == len(ITEMS)
