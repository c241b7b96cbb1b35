"""Operating points: the threshold meets its target exactly, the proof is honest, refusals say why."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from score_analysis import Scores

from api_schemas.operating_point import Aggregate, GallerySize, OperatingPoint, Target
from common.errors import CalibrationRefused, InputError
from decision.scorers import accepts
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.fpir_thresholds import SEARCH_RULES, plan_gallery
from evaluation.calibration.impostor_scores import count_accepted_pairs
from evaluation.metrics.class_bootstrap import draw_classes
from evaluation.pairs.pairs import arrange
from tests.evaluation.samples import calibrate, list_all_pairs, make_clusters

FAR = Target(kind="far", value=0.02)

FPIR = Target(kind="fpir", value=0.05)


def make_point(items: EmbeddingSet, target: Target, **options: object) -> OperatingPoint:
    return calibrate(items, target, **options).point


@pytest.fixture(scope="module")
def fit() -> EmbeddingSet:
    return make_clusters(0)


@pytest.fixture(scope="module")
def proof() -> EmbeddingSet:
    return make_clusters(1, prefix="t")


def test_rates_are_those_of_a_loop_over_pairs(fit: EmbeddingSet, proof: EmbeddingSet) -> None:
    point = make_point(fit, FAR, proof=proof)
    for items, evidence in ((fit, point.fit), (proof, point.proof)):
        i, j, scores, genuine = list_all_pairs(items)
        accepted = accepts(scores, point.threshold)
        assert evidence.far == pytest.approx(accepted[~genuine].mean(), abs=1e-12)
        assert evidence.frr == pytest.approx(1 - accepted[genuine].mean(), abs=1e-12)
        assert evidence.n_impostor_pairs == (~genuine).sum()
        assert evidence.n_genuine_pairs == genuine.sum()
        best_other = np.full(len(items), -2.0)
        best_same = np.full(len(items), -2.0)
        for a, b, s, g in zip(i, j, scores, genuine, strict=True):
            for best in [best_same if g else best_other]:
                best[a], best[b] = max(best[a], s), max(best[b], s)
        assert evidence.fpir == pytest.approx(accepts(best_other, point.threshold).mean())
        missed = ~accepts(best_same, point.threshold) | (best_same <= best_other)
        assert evidence.fnir == pytest.approx(missed.mean())
    assert point.fit.far < point.fit.far_upper <= 0.02
    assert point.fit.classes_disjoint is False
    assert point.proof.classes_disjoint is True


def test_the_next_lower_threshold_breaks_the_bound(fit: EmbeddingSet) -> None:
    from evaluation.calibration.bootstrap_bounds import estimate_pair_fraction_interval

    point = make_point(fit, FAR, proof=make_clusters(1, prefix="t"))
    pairs = arrange(fit)
    _, _, scores, genuine = list_all_pairs(fit)
    assert np.float32(point.threshold) in scores[~genuine]
    lower = scores[~genuine & (scores < np.float32(point.threshold))].max()
    weights = draw_classes(len(fit.classes), 0)
    sizes = pairs.a.sizes.astype(float)
    at = estimate_pair_fraction_interval(count_accepted_pairs(pairs, point.threshold), sizes, weights, 0.95)
    below = estimate_pair_fraction_interval(count_accepted_pairs(pairs, float(lower)), sizes, weights, 0.95)
    assert at.upper_bound <= 0.02 < below.upper_bound


def test_never_beyond_the_threshold_that_the_target_itself_allows(fit: EmbeddingSet) -> None:
    _, _, scores, genuine = list_all_pairs(fit)
    oracle = Scores(pos=scores[genuine].astype(float), neg=scores[~genuine].astype(float))
    assert make_point(fit, FAR).threshold >= float(np.float32(oracle.threshold_at_far(0.02)))


def test_per_class_rates_are_those_of_a_loop(fit: EmbeddingSet, proof: EmbeddingSet) -> None:
    point = make_point(fit, FAR, proof=proof)
    i, j, scores, genuine = list_all_pairs(proof)
    accepted = accepts(scores, point.threshold)
    assert [rates.label for rates in point.per_class] == proof.classes.tolist()
    for rates in point.per_class[::7]:
        mine = (proof.labels[i] == rates.label) | (proof.labels[j] == rates.label)
        far, frr = accepted[mine & ~genuine].mean(), 1 - accepted[mine & genuine].mean()
        assert rates.far == pytest.approx(far)
        assert rates.frr == pytest.approx(frr)
        assert rates.utility == pytest.approx(2 * (1 - far) * (1 - frr) / (2 - far - frr))


def test_one_item_classes_are_impostors_and_have_no_frr(fit: EmbeddingSet) -> None:
    lone = make_clusters(5, 10, 1, prefix="lone")
    items = EmbeddingSet.from_arrays(
        np.concatenate([fit.vectors, lone.vectors]), np.concatenate([fit.labels, lone.labels])
    )
    point = make_point(items, FAR, proof=make_clusters(1, prefix="t"))
    assert point.fit.n_classes == 50
    assert make_point(make_clusters(1, prefix="t"), FAR, proof=items).per_class[-1].frr is None


def test_frr_eer_and_cost_meet_their_targets(fit: EmbeddingSet, proof: EmbeddingSet) -> None:
    frr = make_point(fit, Target(kind="frr", value=0.15), proof=proof)
    assert frr.fit.frr < 0.15
    assert frr.fit.frr_upper <= 0.15
    eer = make_point(fit, Target(kind="eer"), proof=proof)
    assert eer.fit.far == pytest.approx(eer.fit.frr, abs=0.005)
    costs = {"cost_false_match": 10.0, "cost_false_non_match": 1.0, "prior": 0.2}
    cost = make_point(fit, Target(kind="cost", cost_parameters=costs), proof=proof)
    _, _, scores, genuine = list_all_pairs(fit)
    least = min(
        0.8 * 10 * (scores[~genuine] >= t).mean() + 0.2 * (scores[genuine] < t).mean()
        for t in np.linspace(-0.2, 1, 1201)
    )
    assert cost.target.value == pytest.approx(least, rel=0.01)


def test_a_cost_target_names_what_it_lacks(fit: EmbeddingSet) -> None:
    with pytest.raises(InputError, match="cost_false_non_match, prior"):
        make_point(fit, Target(kind="cost", cost_parameters={"cost_false_match": 1.0}))


def test_a_larger_gallery_asks_for_a_higher_threshold(fit: EmbeddingSet, proof: EmbeddingSet) -> None:
    sizes = [GallerySize(items=6 * c, classes=c) for c in (10, 40, 120)]
    points = [make_point(fit, FPIR, proof=proof, gallery=size) for size in sizes]
    thresholds = [point.threshold for point in points]
    assert thresholds == sorted(thresholds)
    assert len(set(thresholds)) == 3
    assert [point.target.gallery for point in points] == sizes
    for point in points:
        assert point.fit.fpir < point.fit.fpir_upper <= 0.05
    assert "Jensen" in points[2].fit.method
    more_items = make_point(fit, FPIR, proof=proof, gallery=GallerySize(items=1200, classes=40))
    assert more_items.threshold > thresholds[1]


def test_an_fpir_point_without_a_gallery_is_for_its_own(fit: EmbeddingSet) -> None:
    point = make_point(fit, FPIR)
    assert point.target.gallery == GallerySize(items=240, classes=40)
    plan = plan_gallery(240, 40, None)
    assert plan.compute_fpir(plan.compute_match_rate(0.01)) == pytest.approx(0.01)


# -- folds, probability, reproducibility --------------------------------------------------------
def test_without_a_proof_set_folds_are_left_out_in_turn(fit: EmbeddingSet) -> None:
    point = make_point(fit, FAR)
    assert "5 of 5 folds" in point.proof.method
    assert point.proof.classes_disjoint is True
    assert point.proof.n_classes == 40
    assert point.proof.status == "proven"
    assert point.proof.far_ci[0] < point.proof.far < point.proof.far_ci[1] < 0.06
    assert [rates.label for rates in point.per_class] == fit.classes.tolist()


def test_the_same_data_gives_the_same_point(fit: EmbeddingSet, proof: EmbeddingSet) -> None:
    first, second = (make_point(fit, FAR, proof=proof).model_dump(exclude={"created_at"}) for _ in range(2))
    assert first == second
    mixed = np.random.default_rng(0).permutation(len(fit))
    assert make_point(fit.subset(mixed), FAR, proof=proof).threshold == first["threshold"]


# -- refusals --------------------------------------------------------------------------------------
@pytest.mark.parametrize(("classes", "found"), [(1, "1 class is"), (3, "3 classes are")])
@pytest.mark.parametrize("target", [FAR, FPIR])
def test_few_classes_are_refused(classes: int, found: str, target: Target) -> None:
    with pytest.raises(CalibrationRefused, match=rf"{found} too few .* at least 5, a bound at least 20"):
        make_point(make_clusters(0, classes, 50), target)


@pytest.mark.parametrize("target", [FAR, FPIR])
def test_below_twenty_classes_there_is_an_estimate_and_no_proof(target: Target) -> None:
    items = make_clusters(0, 12, 8)
    point = make_point(items, target)
    assert point.status == "estimated"
    assert "12 classes are too few to prove" in point.fit.method
    rate = getattr(point.fit, target.kind)
    assert rate <= target.value
    low, high = getattr(point.fit, f"{target.kind}_ci")
    assert low < rate < high
    with pytest.raises(CalibrationRefused, match="needs at least 20"):
        make_point(items, target, status="proven")


@pytest.mark.parametrize(
    ("target", "support"),
    [
        (
            Target(kind="far", value=1e-4),
            "takes about 600000 pairs, 30 of them accepted, and there are 28080",
        ),
        (Target(kind="fpir", value=1e-5), "at least 60 matches of a query and another class, of 10 classes"),
    ],
)
def test_a_target_beyond_the_data_is_refused_with_what_it_takes(
    target: Target, support: str, fit: EmbeddingSet
) -> None:
    with pytest.raises(CalibrationRefused, match=support):
        make_point(fit, target, status="proven")


@pytest.mark.parametrize("target", [FAR, FPIR])
def test_ties_that_leave_no_threshold_are_refused(target: Target) -> None:
    same = EmbeddingSet.from_arrays(np.ones((120, 3)), np.repeat(np.arange(30), 4))
    with pytest.raises(CalibrationRefused, match=r"[Tt]ies"):
        make_point(same, target)


def test_frr_without_genuine_pairs_is_refused() -> None:
    with pytest.raises(CalibrationRefused, match="No class has two items"):
        make_point(make_clusters(0, 40, 1), Target(kind="frr", value=0.1))


def test_shared_classes_and_dimensions_are_refused(fit: EmbeddingSet) -> None:
    with pytest.raises(InputError, match="both in the fit and in the proof"):
        make_point(fit, FAR, proof=fit)
    with pytest.raises(InputError, match="12"):
        make_point(fit, FAR, proof=make_clusters(1, dim=8, prefix="t"))


def test_every_rule_of_a_search_is_registered() -> None:
    assert set(SEARCH_RULES) == set(get_args(Aggregate))


def test_what_no_fold_can_repeat_is_proven_all_the_same_and_says_that_it_was_not_measured() -> None:
    few = make_clusters(3, classes=22, each=12)  # four fifths of them are too few for a bound
    point = make_point(few, Target(kind="fpir", value=0.3), status="proven")
    assert point.status == "proven"
    assert point.proof.fpir is None
    assert point.proof.fpir_upper is None
    assert "not measured on classes it was not chosen on" in point.proof.method
    assert OperatingPoint.model_validate_json(point.to_json()) == point
