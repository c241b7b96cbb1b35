"""Groups: a planted one with four times the false matches is found, named, and mended."""

from __future__ import annotations

import numpy as np
import pytest

from api_schemas.operating_point import OperatingPoint, Target
from common.errors import CalibrationRefused, InputError
from decision.describe_point import get_shown_rates
from embeddings.embedding_set import EmbeddingSet
from evaluation.audit.audit_threshold import audit_threshold
from evaluation.audit.group_ladder import calibrate_group_ladder
from evaluation.audit.group_points import GroupCalibrator
from evaluation.audit.group_rates import measure_groups
from evaluation.audit.threshold_rates import MeasuredThreshold
from evaluation.calibration.calibrate import calibrate_threshold
from evaluation.calibration.sets.sources import CalibrationSources
from evaluation.evaluate import evaluate_embeddings
from evaluation.report.audit_text import describe_worst_group

FPIR = Target(kind="fpir", value=0.05)
FAR = Target(kind="far", value=0.01)


def make_sites(seed: int, classes: int = 80, each: int = 6, share: float = 0.8) -> EmbeddingSet:
    """Two sites whose classes are apart; those of ``dim`` share a direction, so that they look more alike."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(2 * classes, 24))
    centres[classes:] = centres[classes:] + share * np.sqrt(24) * np.eye(24)[0]
    vectors = centres[:, None] + 0.8 * rng.normal(size=(2 * classes, each, 24))
    labels = np.repeat([f"{seed}-{number}" for number in range(2 * classes)], each)
    sites = np.repeat(["bright", "dim"], classes * each)
    return EmbeddingSet.from_arrays(vectors.reshape(-1, 24), labels, metadata={"site": sites})


def measure_site(point: OperatingPoint, items: EmbeddingSet, site: str, kind: str) -> float:
    """FAR among the items of a site, or FPIR of its queries in the whole gallery, counted."""
    measured = MeasuredThreshold.prepare(items, point.threshold)
    rates = {group.value: getattr(group, kind) for group in measure_groups(measured, items, ["site"])}
    return float(rates[site])


def test_a_group_with_four_times_the_false_matches_is_found() -> None:
    items = make_sites(0)
    point = calibrate_threshold(CalibrationSources(items), FAR, model_hash="m").point
    measured = MeasuredThreshold.prepare(items, point.threshold)
    groups = {group.value: group for group in measure_groups(measured, items, ["site"])}
    dim, bright = groups["dim"], groups["bright"]
    assert dim.far is not None
    assert bright.far is not None
    assert dim.far > 4 * bright.far
    assert dim.far_ci is not None
    assert dim.far_ci[0] > bright.far
    assert list(groups) == ["dim", "bright"]  # worst first
    assert "dim with FAR" in describe_worst_group(list(groups.values()), "verify")[0]


def test_rates_of_a_group_are_those_of_its_items_and_queries() -> None:
    items = make_sites(1, classes=12)
    measured = MeasuredThreshold.prepare(items, 0.5)
    for group in measure_groups(measured, items, ["site"]):
        inside = items.metadata["site"] == group.value
        part = items.subset(inside)
        alone = audit_threshold(part, 0.5).audit
        assert (group.far, group.frr, group.far_ci) == (alone.far, alone.frr, alone.far_ci)
        similar = (items.vectors[inside] @ items.vectors.T).astype(np.float64)
        similar[np.arange(len(part)), np.flatnonzero(inside)] = -1
        same = part.labels[:, None] == items.labels[None, :]
        best_other = np.where(same, -1, similar).max(axis=1)
        own = np.where(same, similar, -1).max(axis=1)
        assert group.fpir == pytest.approx(float(np.mean(best_other >= 0.5)), abs=1e-9)
        assert group.fnir == pytest.approx(float(np.mean((own < 0.5) | (own <= best_other))), abs=1e-9)
        report = evaluate_embeddings(part, model_hash="m", split="all")
        assert (group.opis, group.opis_ci) == (report.consistency.opis_debiased, report.consistency.opis_ci)


@pytest.mark.parametrize("target", [FAR, FPIR], ids=["far", "fpir"])
def test_a_target_in_every_group_mends_it(target: Target) -> None:
    items, fresh = make_sites(2), make_sites(3)
    rate = target.value
    assert rate is not None
    plain = calibrate_threshold(CalibrationSources(items), target, model_hash="m", status="estimated").point
    calibrator = GroupCalibrator.prepare(CalibrationSources(items), "cosine", "nearest", ["site"], "m")
    made = calibrator.calibrate_every(target, "estimated").point
    dim, bright = (measure_site(plain, fresh, site, target.kind) for site in ("dim", "bright"))
    assert dim > 4 * bright
    assert dim > 1.5 * rate
    assert measure_site(made, fresh, "dim", target.kind) <= 1.2 * rate
    assert made.threshold > plain.threshold
    assert made.target.group is not None
    assert (made.target.group.mode, made.target.group.values) == ("every", ["bright", "dim"])
    assert "worst group, site = dim" in made.fit.method
    assert made.proof is not None
    assert "of site = dim, the worst of 2 groups" in made.proof.method
    if target.kind == "fpir":  # what is shown is of the worst group, at this threshold, with its bound
        shown = get_shown_rates(made)
        assert shown.false == made.proof.fpir == pytest.approx(rate, abs=0.2 * rate)
        assert shown.at_most is not None
        assert shown.false < shown.at_most
        assert made.fit.fpir < 0.8 * shown.false, "over all items, the bright site's among them"
    assert made.name.endswith("every-site")


def test_a_ladder_holds_in_every_group_or_has_points_of_their_own() -> None:
    items = make_sites(4, classes=40)
    every = calibrate_group_ladder(
        CalibrationSources(items), ["site"], targets=[FAR], score="cosine", model_hash="m"
    )
    assert {point.point.status for point in every.points} == {"proven", "estimated"}
    for calibration in every.points:
        point = calibration.point
        assert point.target.group is not None
        assert point.target.group.mode == "every"
        if point.status == "proven":
            assert measure_site(point, make_sites(5, classes=40), "dim", "far") <= 0.012
    own = calibrate_group_ladder(
        CalibrationSources(items), ["site"], "own", targets=[FAR], score="cosine", model_hash="m"
    )
    by_group = {
        point.point.target.group.values[0]: point.point.threshold
        for point in own.points
        if point.point.target.group is not None and point.point.status == "estimated"
    }
    assert by_group["dim"] > by_group["bright"]
    active = next(point.point for point in own.points if point.point.id == own.active["verify"])
    assert active.target.group is None  # what decides where a request names no group


def test_a_group_that_is_too_small_is_named_and_not_guessed() -> None:
    items = make_sites(6, classes=30)
    sites = items.metadata["site"].astype("<U8")
    few = np.isin(items.labels, items.classes[:3])
    sites[few] = "attic"
    small = EmbeddingSet(items.vectors, items.labels, items.ids, {"site": sites})
    calibrator = GroupCalibrator.prepare(CalibrationSources(small), "cosine", "nearest", ["site"], "m")
    with pytest.raises(CalibrationRefused, match="group site = attic: 3 classes are too few"):
        calibrator.calibrate_every(FPIR)
    points, reasons = calibrator.calibrate_own(FPIR, "estimated")
    assert len(points) == 2
    assert any("attic" in reason for reason in reasons)
    measured = MeasuredThreshold.prepare(small, 0.5)
    rows = {group.value: group for group in measure_groups(measured, small, ["site"])}
    assert rows["attic"].reason is not None
    assert rows["attic"].reason.startswith("3 classes are too few")
    assert rows["attic"].far_ci is None


def test_columns_that_make_no_groups_are_refused_in_a_sentence() -> None:
    items = make_sites(7, classes=6)
    n = len(items)
    half = np.where(np.arange(n) % 2, "north", "")
    numbers = np.arange(n)
    given = EmbeddingSet(
        items.vectors,
        items.labels,
        items.ids,
        {"half": half, "one": np.repeat("x", n), "many": numbers, "none": np.where(numbers % 3, np.nan, 1.0)},
    )
    measured = MeasuredThreshold.prepare(given, 0.5)
    for column, sentence in (
        ("half", f"'half' is empty in {n // 2} of {n} rows"),
        ("none", "'none' is empty in"),
        ("nothing", "no column 'nothing' to group by"),
    ):
        with pytest.raises(InputError, match=sentence):
            measure_groups(measured, given, [column])
    with pytest.raises(InputError, match="'one' has one value, 'x'"):
        GroupCalibrator.prepare(CalibrationSources(given), "cosine", "nearest", ["one"], "m")
