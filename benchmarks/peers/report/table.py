"""The figures as Markdown: a table a job, and one of all bars; written into a page between two markers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.jobs import JOBS
from benchmarks.peers.registry import ENGINES
from benchmarks.peers.report.figures import BARS, Spread, collect, compare, measure_bar
from benchmarks.peers.results import Record

BEGIN, END = "<!-- peers: written by python -m benchmarks.peers -->", "<!-- peers: end -->"


def format_number(value: float) -> str:
    """Three digits, thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def format_spread(spread: Spread, unit: str = "") -> str:
    """The median, and the range where there is one."""
    shown = format_number(spread.median) + (f" {unit}" if unit else "")
    if spread.rounds == 1:
        return shown
    return f"{shown} ({format_number(spread.least)} to {format_number(spread.most)})"


def write_job(records: Sequence[Record], job: str, size: str) -> str:
    """A row an engine, a column a case; the ratio is Limen's figure over the peer's, of the same rounds."""
    chosen = [record for record in records if (record["job"], record["size"]) == (job, size)]
    engines = [name for name in ENGINES if any(record["engine"] == name for record in chosen)]
    cases = list(dict.fromkeys(case for record in chosen for case in record["figures"]))
    about = JOBS[job]
    lines = [f"| {about.title}, {size} | {' | '.join(cases)} |", f"| {'--- | ' * (len(cases) + 1)}".strip()]
    for name in engines:
        cells = [_write_cell(records, job, size, name, case) for case in cases]
        lines.append(f"| {ENGINES[name].title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _write_cell(records: Sequence[Record], job: str, size: str, name: str, case: str) -> str:
    about = JOBS[job]
    values = collect(records, job, size, name, case, about.figure)
    if not values:
        return ""
    parts = [format_spread(Spread.of(list(values.values())), about.unit)]
    for figure, unit in about.also:
        other = collect(records, job, size, name, case, figure)
        if other:
            parts.append(f"{format_number(Spread.of(list(other.values())).median)} {unit}")
    ours = "limen-library" if ENGINES[name].title.endswith("in process") else "limen"
    reference = collect(records, job, size, ours, case, about.figure) or collect(
        records, job, size, "limen", case, about.figure
    )
    ratio = compare(reference, values)
    if ratio is not None and not ENGINES[name].is_ours:
        parts.append(f"**{format_spread(ratio, 'x')}**")
    return ", ".join(parts)


def write_bars(records: Sequence[Record], sizes: Sequence[str]) -> str:
    """A row a bar that was measured."""
    lines = ["| bar | size | ratio | must be | |", "| --- | --- | --- | --- | --- |"]
    for bar in BARS:
        for size in sizes:
            measured = measure_bar(records, bar, size)
            if measured is None:
                continue
            ratio, peer = measured
            against = f" against {ENGINES[peer].title if peer in ENGINES else peer}" if peer else ""
            name = f"{JOBS[bar.job].title}, {bar.case}, {bar.figure}: {ENGINES[bar.ours].title}{against}"
            met = "met" if bar.is_met(ratio.median) else "**missed**"
            lines.append(f"| {name} | {size} | {format_spread(ratio, 'x')} | {bar.describe()} | {met} |")
    return "\n".join(lines)


def write_tuning(tuned: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The recall that each engine was measured at."""
    lines = ["| recall@10, search width | " + " | ".join(tuned) + " |", "| --- | " + "--- | " * len(tuned)]
    for name in ENGINES:
        if any(name in by_name for by_name in tuned.values()):
            cells = [
                f"{by_name[name]['recall']:.3f}, {by_name[name]['effort']:.0f}" if name in by_name else ""
                for by_name in tuned.values()
            ]
            lines.append(f"| {ENGINES[name].title} | {' | '.join(cells)} |")
    return "\n".join(line.strip() for line in lines)


def write_occasions(measured: Mapping[str, str]) -> str:
    """When and where each job was measured."""
    by_occasion: dict[str, list[str]] = {}
    for name, about in measured.items():
        by_occasion.setdefault(about, []).append(name.removesuffix(", "))
    return "\n".join(f"- Measured on {about}: {'; '.join(names)}." for about, names in by_occasion.items())


def write_failures(failed: Mapping[str, Mapping[str, str]]) -> list[str]:
    """A sentence for each engine that did not go through with a job."""
    return [
        f"{ENGINES[engine].title if engine in ENGINES else engine} did not finish {name.removesuffix(', ')}."
        for name, by_engine in failed.items()
        for engine in by_engine
    ]


def write_scripts(records: Sequence[Record]) -> str:
    """From data to the first served decision: a row a data set and stack."""
    titles = ("wall time", "lines of user code", "known answered right", "unknown matched")
    lines = [f"| from data to the first served decision | {' | '.join(titles)} |", "| --- " * 5 + "|"]
    for name in dict.fromkeys(record["engine"] for record in records):
        chosen = [record for record in records if record["engine"] == name]
        seconds = Spread.of([record["figures"]["all"]["seconds"] for record in chosen])
        figures = chosen[-1]["figures"]["all"]
        rates = " | ".join(f"{figures[rate]:.3f}" for rate in ("right", "false"))
        lines.append(f"| {name} | {format_spread(seconds, 's')} | {figures['lines']:.0f} | {rates} |")
    return "\n".join(lines)


def write_section(results: Mapping[str, Any]) -> str:
    """All that was measured, as text between the markers."""
    records = results["records"]
    sizes = list(dict.fromkeys(record["size"] for record in records if record["job"] in JOBS))
    parts = [
        write_occasions(results["measured"]),
        ", ".join(dict.fromkeys(results["versions"].values())) + ".",
    ]
    parts += [*results["absent"], *write_failures(results["failed"])]
    if results["tuned"]:
        parts.append(write_tuning(results["tuned"]))
    parts += [
        write_job(records, job, size)
        for job in JOBS
        for size in sizes
        if any((record["job"], record["size"]) == (job, size) for record in records)
    ]
    scripts = [record for record in records if record["job"] == "first decision"]
    if scripts:
        parts.append(write_scripts(scripts))
    parts.append(write_bars(records, sizes))
    return "\n\n".join(parts)


def write_into(page: Path, section: str) -> None:
    """Replace what stands between the markers of a page."""
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(
            f"{page} has no place for the tables: put the lines {BEGIN} and {END} where they belong."
        )
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{section}\n\n{END}{after}")
