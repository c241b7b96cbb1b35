"""The model card: data, network, figures, operating points and limits of a model, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from api_schemas.config import Monitor, RampConfig
from api_schemas.operating_point import OperatingPoint
from api_schemas.report import Report
from evaluation.report.headline import HEADLINES, WORST_HEAD, format_percent, select_worst_classes
from training.data.kinds import open_kind
from training.run_folder.run_folder import Run

N_WORST = 10


def build_model_card(run: Run, report: Report, points: Sequence[OperatingPoint]) -> str:
    """Markdown for the bundle's ``README.md``; every number comes from the run, the report or a point."""
    sections = [
        f"# {run.config.name}",
        "An embedding network that maps an input to a unit vector; items of one class lie close together. "
        "Made with Limen; the decision rests on the operating points below, never on a bare similarity.",
        "## Data",
        _describe_data(run, report),
        "## Network and training",
        _describe_training(run),
        "## Figures on the test part",
        _describe_figures(report),
        "## Operating points",
        _describe_points(points),
        "## Worst classes",
        _describe_worst(report),
        "## Intended use and limits",
        _describe_limits(report, points),
        "## Configuration",
        f"```yaml\n{run.config.to_yaml()}```",
    ]
    return "\n\n".join(sections) + "\n"


def _describe_data(run: Run, report: Report) -> str:
    data = run.config.data
    source = open_kind(data).source
    lines = [f"- source: {source} ({data.kind}); split by {data.split.by}, seed {data.split.seed}"]
    if data.test_paths:
        lines.append(f"- separate test set: {', '.join(str(path) for path in data.test_paths)}")
    for name in ("train", "validation", "test"):
        items = run.load_embeddings(name)
        if items is not None:
            lines.append(f"- {name}: {len(items)} items of {len(items.classes)} classes")
    lines.append(
        f"- measured on: {report.split}, {report.counts.items} items, {report.counts.classes} classes"
    )
    return "\n".join(lines)


def _describe_training(run: Run) -> str:
    config = run.config
    losses = " + ".join(f"{_format_weight(spec.weight)} x {spec.name}" for spec in config.loss)
    return "\n".join(
        [
            f"- backbone {config.model.backbone}, input {run.load_preprocessing().describe_shape()}, "
            f"{config.model.embedding_dim} numbers out",
            f"- loss {losses}; {config.sampler.batch_size} items a batch",
            f"- {run.train_seconds:.0f} s of training; the weights of epoch {run.best_epoch}, the best by "
            f"validation {_describe_monitor(config.evaluation.monitor)}",
        ]
    )


def _describe_monitor(monitor: Monitor | Mapping[Monitor, float]) -> str:
    if isinstance(monitor, str):
        return monitor
    return " + ".join(f"{weight:g} x {name}" for name, weight in monitor.items())


def _describe_figures(report: Report) -> str:
    shown = [headline for headline in HEADLINES if getattr(report, headline.section) is not None]
    rows = [f"| {headline.title} | {headline.format(report)} |" for headline in shown]
    head = [f"Score: {report.score.kind}.\n", "| figure | value |", "| --- | --- |"]
    return "\n".join([*head, *rows, *(f"\n{reason}" for reason in report.reasons)])


def _describe_points(points: Sequence[OperatingPoint]) -> str:
    if not points:
        return "None: the data could not support one, so the service decides nothing; search works."
    lines = []
    for point in points:
        proof, evidence = point.proof, "not proven on other classes"
        if proof is not None:
            rates = {"FAR": proof.far, "FRR": proof.frr, "FPIR": proof.fpir, "FNIR": proof.fnir}
            shown = [f"{name} {format_percent(rate)}" for name, rate in rates.items() if rate is not None]
            evidence = f"on {proof.n_classes} classes: {', '.join(shown)}"
        lines.append(
            f"- **{point.name}**: accepted iff {point.score.kind} >= {point.threshold:.6f}; {evidence}"
        )
    return "\n".join(lines)


def _describe_worst(report: Report) -> str:
    worst = select_worst_classes(report, N_WORST)
    if not worst:
        return "Not measured: see the reasons above."
    rows = [WORST_HEAD, ["---"] * len(WORST_HEAD), *(row.format() for row in worst)]
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    note = "\nMeans over the calibration range, FAR 1 % to 10 %: one threshold serves these classes worst."
    return "\n".join([*lines, note])


def _describe_limits(report: Report, points: Sequence[OperatingPoint]) -> str:
    sizes = [point.target.gallery for point in points if point.target.gallery is not None]
    largest = max((size.items for size in sizes), default=None)
    proven = f"A search is proven for galleries up to {largest} items. " if largest else ""
    return (
        f"For inputs like those it was measured on. {proven}The figures hold for classes drawn like the "
        f"{report.counts.classes} test classes; another domain, camera or population needs its own "
        "calibration before a decision may rest on it. It was not measured for decisions about people."
    )


def _format_weight(weight: float | RampConfig) -> str:
    if isinstance(weight, float):
        return f"{weight:g}"
    return f"({weight.start:g} to {weight.end:g})"
