"""The ladder of operating points for groups: rungs met in every group, or further points of their own."""

from __future__ import annotations

from collections.abc import Sequence

from api_schemas.operating_point import AggregateChoice, ScoreChoice, Target
from common.errors import CalibrationRefused
from common.progress import Track, silent
from decision.targets import get_endpoint
from evaluation.audit.group_points import GroupCalibrator, GroupMode
from evaluation.calibration.calibrate import Calibration, StatusChoice
from evaluation.calibration.ladder import (
    STATUSES,
    ExpectedCosts,
    Ladder,
    choose_point,
    describe_refusals,
    list_rungs,
    list_unusable,
    prepare_calibrators,
)
from evaluation.calibration.sets.sources import CalibrationSources
from evaluation.calibration.tradeoff.measure_tradeoff import measure_tradeoffs


def calibrate_group_ladder(
    sources: CalibrationSources,
    columns: Sequence[str],
    mode: GroupMode = "every",
    *,
    score: ScoreChoice = "auto",
    aggregate: AggregateChoice = "auto",
    confidence: float = 0.95,
    costs: ExpectedCosts | None = None,
    targets: Sequence[Target] | None = None,
    model_hash: str,
    seed: int = 0,
    track: Track = silent,
) -> Ladder:
    """``calibrate_ladder`` for groups: every rung met in every group, or also a point for each group.

    Args:
        columns: metadata columns whose values are the groups.
        mode: ``every``, or ``own``: the usual ladder, and for each rung the groups' own points, which
            requests choose by ``group``.

    Raises:
        CalibrationRefused: no rung can be held; the sentence names the group that is too small.
        InputError: a column that cannot be used; sets of another dimension or with shared classes.
    """
    costs = costs or ExpectedCosts()
    overall = prepare_calibrators(sources, score, aggregate, model_hash, seed=seed, track=track)
    prepared: dict[int, GroupCalibrator] = {}
    for calibrator in overall.values():
        if id(calibrator) not in prepared:
            prepared[id(calibrator)] = GroupCalibrator.prepare(
                sources, score, calibrator.aggregate, columns, model_hash, overall=calibrator, track=track
            )
    wanted = list(targets) if targets is not None else list_rungs(confidence)
    points: list[Calibration] = []
    of_groups: list[Calibration] = []
    reasons: list[str] = []
    refusals: list[tuple[Target, StatusChoice, CalibrationRefused]] = []
    for target in track(wanted, "operating points", len(wanted)):
        calibrator = overall[get_endpoint(target)]
        by_group = prepared[id(calibrator)]
        rung = calibrator.complete(target).model_copy(update={"group": None})
        for status in STATUSES:
            try:
                if mode == "every":
                    points.append(by_group.calibrate_every(rung, status))
                else:
                    points.append(calibrator.calibrate(rung, status))
            except CalibrationRefused as refusal:
                refusals.append((target, status, refusal))
            if mode == "own":
                own, missing = by_group.calibrate_own(rung, status)
                of_groups += own
                reasons += missing
    reasons = describe_refusals(refusals) + reasons
    if not points and not of_groups:
        raise CalibrationRefused(" ".join(dict.fromkeys(reasons)))
    general = [calibration.point for calibration in points]
    active = {endpoint: choose_point(general, endpoint, costs) for endpoint in overall}
    reasons += list_unusable(general)
    tradeoffs = measure_tradeoffs(overall, general, confidence, track)
    reasons = list(dict.fromkeys(reasons))
    notes = overall["match"].sources.notes
    return Ladder([*points, *of_groups], active, costs.describe(general), reasons, tradeoffs, notes)
