"""The model card: what a model is, what it was measured to do, and where it should not be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from api_schemas.config import Monitor, RampConfig
from api_schemas.operating_point import OperatingPoint
from api_schemas.report import Report
from evaluation.report.text_table import worst_classes
from training.run_folder.run_folder import Run

WORST = 10


def build_model_card(run: Run, report: Report, points: Sequence[OperatingPoint]) -> str:
    """Markdown for the bundle's ``README.md``; every number comes from the run, the report or a point."""
    sections = [
        f"# {run.config.name}",
        "An embedding network that maps an input to a unit vector; items of one class lie close together. "
        "Made with Limen; the decision rests on the operating points below, never on a bare similarity.",
        "## Data",
        _data(run, report),
        "## Network and training",
        _training(run),
        "## Figures on the test part",
        _figures(report),
        "## Operating points",
        _points(points),
        "## Worst classes",
        _worst(report),
        "## Intended use and limits",
        _limits(report, points),
        "## Configuration",
        f"```yaml\n{run.config.to_yaml()}```",
    ]
    return "\n\n".join(sections) + "\n"


def _data(run: Run, report: Report) -> str:
    data = run.config.data
    source = f"builtin: {data.builtin}" if data.builtin else ", ".join(str(path) for path in data.paths)
    lines = [f"- source: {source} ({data.kind}); split by {data.split.by}, seed {data.split.seed}"]
    if data.test_paths:
        lines.append(f"- separate test set: {', '.join(str(path) for path in data.test_paths)}")
    for name in ("train", "validation", "test"):
        items = run.embeddings(name)
        if items is not None:
            lines.append(f"- {name}: {len(items)} items of {len(items.classes)} classes")
    lines.append(
        f"- measured on: {report.split}, {report.counts.items} items, {report.counts.classes} classes"
    )
    return "\n".join(lines)


def _training(run: Run) -> str:
    config = run.config
    losses = " + ".join(f"{_weight(spec.weight)} x {spec.name}" for spec in config.loss)
    shape = " x ".join(map(str, run.preprocessing().shape))
    return "\n".join(
        [
            f"- backbone {config.model.backbone}, input {shape}, {config.model.embedding_dim} numbers out",
            f"- loss {losses}; {config.sampler.batch_size} items a batch",
            f"- {run.train_seconds:.0f} s of training; the weights of epoch {run.best_epoch}, the best by "
            f"validation {_monitored(config.evaluation.monitor)}",
        ]
    )


def _monitored(monitor: Monitor | Mapping[Monitor, float]) -> str:
    if isinstance(monitor, str):
        return monitor
    return " + ".join(f"{weight:g} x {name}" for name, weight in monitor.items())


def _figures(report: Report) -> str:
    named = {
        "recall@1": report.retrieval.recall_at_1,
        "MAP@R": report.retrieval.map_at_r,
        "EER": report.verification.eer,
        "AUC": report.verification.auc,
        **{f"TAR at FAR {far}": value for far, value in report.verification.tar_at_far.items()},
        "OPIS": report.consistency.opis,
        "OPIS, debiased": report.consistency.opis_debiased,
    }
    if (found := report.identification) is not None:
        named |= {f"FNIR at FPIR {fpir}": value for fpir, value in found.fnir_at_fpir.items()}
    rows = [f"| {name} | {_number(value)} |" for name, value in named.items()]
    head = [f"Score: {report.score.kind}.\n", "| figure | value |", "| --- | --- |"]
    return "\n".join([*head, *rows, *(f"\n{reason}" for reason in report.reasons)])


def _points(points: Sequence[OperatingPoint]) -> str:
    if not points:
        return "None: the data could not support one, so the service decides nothing; search works."
    lines = []
    for point in points:
        proof = point.proof
        seen = "not proven on other classes"
        if proof is not None:
            kept = {"FAR": proof.far, "FRR": proof.frr, "FPIR": proof.fpir, "FNIR": proof.fnir}
            shown = ", ".join(f"{name} {_number(value)}" for name, value in kept.items() if value is not None)
            seen = f"on {proof.n_classes} classes: {shown}"
        lines.append(f"- **{point.name}**: accepted iff {point.score.kind} >= {point.threshold:.6f}; {seen}")
    return "\n".join(lines)


def _worst(report: Report) -> str:
    rows = worst_classes(report, WORST)
    if not rows:
        return "Not measured: see the reasons above."
    lines = [
        f"| {label} | {items} | {_number(far)} | {_number(frr)} | {utility:.3f} |"
        for label, items, far, frr, utility in rows
    ]
    head = ["| class | items | FAR | FRR | utility |", "| --- | --- | --- | --- | --- |"]
    note = "\nMeans over the calibration range, FAR 1 % to 10 %: one threshold serves these classes worst."
    return "\n".join([*head, *lines, note])


def _limits(report: Report, points: Sequence[OperatingPoint]) -> str:
    sizes = [point.target.gallery for point in points if point.target.gallery is not None]
    largest = max((size.items for size in sizes), default=None)
    proven = f"A search is proven for galleries up to {largest} items. " if largest else ""
    return (
        f"For inputs like those it was measured on. {proven}The figures hold for classes drawn like the "
        f"{report.counts.classes} test classes; another domain, camera or population needs its own "
        "calibration before a decision may rest on it. It was not measured for decisions about people."
    )


def _number(value: float | None) -> str:
    return "not given" if value is None else f"{value:.4g}"


def _weight(weight: float | RampConfig) -> str:
    if isinstance(weight, float):
        return f"{weight:g}"
    return f"({weight.start:g} to {weight.end:g})"
