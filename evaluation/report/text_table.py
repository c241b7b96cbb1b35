"""A report as a few lines for the terminal."""

from __future__ import annotations

from itertools import groupby

from api_schemas.report import Report
from evaluation.report.headline import (
    HEADLINES,
    SECTIONS,
    WORST_HEAD,
    format_number,
    format_percent,
    format_score,
    select_worst_classes,
)

WORST = 5


def format_table(report: Report) -> str:
    """The headline figures, one a line, and the classes that one threshold serves worst."""
    counts = report.counts
    lines = [
        f"{counts.items:,} items of {counts.classes:,} classes ({report.split}), "
        f"score: {format_score(report.score)}; "
        f"{counts.genuine_pairs:,} genuine and {counts.impostor_pairs:,} impostor pairs",
        "",
    ]
    for section, headlines in groupby(HEADLINES, key=lambda headline: headline.section):
        if getattr(report, section) is None:
            continue
        gallery = None if report.identification is None else report.identification.gallery
        lines.append(SECTIONS[section].format(gallery=gallery))
        for headline in headlines:
            interval = headline.format_interval(report)
            lines.append(f"  {headline.title:<31} {headline.format(report):<9}  {interval}".rstrip())
        lines.append("")
    lines += _format_worst(report)
    if report.beside_teacher:
        lines += ["Beside the teacher", f"  {'':<24}{'teacher':>9}{'student':>9}"]
        lines += [
            f"  {row.name:<24}{format_number(row.a):>9}{format_number(row.b):>9}"
            for row in report.beside_teacher
        ]
        lines.append("")
    lines += [f"Note: {reason}" for reason in report.reasons]
    return "\n".join(lines).rstrip() + "\n"


def _format_worst(report: Report) -> list[str]:
    worst = [WORST_HEAD, *(row.format() for row in select_worst_classes(report, WORST))]
    if len(worst) == 1:
        return []
    reach = report.consistency.calibration_range
    ends = (
        "" if reach is None else f", means over FAR {' to '.join(format_percent(far) for far in reach.far)}"
    )
    width = max(len(label) for label, *_ in worst)
    rows = [
        f"  {label:<{width}}  {items:>5}  {far:>6}  {frr:>6}  {utility:>7}"
        for label, items, far, frr, utility in worst
    ]
    return [f"Worst classes{ends}", *rows, ""]
