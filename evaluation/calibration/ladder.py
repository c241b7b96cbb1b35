"""A ladder of operating points, each rung estimated and, where the classes carry it, proven; which to take.

Trials and pairs are scored once for all rungs. The point that decides is the one with the least expected cost
of a query, at a stated share of unknown queries and a stated cost of a false match in misses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import log

from api_schemas.operating_point import (
    AggregateChoice,
    OperatingPoint,
    ScoreChoice,
    Status,
    Target,
    TargetKind,
)
from api_schemas.tradeoff import Tradeoff
from common.errors import CalibrationRefused, InputError
from common.progress import Track, silent
from decision.describe_point import get_shown_rates
from decision.targets import Endpoint, get_endpoint
from evaluation.calibration.calibrate import Calibration, Calibrator, StatusChoice
from evaluation.calibration.sets.sources import CalibrationSources
from evaluation.calibration.tradeoff.measure_tradeoff import measure_tradeoffs

FPIR_RUNGS = (0.001, 0.003, 0.01, 0.03, 0.1)
FAR_RUNGS = (0.0001, 0.001, 0.01)
STATUSES: tuple[StatusChoice, ...] = ("proven", "estimated")
USUAL = 0.01  # the target where nothing is known of what is missed
USEFUL = 0.5  # of the known queries that a usable point keeps


@dataclass(frozen=True)
class ExpectedCosts:
    """What an answer costs on average: ``false_match`` in units of a missed known query.

    ``unknown_share`` is the share of queries that are not in the gallery (for 1:1, of claims that are false);
    with ``proven_only`` no estimated point is taken.
    """

    false_match: float = 5.0
    unknown_share: float = 0.5
    proven_only: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.unknown_share < 1:
            raise InputError(
                f"The share of unknown queries must be above 0 and below 1, found {self.unknown_share:g}."
            )
        if not self.false_match > 0:
            raise InputError(f"The cost of a false match must be above 0, found {self.false_match:g}.")

    def compute(self, point: OperatingPoint) -> float | None:
        """The expected cost of a query; None where a rate is not known."""
        rates = get_shown_rates(point)
        if rates.false is None or rates.missed is None:
            return None
        return self.unknown_share * self.false_match * rates.false + (1 - self.unknown_share) * rates.missed

    def describe(self, points: Sequence[OperatingPoint]) -> str:
        """In words, what decides between these points."""
        if all(self.compute(point) is None for point in points):
            return (
                f"its target, as near to {100 * USUAL:g} % as there is: no class has two items that could be "
                "compared, so that nothing is known of what a threshold misses"
            )
        return (
            f"least expected cost with {self.unknown_share:.0%} of the queries unknown and one false match "
            f"costing {self.false_match:g} misses{', among proven points' if self.proven_only else ''}"
        )


@dataclass(frozen=True)
class Ladder:
    """Points, strict ones first, proven before estimated.

    Attributes:
        active: by endpoint, the id of the point that decides; None where there is none.
        choice: why these were taken.
        reasons: sentences about rungs that are missing or hardly usable.
        tradeoffs: by endpoint, the rates of every other threshold.
        notes: what was done to the data of 1:N points, what is assumed, and why the nearest item decides.
    """

    points: list[Calibration]
    active: dict[Endpoint, str | None]
    choice: str
    reasons: list[str] = field(default_factory=list)
    tradeoffs: list[Tradeoff] = field(default_factory=list)
    notes: tuple[str, ...] = ()


def calibrate_ladder(
    sources: CalibrationSources,
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
    """Every rung of the ladder, and the points with the least expected cost.

    Args:
        sources: the sets.
        score: the kind of score; ``auto`` takes the more consistent one, see ``choose_score``.
        aggregate: the rule of a 1:N search; ``auto`` chooses class evidence where it is better.
        costs: what decides between the rungs.
        targets: the rungs; the usual ones unless given.

    Raises:
        CalibrationRefused: no rung can be estimated; the sentence says what is missing.
        InputError: sets have another dimension or share classes.
    """
    costs = costs or ExpectedCosts()
    calibrators = prepare_calibrators(sources, score, aggregate, model_hash, seed=seed, track=track)
    wanted = list(targets) if targets is not None else list_rungs(confidence)
    calibrators["verify"].prepare_tail(wanted)
    points: list[Calibration] = []
    refusals: list[tuple[Target, StatusChoice, CalibrationRefused]] = []
    stricter: dict[tuple[TargetKind, StatusChoice], Calibration] = {}
    for target in track(wanted, "operating points", len(wanted)):
        calibrator = calibrators[get_endpoint(target)]
        rung = calibrator.complete(target)
        for status in STATUSES:
            below = stricter.get((target.kind, status))
            try:
                found = keep_order(calibrator.calibrate(rung, status), below)
            except CalibrationRefused as refusal:
                refusals.append((target, status, refusal))
                continue
            points.append(found)
            stricter[target.kind, status] = found
    if not points:
        raise refusals[-1][2]
    made = [calibration.point for calibration in points]
    active = {endpoint: choose_point(made, endpoint, costs) for endpoint in calibrators}
    reasons = describe_refusals(refusals) + list_unusable(made)
    tradeoffs = measure_tradeoffs(calibrators, made, confidence, track)
    notes = calibrators["match"].sources.notes
    return Ladder(points, active, costs.describe(made), reasons, tradeoffs, notes)


def describe_refusals(refusals: Sequence[tuple[Target, StatusChoice, CalibrationRefused]]) -> list[str]:
    """A sentence for each cause, with the rungs that it refuses."""
    rungs: dict[tuple[StatusChoice, str], list[str]] = {}
    for target, status, refusal in refusals:
        name = f"{target.kind} {100 * (target.value or 0):g} %"
        rungs.setdefault((status, str(refusal)), []).append(name)
    return [f"{', '.join(names)}, {status}: {cause}" for (status, cause), names in rungs.items()]


def keep_order(made: Calibration, stricter: Calibration | None) -> Calibration:
    """A rung, or the stricter one before it under its name where that has the lower threshold.

    What holds a strict target holds a looser one: with few classes the tails of two rungs start at different
    scores, and the looser one may come out as the stricter.
    """
    if stricter is None or (point := stricter.point).threshold >= made.point.threshold:
        return made
    is_looser = (made.point.target.value or 0.0) > (point.target.value or 0.0)
    if not is_looser:
        return made
    held = point.with_changes(name=made.point.name, target=made.point.target)
    return replace(stricter, point=held)


def prepare_calibrators(
    sources: CalibrationSources,
    score: ScoreChoice,
    aggregate: AggregateChoice,
    model_hash: str,
    *,
    seed: int = 0,
    track: Track = silent,
) -> dict[Endpoint, Calibrator]:
    """What chooses thresholds for 1:1 and for 1:N: one and the same where the nearest item decides both."""
    verify = Calibrator.prepare_pairs(sources, score, model_hash, seed=seed, track=track)
    match = verify.search_by(aggregate)
    is_one = (match.aggregate, match.vectors) == (verify.aggregate, verify.vectors)
    return {"verify": match if is_one else verify, "match": match}  # the latter knows why the rule is its own


def list_rungs(confidence: float = 0.95) -> list[Target]:
    """The usual rungs, strict ones first: FAR, then FPIR."""
    return [
        *(Target(kind="far", value=far, confidence=confidence) for far in FAR_RUNGS),
        *(Target(kind="fpir", value=fpir, confidence=confidence) for fpir in FPIR_RUNGS),
    ]


def choose_point(points: Sequence[OperatingPoint], endpoint: Endpoint, costs: ExpectedCosts) -> str | None:
    """The id of the point of an endpoint with the least expected cost; of equal ones a proven one.

    Where no point's cost is known (no class has two items) it is the estimated one nearest to USUAL.
    """
    candidates = [
        point
        for point in points
        if get_endpoint(point.target) == endpoint and (point.status == "proven" or not costs.proven_only)
    ]
    if not candidates:
        return None
    known = [(cost, point) for point in candidates if (cost := costs.compute(point)) is not None]
    if not known:
        return min(candidates, key=lambda point: (_measure_from_usual(point), point.status == "proven")).id
    return min(known, key=lambda pair: (pair[0], pair[1].status != "proven"))[1].id


def _measure_from_usual(point: OperatingPoint) -> float:
    return abs(log((point.target.value or 1.0) / USUAL))


def find_usable(points: Sequence[OperatingPoint], endpoint: Endpoint) -> OperatingPoint | None:
    """The strictest point of an endpoint that keeps half of the known queries; None if none does."""
    for point in sorted(points, key=lambda point: point.target.value or 1.0):
        missed = get_shown_rates(point).missed
        if get_endpoint(point.target) == endpoint and missed is not None and missed <= 1 - USEFUL:
            return point
    return None


def list_unusable(points: Sequence[OperatingPoint]) -> list[str]:
    """A sentence an endpoint and status with points that turn away most known queries, naming one that does
    not: the strictest point that keeps half of them."""
    worst: dict[tuple[Endpoint, Status], list[OperatingPoint]] = {}
    for point in points:
        missed = get_shown_rates(point).missed
        if missed is not None and missed > 1 - USEFUL:
            worst.setdefault((get_endpoint(point.target), point.status), []).append(point)
    sentences = []
    for (endpoint, _), unusable in worst.items():
        usable = find_usable(points, endpoint)
        instead = f"; {usable.name} is the strictest point that keeps half of them" if usable else ""
        names = ", ".join(point.name for point in unusable)
        verb = "turn" if len(unusable) > 1 else "turns"
        least = min(get_shown_rates(point).missed or 0.0 for point in unusable)
        sentences.append(f"{names} {verb} away {100 * least:.0f} % of known queries or more{instead}.")
    return sentences
