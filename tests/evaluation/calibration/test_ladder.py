"""The ladder: rungs estimated and proven, the one that decides, small galleries with a cohort, unknowns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from api_schemas.operating_point import OperatingPoint, Target
from common.errors import CalibrationRefused, InputError
from decision.describe_point import describe_other_classes, describe_point, get_shown_rates
from decision.scorers import accepts
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration import calibrate as calibrate_module
from evaluation.calibration.calibrate import Calibrator
from evaluation.calibration.estimates.fpir_estimate import measure_log_variance
from evaluation.calibration.ladder import (
    FAR_RUNGS,
    FPIR_RUNGS,
    ExpectedCosts,
    Ladder,
    calibrate_ladder,
    choose_point,
    find_usable,
    keep_order,
    list_unusable,
)
from evaluation.calibration.select_threshold import select_threshold
from evaluation.calibration.sets.cross_fit import FOLDS
from evaluation.calibration.sets.sources import CalibrationSources
from tests.evaluation.samples import list_all_pairs, make_clusters, split_options

FPIR = Target(kind="fpir", value=0.1)


def make_ladder(fit: EmbeddingSet, **options: object) -> Ladder:
    sources, others = split_options(fit, options)
    return calibrate_ladder(sources, aggregate="nearest", score="cosine", model_hash="m", **others)


def get_points(ladder: Ladder) -> list[OperatingPoint]:
    return [calibration.point for calibration in ladder.points]


@pytest.fixture(scope="module")
def ladder() -> Ladder:
    return make_ladder(make_clusters(0, 50, 6))


def test_every_rung_is_estimated_and_proven_where_the_classes_carry_it(ladder: Ladder) -> None:
    points = get_points(ladder)
    estimated = [(point.target.kind, point.target.value) for point in points if point.status == "estimated"]
    assert estimated == [("far", far) for far in FAR_RUNGS] + [("fpir", fpir) for fpir in FPIR_RUNGS]
    proven = [point for point in points if point.status == "proven"]
    assert {point.target.kind for point in proven} == {"far", "fpir"}
    for point in proven:
        assert getattr(point.fit, f"{point.target.kind}_upper") <= point.target.value
    assert len({point.id for point in points}) == len({point.name for point in points}) == len(points)
    assert any("far 0.01 %, proven: " in reason for reason in ladder.reasons)


def test_estimated_rungs_lie_below_their_proven_ones_and_in_order(ladder: Ladder) -> None:
    for kind in ("far", "fpir"):
        of_kind = [point for point in get_points(ladder) if point.target.kind == kind]
        estimated = [point.threshold for point in of_kind if point.status == "estimated"]
        assert estimated == sorted(estimated, reverse=True)
        by_value = {point.target.value: point.threshold for point in of_kind if point.status == "estimated"}
        for point in of_kind:
            if point.status == "proven":
                assert point.threshold >= by_value[point.target.value]


def test_no_bound_and_no_interval_contradicts_its_estimate(ladder: Ladder) -> None:
    for confidence in (0.5, 0.95):
        points = (
            get_points(ladder)
            if confidence == 0.95
            else get_points(
                make_ladder(
                    make_clusters(0, 50, 6),
                    confidence=0.5,
                    targets=[FPIR.model_copy(update={"confidence": 0.5})],
                )
            )
        )
        for point in points:
            for evidence in (point.fit, point.proof):
                for rate in ("far", "frr", "fpir", "fnir"):
                    value = getattr(evidence, rate)
                    upper = getattr(evidence, f"{rate}_upper", None)
                    ends = getattr(evidence, f"{rate}_ci")
                    assert value is None or upper is None or upper >= value
                    assert ends is None or ends[0] <= value <= ends[1]


def test_the_point_that_decides_costs_least(ladder: Ladder) -> None:
    points = {point.id: point for point in get_points(ladder)}
    for endpoint, kind in (("match", "fpir"), ("verify", "far")):
        costs = {}
        for point in points.values():
            if point.target.kind == kind:
                rates = get_shown_rates(point)
                costs[point.id] = 0.5 * 5 * rates.false + 0.5 * rates.missed
        assert costs[ladder.active[endpoint]] == min(costs.values())
    assert "50% of the queries unknown and one false match costing 5 misses" in ladder.choice


def test_what_is_shown_is_of_the_point_s_own_threshold(ladder: Ladder) -> None:
    """Thresholds of the folds are others: chosen on fewer classes, they keep more or fewer known queries."""
    items = make_clusters(0, 50, 6)
    near = items.vectors @ items.vectors.T
    np.fill_diagonal(near, -np.inf)
    is_own = items.codes[:, None] == items.codes[None, :]
    own, other = (np.where(side, near, -np.inf).max(axis=1) for side in (is_own, ~is_own))
    for point in get_points(ladder):
        if point.target.kind == "fpir":
            missed = ~(accepts(own, point.threshold) & (own > other))
            assert get_shown_rates(point).missed == pytest.approx(missed.mean(), abs=0.005)
            assert "folds" in point.proof.method


def test_what_refuses_many_rungs_is_said_once() -> None:
    ladder = make_ladder(make_clusters(0, 8, 6))
    said = [reason for reason in ladder.reasons if "too few to prove" in reason]
    assert len(said) == 1
    assert said[0].startswith("far 0.01 %, far 0.1 %, far 1 %, fpir 0.1 %, ")
    assert "fpir 10 %, proven: 8 classes are too few to prove a threshold on" in said[0]


@pytest.mark.parametrize("n_classes", [5, 6])
def test_classes_are_resampled_however_few_they_are(n_classes: int) -> None:
    """Five classes of sixty items tell less of others than their three hundred queries would."""
    items = make_clusters(3, n_classes, 60)
    calibrator = Calibrator.prepare_pairs(CalibrationSources(items), "cosine", "m")
    pool = calibrator.search.pool
    level = float(np.sort(pool.best_other)[-30])
    of_classes = measure_log_variance(pool, level, leaves_classes=True)
    of_queries = measure_log_variance(
        replace(pool, of_unknown=np.arange(len(items))), level, leaves_classes=False
    )
    assert of_classes > 2 * of_queries


def test_where_no_class_has_two_items_the_usual_target_decides() -> None:
    """Nothing tells what is missed, so that no cost can be least."""
    ladder = make_ladder(make_clusters(0, 60, 1))
    points = {point.id: point for point in get_points(ladder)}
    for endpoint, name in (("match", "fpir-1%-estimated"), ("verify", "far-1%-estimated")):
        assert points[ladder.active[endpoint]].name == name
    assert "no class has two items" in ladder.choice


def test_a_looser_rung_is_never_stricter_than_the_one_before() -> None:
    ladder = make_ladder(make_clusters(0, 50, 6), targets=[FPIR.model_copy(update={"value": 0.03}), FPIR])
    strict, loose = (c for c in ladder.points if c.point.status == "proven")
    assert keep_order(loose, strict) is loose
    assert keep_order(loose, None) is loose
    higher = replace(loose, point=loose.point.with_changes(threshold=strict.point.threshold + 0.01))
    kept = keep_order(higher, strict).point
    assert (kept.threshold, kept.name) == (strict.point.threshold, loose.point.name)
    assert kept.target == loose.point.target
    assert kept.fit.fpir_upper == strict.point.fit.fpir_upper <= 0.03
    assert kept.id == kept.compute_id() != strict.point.id
    assert keep_order(strict, loose) is strict, "the looser one says nothing of a stricter target"


def test_costs_move_the_choice(ladder: Ladder) -> None:
    points = get_points(ladder)
    by_id = {point.id: point for point in points}
    chosen = [
        by_id[choose_point(points, "match", ExpectedCosts(false_match=cost))].threshold
        for cost in (0.2, 5.0, 1000.0)
    ]
    assert chosen == sorted(chosen)
    assert chosen[0] < chosen[2]
    proven = choose_point(points, "match", ExpectedCosts(proven_only=True))
    assert by_id[proven].status == "proven"
    assert choose_point([], "match", ExpectedCosts()) is None
    for share in (0.0, 1.0):
        with pytest.raises(InputError, match="above 0 and below 1"):
            ExpectedCosts(unknown_share=share)


def test_a_rung_that_turns_most_away_names_the_one_that_keeps_half(ladder: Ladder) -> None:
    points = {point.name: point for point in get_points(ladder)}
    strict, usual = points["fpir-0.1%-estimated"], points["fpir-10%-estimated"]
    useless = strict.with_changes(fit=strict.fit.model_copy(update={"fnir": 0.9}))
    usable = usual.with_changes(fit=usual.fit.model_copy(update={"fnir": 0.2}))
    assert find_usable([useless, usable], "match") == usable
    assert list_unusable([useless, usable]) == [
        "fpir-0.1%-estimated turns away 90 % of known queries or more; fpir-10%-estimated is the strictest "
        "point that keeps half of them."
    ]
    assert list_unusable([useless]) == ["fpir-0.1%-estimated turns away 90 % of known queries or more."]


def test_a_point_is_said_in_one_sentence(ladder: Ladder) -> None:
    point = next(point for point in get_points(ladder) if point.name == "fpir-3%-estimated")
    sentence = describe_point(point)
    about = f"about {1000 * point.fit.fpir:.0f} (at most {1000 * point.fit.fpir_upper:.0f})"
    assert f"of 1,000 queries that are not in the gallery {about} are matched to someone" in sentence
    assert 25 < 1000 * point.fit.fpir <= 30
    assert f"; of 1,000 that are, {1000 * point.fit.fnir:.0f} are missed" in sentence


def test_test_classes_that_are_easier_or_harder_are_said_to_be() -> None:
    aimed = FPIR.model_copy(update={"value": 0.03})
    ladder = make_ladder(make_clusters(0, 50, 6), proof=make_clusters(1, 50, 6, prefix="x"), targets=[aimed])
    for point in get_points(ladder):
        for rates, kind in (
            ((0.01, 0.005, 0.02), "easier"),
            ((0.08, 0.05, 0.1), "harder"),
            ((0.04, 0.02, 0.06), ""),
        ):
            fpir, *ends = rates
            proof = point.proof.model_copy(update={"fpir": fpir, "fpir_ci": (*ends,), "fpir_upper": ends[1]})
            said = describe_other_classes(point.with_changes(proof=proof))
            if not kind or (kind == "easier" and point.status == "proven"):
                assert said is None
            else:
                assert f"Chosen for 30 of 1,000; on the classes of the test it is {1000 * fpir:.0f} (" in said
                assert f"as they are {kind} to tell apart" in said
    (folds,) = make_ladder(make_clusters(0, 10, 6), targets=[aimed]).points
    assert describe_other_classes(folds.point) is None


def test_trials_and_pairs_are_scored_once_for_all_rungs(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = calibrate_module.SEARCH_RULES["nearest"]
    calls = []
    counted = type(rule)(
        **{
            **vars(rule),
            "score_trials": lambda pairs, track: calls.append(1) or rule.score_trials(pairs, track),
        }
    )
    monkeypatch.setitem(calibrate_module.SEARCH_RULES, "nearest", counted)
    make_ladder(make_clusters(2, 25, 4))
    assert len(calls) == 1


# -- folds -----------------------------------------------------------------------------------------------
def test_folds_are_measured_at_thresholds_chosen_without_them() -> None:
    items = make_clusters(3, 30, 5)
    calibrator = Calibrator.prepare(CalibrationSources(items), "cosine", "nearest", "m")
    point = calibrator.calibrate(FPIR, "estimated").point
    of_class = calibrator.folds.of_class
    matched = missed = known = 0
    i, j, scores, genuine = list_all_pairs(items)
    best_same, best_other = (np.full(len(items), -2.0) for _ in range(2))
    for a, b, score, same in zip(i, j, scores, genuine, strict=True):
        best = best_same if same else best_other
        best[a], best[b] = max(best[a], score), max(best[b], score)
    for fold in range(FOLDS):
        rest = items.select_classes(items.classes[of_class != fold])
        chosen = Calibrator.prepare(CalibrationSources(rest), "cosine", "nearest", "m")
        target = FPIR.model_copy(update={"gallery": calibrator.sources.gallery})
        threshold = chosen.calibrate(target, "estimated").point.threshold
        held = of_class[items.codes] == fold
        matched += accepts(best_other[held], threshold).sum()
        missed += (~accepts(best_same[held], threshold) | (best_same[held] <= best_other[held])).sum()
        known += held.sum()
    assert known == len(items)
    assert point.proof.fpir == pytest.approx(matched / known)
    assert point.proof.fnir == pytest.approx(missed / known)
    assert point.proof.classes_disjoint is True
    assert point.proof.status == "estimated"


# -- small galleries and real unknowns -------------------------------------------------------------------
@pytest.mark.parametrize("residents", [1, 3])
def test_a_door_of_a_few_with_a_cohort_gets_points_that_hold(residents: int) -> None:
    """Middle of six doors: strangers come through about as often as estimated."""
    reached = []
    for seed in range(6):
        everybody = make_clusters(seed, 400, 6, dim=24)
        names = everybody.classes
        door = everybody.select_classes(names[:residents])
        calibrator = Calibrator.prepare(
            CalibrationSources(door, cohort=everybody.select_classes(names[residents : residents + 100])),
            "cosine",
            "nearest",
            "m",
        )
        target = Target(kind="fpir", value=0.03, gallery=calibrator.sources.gallery)
        threshold = select_threshold(
            calibrator.data.with_target(target), "estimated", calibrator.search
        ).threshold
        strangers = everybody.select_classes(names[200:])
        best = (strangers.vectors @ door.vectors.T).max(axis=1)
        reached.append(float(np.mean(accepts(best, threshold))) / 0.03)
    point = calibrator.calibrate(target, "estimated").point
    assert point.threshold == threshold
    assert point.proof.fnir is not None
    assert "assumes that people who are not in the gallery are like the 100" in point.proof.method
    assert point.target.gallery.classes == residents
    assert 0.6 < np.median(reached) < 1.6
    assert np.mean([0.5 <= value <= 2 for value in reached]) >= 0.75


def test_real_unknown_queries_are_fitted_on_one_half_and_proven_on_the_other() -> None:
    gallery = make_clusters(0, 30, 6)
    unknown = make_clusters(1, 200, 6, prefix="x")
    ladder = make_ladder(gallery, unknown=unknown, targets=[FPIR])
    for point in get_points(ladder):
        rates = point.proof.unknown
        assert rates.n_queries == 600
        assert rates.fpir_ci[0] <= rates.fpir <= rates.fpir_ci[1]
        assert rates.fpir <= rates.fpir_upper
        assert point.proof.fpir is not None, "left-out classes beside them"
        assert get_shown_rates(point).false == rates.fpir
        best = (unknown.vectors @ gallery.vectors.T).max(axis=1)
        assert np.mean(accepts(best, point.threshold)) == pytest.approx(0.1, abs=0.06)
    assert [point.status for point in get_points(ladder)] == ["proven", "estimated"]


def test_nothing_at_all_is_one_sentence() -> None:
    for classes in (1, 2, 4):
        with pytest.raises(CalibrationRefused, match="an estimate needs at least 5"):
            make_ladder(make_clusters(0, classes, 6))


def test_five_classes_are_enough_for_estimates_and_two_classes_to_prove_on_do_not_matter() -> None:
    points = get_points(make_ladder(make_clusters(0, 5, 6), targets=[FPIR]))
    assert [point.status for point in points] == ["estimated"]
    small = make_ladder(make_clusters(0, 6, 6), proof=make_clusters(1, 2, 6, prefix="t"), targets=[FPIR])
    assert get_points(small)[0].fit.n_classes == 8
    large = make_ladder(make_clusters(0, 45, 6), proof=make_clusters(1, 2, 6, prefix="t"), targets=[FPIR])
    assert get_points(large)[0].proof.n_classes == 2


def test_points_of_the_nearest_item_say_why_class_evidence_was_not_taken() -> None:
    sources = CalibrationSources(make_clusters(0, 6, 6))
    points = get_points(calibrate_ladder(sources, score="cosine", targets=[FPIR], model_hash="m"))
    assert "class evidence is fitted on 10 classes of two items or more, found 6" in points[0].fit.method
