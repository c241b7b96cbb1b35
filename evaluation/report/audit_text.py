"""An audit and rates by group in words and tables, for the terminal and for pages."""

from __future__ import annotations

from collections.abc import Sequence

from api_schemas.report import Audit, GroupRates, Report, ThresholdRates
from decision.targets import Endpoint
from evaluation.report.headline import NOT_GIVEN, format_number, format_percent, format_small

RATES = ("far", "frr", "fpir", "fnir")
MEANINGS = {
    "far": "pairs of two classes that are accepted",
    "frr": "pairs of one class that are rejected",
    "fpir": "unknown queries that are matched to someone",
    "fnir": "known queries that are missed or matched to someone else",
}
UNITS = {"similarity": "cosine similarity >=", "cosine": "cosine distance <=", "l2": "L2 distance <="}
GROUP_HEAD = ("group", "items", "classes", "FAR", "FRR", "FPIR", "FNIR", "OPIS")
GALLERY_HEAD = ("classes", "items", "FPIR", "at most")
INSTEAD = {"far_1": ("FAR 1 %", "FRR"), "fpir_1": ("FPIR 1 %", "FNIR")}


def format_rate(rates: ThresholdRates, name: str) -> str:
    """A rate with its interval: 1.2 % (0.8 to 1.9 %)."""
    value, ends = getattr(rates, name), getattr(rates, f"{name}_ci")
    if value is None or ends is None:
        return format_percent(value)
    return f"{format_percent(value)} ({100 * ends[0]:.3g} to {100 * ends[1]:.3g} %)"


def format_threshold(audit: Audit) -> str:
    """The threshold as it was given."""
    return f"{UNITS[audit.distance]} {audit.threshold:g}"


def list_rates(audit: Audit) -> list[tuple[str, str, str]]:
    """Name, value with interval, and meaning of each rate."""
    return [(name.upper(), format_rate(audit, name), MEANINGS[name]) for name in RATES]


def list_instead(audit: Audit) -> list[str]:
    """A sentence for each target: the threshold that would keep it, and what it would miss."""
    sentences = []
    for key, other in audit.instead.items():
        target, missed = INSTEAD[key]
        if other is None:
            sentences.append(f"{target}: no threshold can be named; the notes say why.")
            continue
        sentences.append(
            f"{target} is kept by {UNITS[audit.distance]} {other.threshold:.4f} ({other.status}): "
            f"{target.split()[0]} {format_percent(other.rate)}, at most {format_percent(other.rate_upper)}; "
            f"{missed} {format_percent(other.missed)}."
        )
    return sentences


def list_groups(groups: Sequence[GroupRates]) -> list[tuple[str, ...]]:
    """A row for each group, ``GROUP_HEAD``."""
    return [
        (
            f"{group.column} = {group.value}",
            f"{group.n_items:,}",
            f"{group.n_classes:,}",
            *(format_rate(group, name) for name in RATES),
            NOT_GIVEN if group.opis is None else format_small(group.opis),
        )
        for group in groups
    ]


def describe_worst_group(groups: Sequence[GroupRates], endpoint: Endpoint) -> list[str]:
    """For each column, which group has the highest FPIR or FAR, against the lowest."""
    name = "fpir" if endpoint == "match" else "far"
    sentences = []
    for column in dict.fromkeys(group.column for group in groups):
        measured = [
            (rate, group)
            for group in groups
            if group.column == column and (rate := getattr(group, name)) is not None
        ]
        if len(measured) < 2:
            continue
        (high, worst), (low, best) = max(measured, key=_get_rate), min(measured, key=_get_rate)
        if high == low:
            continue
        times = f", {high / low:.1f} times as many" if low else ""
        sentences.append(
            f"Most false matches by {column}: {worst.value} with {name.upper()} {format_rate(worst, name)}, "
            f"fewest: {best.value} with {format_rate(best, name)}{times}."
        )
    return sentences


def _get_rate(pair: tuple[float, GroupRates]) -> float:
    return pair[0]


def list_galleries(report: Report) -> list[tuple[str, str, str, str]]:
    """FPIR of the threshold by size of gallery, ``GALLERY_HEAD``."""
    rows = [] if report.identification is None else report.identification.fpir_by_gallery
    return [
        (f"{row.classes:,}", f"{row.items:,}", format_percent(row.fpir), format_percent(row.fpir_upper))
        for row in rows
    ]


def format_decisions(report: Report) -> str:
    """The audit, the groups, how FPIR grows and the probability of answers, as far as there are any."""
    lines: list[str] = []
    audit = report.audit
    if audit is not None:
        lines.append(f"The threshold: {format_threshold(audit)} ({audit.confidence:.0%} intervals)")
        lines += [f"  {name:<5} {value:<32} {meaning}" for name, value, meaning in list_rates(audit)]
        lines += ["", "Instead", *(f"  {sentence}" for sentence in list_instead(audit)), ""]
        if audit.worst:
            rows = [
                (row.label, f"{row.n_items:,}", format_percent(row.far), format_percent(row.frr),
                 format_number(row.utility))
                for row in audit.worst[:5]
            ]  # fmt: skip
            lines += ["Worst classes at this threshold"]
            lines += _align([("class", "items", "FAR", "FRR", "utility"), *rows])
            lines.append("")
    if report.groups:
        lines += [f"By group, at the threshold {report.groups[0].threshold:.4f} of the score"]
        lines += _align([GROUP_HEAD, *list_groups(report.groups)])
        for endpoint in ("match", "verify"):
            lines += [f"  {sentence}" for sentence in describe_worst_group(report.groups, endpoint)]
        for group in report.groups:
            if group.reason is not None:
                lines.append(f"  {group.column} = {group.value}: {group.reason}")
        lines.append("")
    galleries = list_galleries(report)
    if galleries:
        lines += ["FPIR of this threshold as the gallery grows", *_align([GALLERY_HEAD, *galleries]), ""]
    if report.answer is not None:
        answer = report.answer
        lines.append(
            f"Probability of an answer: off by {format_percent(answer.ece)} on average (ECE), log loss "
            f"{format_number(answer.log_loss)}, with {answer.unknown_share:.0%} of the queries unknown"
        )
    return "\n".join(lines).rstrip() + "\n" if lines else ""


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of one table with the first column to the left, others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
