"""Class evidence fitted on classes: covariances found again, trials equal to served scores, nothing leaks."""

from __future__ import annotations

import numpy as np
import pytest

from api_schemas.operating_point import Target
from common.errors import CalibrationRefused
from decision.class_evidence import ClassModels, EvidenceScorer
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.calibrate import calibrate_threshold
from evaluation.calibration.class_evidence.choose_evidence import choose_evidence, list_forms
from evaluation.calibration.class_evidence.evidence_trials import (
    MOST_POWER,
    USUAL_POWER,
    CrossFittedEvidence,
    PowerCoordinate,
    score_evidence_trials,
)
from evaluation.calibration.class_evidence.fit_class_evidence import (
    PRIORS,
    EvidenceFitter,
    EvidenceForm,
    PldaSource,
)
from evaluation.calibration.class_evidence.plda import ClassScatter, fit_plda
from evaluation.calibration.class_evidence.split_probes import PROBES, split_probes
from evaluation.calibration.fpir_thresholds import build_candidates
from evaluation.calibration.nearest_scores import score_nearest_trials
from evaluation.calibration.sets.sources import CalibrationSources
from evaluation.pairs.pairs import arrange

D = 12


def draw(n_classes: int, n_items: int, seed: int, prefix: str = "c", spread: float = 0.6) -> EmbeddingSet:
    """Classes around random centres; half of the dimensions vary within classes alone."""
    rng = np.random.default_rng(seed)
    scales = np.where(np.arange(D) < D // 2, 1.0, 0.05)
    centres = rng.normal(size=(n_classes, D)) * scales
    noise = rng.normal(size=(n_classes, n_items, D)) * spread * np.where(np.arange(D) < D // 2, 0.5, 1.5)
    labels = np.repeat([f"{prefix}{code:03d}" for code in range(n_classes)], n_items)
    return EmbeddingSet.from_arrays((centres[:, None] + noise).reshape(-1, D), labels)


FIT, TRAINING, TEST = draw(24, 8, 0), draw(30, 8, 1, "t"), draw(20, 8, 2, "x")


def score_one_by_one(items: EmbeddingSet, scorer: EvidenceScorer) -> np.ndarray:
    """[n, classes]: each trial scored as it is served, the query left out of its own class."""
    scores = np.full((len(items), len(items.classes)), -np.inf)
    zero = np.zeros(1, dtype=np.int64)
    densities = scorer.compute_densities(items.vectors, items.labels).astype(np.float64)
    for i in range(len(items)):
        query = items.vectors[i : i + 1]
        for code, label in enumerate(items.classes):
            rows = np.flatnonzero((items.codes == code) & (np.arange(len(items)) != i))
            if not len(rows):
                continue
            sums = items.vectors[rows].astype(np.float64).sum(axis=0)[None]
            mean = densities[rows].mean(keepdims=True) if scorer.has_densities else None
            prepared = scorer.prepare(ClassModels(sums, np.array([len(rows)]), mean))
            best = (items.vectors[rows] @ query[0]).max(keepdims=True)
            of_query = scorer.compute_trial_densities(query, zero, [str(label)])
            scores[i, code] = scorer.score_trials(query, zero, best, prepared, zero, of_query)[0]
    return scores


def test_covariances_are_found_again() -> None:
    rng = np.random.default_rng(3)
    between = np.array([4.0, 1.0, 0.25, 0.0])
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    centres = rng.normal(size=(3000, 4)) * np.sqrt(between)
    rows = np.repeat(centres, 5, axis=0) + rng.normal(size=(15000, 4))
    labels = np.repeat(np.arange(3000), 5)
    items = EmbeddingSet((rows @ turn.T).astype(np.float32), labels.astype(np.str_), labels.astype(np.str_))
    plda = fit_plda(ClassScatter.measure(items), ridge=0.0)
    np.testing.assert_allclose(plda.between[:3], between[:3], rtol=0.1)
    projected = (items.vectors - plda.mean) @ plda.projection
    means = np.array([projected[items.codes == code].mean(axis=0) for code in range(200)])
    within = projected[items.codes < 200] - means[items.codes[items.codes < 200]]
    np.testing.assert_allclose(np.cov(within.T) * 5 / 4, np.eye(len(plda.between)), atol=0.15)


def test_scatter_of_disjoint_classes_adds_up() -> None:
    first, second = FIT.select_classes(FIT.classes[:10]), FIT.select_classes(FIT.classes[10:])
    whole, added = ClassScatter.measure(FIT), ClassScatter.measure(first) + ClassScatter.measure(second)
    for name in ("within", "means", "outer", "inverse_sizes", "items", "classes"):
        np.testing.assert_allclose(getattr(added, name), getattr(whole, name), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["similarity-density", "all", "similarity-plda"])
def test_trials_are_what_is_served(name: str) -> None:
    """On classes the form was not fitted on, those of the cohort among them."""
    fitter = EvidenceFitter(FIT, TRAINING, TRAINING)
    source = PldaSource("both", 0.1) if "density" not in name else None
    fitted = fitter.fit_form(EvidenceForm(name, stretched=name != "similarity-plda", source=source))
    mixed = EmbeddingSet.from_arrays(
        np.concatenate([TEST.vectors[:40], TRAINING.vectors[:16], TEST.vectors[-1:]]),
        np.concatenate([TEST.labels[:40], TRAINING.labels[:16], ["alone"]]),
    )
    plain = EvidenceScorer(fitted.score, fitted.cohort, fitted.arrays)
    expected = score_one_by_one(mixed, plain)
    trials = score_evidence_trials(arrange(mixed, scorer=fitted, keep_rows=True))
    rows = np.argsort(mixed.codes, kind="stable")
    at = np.arange(len(rows)), trials.codes
    found = trials.other.copy()
    assert np.isneginf(found[at]).all()
    found[at] = trials.own
    np.testing.assert_allclose(found, expected[rows], rtol=1e-4, atol=1e-4)
    assert np.isneginf(trials.own).sum() == 1  # the class of one item


def test_trials_of_fitted_classes_are_scored_without_both() -> None:
    fitter = EvidenceFitter(FIT, None, None)
    fitted = fitter.fit_form(EvidenceForm("similarity-plda", source=PldaSource("fit", 0.1)))
    trials = score_evidence_trials(arrange(FIT, scorer=fitted, keep_rows=True))
    for query, klass in ((0, 1), (0, 9), (5, 0)):
        folds = [fitted.folds[str(FIT.classes[code])] for code in (query, klass)]
        part = fitted.get_part(*folds)
        alone = score_evidence_trials(arrange(FIT, scorer=part, keep_rows=True))
        np.testing.assert_allclose(trials.other[query * 8, klass], alone.other[query * 8, klass], rtol=1e-5)
    assert fitted.get_part(-1, -1) is fitted
    assert fitted.get_part(-1, 2) is fitted.get_part(2, 2)


def test_covariances_without_a_fold_do_not_know_its_classes() -> None:
    """Moving the classes of one fold changes nothing that is scored without it."""
    fitter = EvidenceFitter(FIT, None, None)
    fold = fitter.folds == 2
    moved = FIT.vectors.copy()
    inside = fold[FIT.codes]
    moved[inside] = np.roll(moved[inside], 3, axis=1)
    other = EvidenceFitter(EmbeddingSet(moved, FIT.labels, FIT.ids), None, None)
    source = PldaSource("fit", 0.1)
    for key in fitter.fold_pairs:
        same = np.allclose(fitter.pldas[source][key].mean, other.pldas[source][key].mean)
        assert same == (2 in (fitter._leave_out(key) or ()))


def test_gallery_and_probes_have_no_item_in_common() -> None:
    gallery, probes = split_probes(FIT, 3, np.random.default_rng(0))
    assert not set(gallery.ids) & set(probes.ids)
    assert np.bincount(gallery.codes).tolist() == [3] * 24
    halves, _ = split_probes(FIT, None, np.random.default_rng(0))
    assert np.bincount(halves.codes).tolist() == [4] * 24
    alone = EmbeddingSet.from_arrays(FIT.vectors[:9], FIT.labels[:9])
    gallery, probes = split_probes(alone, 20, np.random.default_rng(0))
    assert (np.bincount(gallery.codes).tolist(), len(probes)) == ([7, 1], 1)


def test_probes_are_left_where_a_gallery_wants_all_of_a_class() -> None:
    """A gallery of the very items that are fitted on wants as many references as a class has."""
    for each, kept in ((8, 1), (60, 6), (200, PROBES)):
        items = draw(12, each, 0, "p", 0.4)
        gallery, probes = split_probes(items, each, np.random.default_rng(0))
        assert np.bincount(gallery.codes).tolist() == [each - kept] * 12
        assert np.bincount(probes.codes).tolist() == [kept] * 12


def test_evidence_is_taken_where_it_helps_and_only_there() -> None:
    """Half of the dimensions vary within classes alone: covariances leave them out."""
    fit, test = draw(40, 8, 4, "f", 0.4), draw(40, 8, 5, "g", 0.4)
    chosen = choose_evidence(fit, None, test)
    assert chosen.is_sure
    assert chosen.scorer is not None
    nearest = score_nearest_trials(arrange(test))
    evidence = score_evidence_trials(arrange(test, scorer=chosen.scorer))
    recall = [float(np.mean(trials.own > trials.best_other)) for trials in (nearest, evidence)]
    assert recall[1] > recall[0] + 0.1
    rng = np.random.default_rng(6)
    noise = EmbeddingSet.from_arrays(rng.normal(size=(200, D)), np.repeat(np.arange(40), 5))
    assert choose_evidence(noise).scorer is None
    assert choose_evidence(noise, required=True).scorer is not None


def draw_unequal(n_classes: int, seed: int, prefix: str, spread_of_all: float = 1.0) -> EmbeddingSet:
    """Tight and loose classes around random directions."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n_classes, 1, 32)) / np.sqrt(32)
    spread = spread_of_all * np.exp(0.4 * rng.normal(size=(n_classes, 1, 1)))
    rows = centres + spread * rng.normal(size=(n_classes, 8, 32)) / np.sqrt(32)
    labels = np.repeat([f"{prefix}{code:03d}" for code in range(n_classes)], 8)
    return EmbeddingSet.from_arrays(rows.reshape(-1, 32), labels)


def test_weights_are_fitted_where_strict_thresholds_lie() -> None:
    """At even odds loose classes draw strangers, and a strict threshold misses more than the nearest item."""
    chosen = choose_evidence(draw_unequal(60, 7, "f"), required=True)
    assert chosen.scorer is not None
    test = draw_unequal(100, 8, "t")
    missed = []
    for trials in (
        score_evidence_trials(arrange(test, scorer=chosen.scorer)),
        score_nearest_trials(arrange(test)),
    ):
        threshold = np.quantile(trials.best_other, 0.99)
        missed.append(trials.measure_fnir(float(threshold)))
    assert missed[0] is not None
    assert missed[1] is not None
    assert missed[0] < 0.75 * missed[1]


def test_few_classes_are_weighed_at_the_strict_prior_alone() -> None:
    """At even odds strangers match a loose class far more often, and of few classes one decides."""
    few, many = (EvidenceFitter(draw_unequal(n, 11, "f", 0.5)) for n in (20, 80))
    assert {form.prior for form in list_forms(few)} == {PRIORS[1]}
    assert {form.prior for form in list_forms(many)} == set(PRIORS)


def test_cross_fitted_scores_have_the_scale_of_the_served_ones() -> None:
    """Well separated classes: log-odds that fewer of them are fitted on are of another scale."""
    fit = draw_unequal(60, 9, "f", 0.5)
    chosen = choose_evidence(fit, required=True)
    assert chosen.scorer is not None
    spans = []
    for items in (fit, draw_unequal(60, 10, "t", 0.5)):
        scores = score_evidence_trials(arrange(items, scorer=chosen.scorer)).other
        low, high = np.quantile(scores[np.isfinite(scores)], [0.1, 0.9])
        spans.append(high - low)
    assert spans[0] == pytest.approx(spans[1], rel=0.1)


@pytest.mark.parametrize(("power", "expected"), [(0.7, 1.0), (1.0, 1.0), (2.0, 2.0), (5.0, 3.0)])
def test_the_tail_is_exponential_in_its_coordinate(power: float, expected: float) -> None:
    """Above their median the scores' power is exponential; the power stays between 1 and 3."""
    excess = -np.log1p(-(np.arange(50_000) + 0.5) / 50_000)
    above = excess ** (1 / power)
    scores = np.concatenate([-above, above]).astype(np.float32).reshape(100, 1000)
    coordinate = PowerCoordinate.fit(scores)
    assert coordinate.centre == pytest.approx(0.0, abs=0.01)
    assert coordinate.power == pytest.approx(expected, abs=0.11)
    assert PowerCoordinate(1.0, 2.0)(np.array([0.0, 1.0, 4.0])).tolist() == [0.0, 0.0, 9.0]


def test_few_classes_do_not_choose_the_power_of_a_tail() -> None:
    """Scores of a light tail, of as many trials: in a square of 20 classes no pair supports the last rate."""
    light = 10 - np.abs(np.random.default_rng(0).normal(size=36_000)).astype(np.float32)
    many, few = (PowerCoordinate.fit(light.reshape(-1, classes)).power for classes in (120, 20))
    assert many == MOST_POWER
    assert few == pytest.approx(USUAL_POWER, abs=0.05)


def test_what_cannot_be_fitted_is_said() -> None:
    single = EmbeddingSet.from_arrays(FIT.vectors[:40], np.arange(40))
    chosen = choose_evidence(single, required=True)
    assert chosen.scorer is None
    assert "10 classes of two items or more, found 0" in chosen.reason
    target = Target(kind="fpir", value=0.1, aggregate="evidence")
    with pytest.raises(CalibrationRefused, match="10 classes of two items or more, found 0"):
        calibrate_threshold(CalibrationSources(single), target, model_hash="m")


def test_training_classes_that_are_evaluated_are_left_out() -> None:
    both = EmbeddingSet.from_arrays(
        np.concatenate([TRAINING.vectors, TEST.vectors]), np.concatenate([TRAINING.labels, TEST.labels])
    )
    one = choose_evidence(FIT, TRAINING, TEST, required=True)
    other = choose_evidence(FIT, both, TEST, required=True)
    assert one.scorer is not None
    assert other.scorer is not None
    assert one.scorer.score == other.scorer.score


def test_a_calibrated_point_carries_its_class_model() -> None:
    fit = draw(40, 8, 4, "f", 0.4)
    target = Target(kind="fpir", value=0.1, aggregate="evidence")
    sources = CalibrationSources(fit, proof=draw(30, 8, 5, "g", 0.4))
    made = calibrate_threshold(sources, target, model_hash="m")
    assert made.point.score.kind == "evidence"
    assert made.point.target.aggregate == "evidence"
    scorer = EvidenceScorer.open(
        made.point.score, None if made.cohort is None else made.cohort.vectors, made.class_arrays
    )
    assert not isinstance(scorer, CrossFittedEvidence)
    trials = score_evidence_trials(arrange(draw(40, 8, 9, "h", 0.4), scorer=scorer))
    assert np.mean(trials.best_other >= made.point.threshold) < 0.2


def copy_classes(items: EmbeddingSet, n: int) -> EmbeddingSet:
    """The same with all items of the first classes equal to the class's first."""
    vectors = items.vectors.copy()
    for code in range(n):
        vectors[items.codes == code] = vectors[items.codes == code][0]
    return EmbeddingSet(vectors, items.labels, items.ids)


def test_a_class_of_copies_is_no_trial_of_its_own_queries() -> None:
    """A query that is a copy of all of its class has nothing to be compared with."""
    chosen = choose_evidence(copy_classes(FIT, 3), required=True)
    assert chosen.scorer is not None
    weights = [value for part in chosen.scorer.parts.values() for value in part.score.parameters.values()]
    assert np.isfinite(np.concatenate([np.ravel(weight) for weight in weights])).all()


def test_classes_of_copies_alone_are_decided_by_the_nearest_item() -> None:
    chosen = choose_evidence(copy_classes(FIT, len(FIT.classes)), required=True)
    assert chosen.scorer is None
    assert "found 0 whose items are no copies" in chosen.reason


def test_copies_are_matched_at_every_threshold_that_is_calibrated() -> None:
    """A query that is a copy under another label is a false match, in trials as when served."""
    fitted = choose_evidence(FIT, TRAINING, required=True).scorer
    assert fitted is not None
    assert fitted.least_of_copies is not None
    vectors = TEST.vectors.copy()
    vectors[8] = vectors[0]  # of the second class and of the first
    items = EmbeddingSet(vectors, TEST.labels, TEST.ids)
    trials, before = (score_evidence_trials(arrange(s, scorer=fitted, keep_rows=True)) for s in (items, TEST))
    assert trials.other[0, 1] == trials.other[8, 0] >= fitted.least_of_copies
    assert (before.other < fitted.least_of_copies).all()
    assert trials.coordinate.highest == fitted.least_of_copies
    highest = build_candidates(trials.other[np.isfinite(trials.other)].astype(float), trials.coordinate).max()
    assert highest == np.float32(fitted.least_of_copies)
    assert trials.measure_fpir(highest) == 2 / len(items)
    left = trials.leave_copies_out()
    assert len(left) == len(items) - 2
    assert max(left.best_other.max(), left.own.max()) < fitted.least_of_copies
    assert before.leave_copies_out() is before


def test_every_copy_is_above_every_threshold() -> None:
    made = calibrate_threshold(
        CalibrationSources(FIT),
        Target(kind="fpir", value=0.001),
        aggregate="evidence",
        status="estimated",
        model_hash="m",
    )
    assert made.point.threshold <= max(np.atleast_1d(made.point.score.parameters["copy"]))
