"""What the overview says first, in plain words: what the service promises, and whether that holds now."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from api_schemas.http.monitoring import Alert
from api_schemas.operating_point import OperatingPoint
from api_schemas.report import Report
from api_schemas.tradeoff import Tradeoff
from decision.decider import BEYOND_PROOF
from decision.describe_point import count_of_thousand, get_shown_rates
from evaluation.report.audit_text import list_groups
from evaluation.report.headline import format_percent, format_small
from service.models.loaded_model import LoadedModel
from service.monitoring.day_summary import DaySummary


@dataclass(frozen=True)
class ServiceStory:
    """Sentences about a service, the calm ones and those that need somebody.

    Attributes:
        promise: what the active points do, a sentence each.
        day: the last 24 hours.
        waiting: unknown queries that are kept and have no name yet; empty without any.
        beyond: what is no longer covered by its proof.
        alerts: those that fire.
    """

    promise: list[str] = field(default_factory=list)
    day: str = ""
    waiting: str = ""
    beyond: list[str] = field(default_factory=list)
    alerts: tuple[Alert, ...] = ()


def describe_service(model: LoadedModel, day: DaySummary | None, waiting: int) -> ServiceStory:
    """The story of a model that answers now; ``waiting`` unknown queries have no name yet."""
    return ServiceStory(
        promise=_describe_promise(model),
        day=_describe_day(day),
        waiting=_describe_waiting(waiting),
        beyond=_list_beyond(model),
        alerts=() if day is None else day.alerts,
    )


def describe_consistency(report: Report) -> str | None:
    """OPIS with its interval and noise floor in one sentence; None where there is none."""
    found = report.consistency
    if found.opis is None:
        return None
    if found.opis_debiased is None:
        return (
            f"OPIS {format_small(found.opis)}, where 0 means that every class is served alike; classes are "
            "too small to tell how much of it is chance."
        )
    between = ""
    if found.opis_ci is not None:
        low, high = (format_small(end) for end in found.opis_ci)
        between = f" (95 % interval {low} to {high})"
    value = format_small(found.opis_debiased)
    sentence = f"OPIS {value}{between}, where 0 means that every class is served alike"
    if found.noise_floor is None:
        return f"{sentence}."
    return (
        f"{sentence}; the {format_small(found.noise_floor)} that chance alone would show in classes of this "
        "size, the noise floor, are taken off already."
    )


def list_group_rows(
    report: Report, tradeoff: Tradeoff | None, threshold: float | None
) -> list[tuple[str, ...]]:
    """A row for each group, ``GROUP_HEAD``: of the columns that a target is held in, else of those with few
    values, at the threshold that decides."""
    if report.groups or tradeoff is None or threshold is None:
        return list_groups(report.groups)
    at = min(bisect_left(tradeoff.thresholds, threshold), len(tradeoff.thresholds) - 1)
    curves = ("far", "frr", "fpir", "fnir")
    return [
        (
            f"{group.column} = {group.value}",
            f"{group.n_items:,}",
            f"{group.n_classes:,}",
            *(
                format_percent(None if (curve := getattr(group, name)) is None else curve[at])
                for name in curves
            ),
            format_small(None),
        )
        for group in tradeoff.groups
    ]


def _describe_promise(model: LoadedModel) -> list[str]:
    sentences = []
    if model.active_match is not None:
        words = "strangers", "are matched to someone", "known queries"
        sentences.append(_describe_rates(model.active_match, *words))
    if model.active_verify is not None:
        words = "pairs that differ", "are taken to be the same", "pairs that are the same"
        sentences.append(_describe_rates(model.active_verify, *words))
    return sentences


def _describe_rates(point: OperatingPoint, strangers: str, wrong: str, known: str) -> str:
    rates = get_shown_rates(point)
    parts = []
    if rates.false is not None:
        most = "" if rates.at_most is None else f", at most {count_of_thousand(rates.at_most)},"
        parts.append(f"Of 1,000 {strangers} about {count_of_thousand(rates.false)}{most} {wrong}")
    if rates.missed is not None:
        parts.append(f"of 1,000 {known}, {count_of_thousand(rates.missed)} are missed")
    return f"{'; '.join(parts)}." if parts else f"{point.name} decides; its rates are not known."


def _describe_day(day: DaySummary | None) -> str:
    if day is None:
        return "Decisions are not counted yet."
    if not day.decisions and not day.verifications:
        return "Last 24 hours: no decision."
    parts = []
    if day.decisions:
        unknown = "" if day.share_unknown is None else f", {format_percent(day.share_unknown)} unknown"
        parts.append(f"{day.decisions:,} decision{'s' if day.decisions != 1 else ''}{unknown}")
    if day.verifications:
        parts.append(f"{day.verifications:,} pairs verified")
    readings = {
        "scores": {True: "scores distributed as calibrated", False: "scores not distributed as calibrated"},
        "drift": {True: "drift", False: "no drift"},
    }
    for name, value in (("scores", day.scores_as_calibrated), ("drift", day.has_drift)):
        if value is not None:
            parts.append(readings[name][value])
    if day.scores_as_calibrated is None and day.has_drift is None:
        parts.append("too few to compare with the calibration")
    return f"Last 24 hours: {', '.join(parts)}."


def _describe_waiting(waiting: int) -> str:
    if not waiting:
        return ""
    return f"{waiting:,} unknown quer{'ies wait' if waiting > 1 else 'y waits'} to be named."


def _list_beyond(model: LoadedModel) -> list[str]:
    point = model.active_match
    if point is None or point.target.gallery is None:
        return []
    proven, held = point.target.gallery.items, model.gallery.n_items
    if held <= BEYOND_PROOF * proven:
        return []
    return [
        f"The gallery holds {held:,} items, {held / proven:.1f} times the {proven:,} that {point.name} is "
        f"{'measured' if point.status != 'proven' else 'proven'} for: strangers are matched more often than "
        "said above. Make a bundle for this gallery (limen export, limen build), or choose a higher "
        "threshold."
    ]
