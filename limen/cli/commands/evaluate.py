"""``limen evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api_schemas.manifest import REPORT_FILE
from api_schemas.report import Report
from common.console import say, track
from common.errors import ConfigError, InputError
from decision.operating_point_files import read_point
from decision.scorers import CosineScorer
from embeddings.files import read_embeddings
from limen.cli.options import ExcludeSame, FoldLabels, UnknownLabel
from limen.pipeline.evaluation_source import is_bundle, open_source
from limen.pipeline.label_options import apply_label_options


def evaluate(
    source: Annotated[
        Path, typer.Argument(help="A run folder, a bundle, or an embeddings file (.npz, .parquet).")
    ],
    unknown: Annotated[
        Path | None, typer.Option(help="Embeddings of queries whose classes are not in the gallery.")
    ] = None,
    gallery: Annotated[
        Path | None, typer.Option(help="Embeddings of the gallery; SOURCE is then the queries.")
    ] = None,
    exclude_same: ExcludeSame = None,
    unknown_label: UnknownLabel = None,
    fold_labels: FoldLabels = False,
    operating_point: Annotated[Path | None, typer.Option(help="Score and mark this operating point.")] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="Column whose values are the groups of diagnosis.json; needs --out; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.json, diagnosis.json, report.html and plots.")
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the report alone, as JSON, on stdout.")
    ] = False,
) -> None:
    """Measure retrieval, verification, identification and how evenly one threshold holds over classes."""
    from evaluation.report.text_table import format_table
    from evaluation.report.write_report import write_report

    if group and not out:
        raise ConfigError("--group needs --out FOLDER: groups are written to diagnosis.json.")
    saved = read_point(operating_point) if operating_point else None
    scorer = saved.scorer if saved else CosineScorer()
    references = read_embeddings(gallery) if gallery else None
    unknown_queries = read_embeddings(unknown) if unknown else None
    opened = None if is_bundle(source) else open_source(source)
    for path, items in ((unknown, unknown_queries), (gallery, references)):
        if opened is not None and items is not None and items.dimension != opened.items.dimension:
            raise InputError(
                f"{path} has vectors of {items.dimension} numbers, {source} of {opened.items.dimension}: "
                "`limen embed RUN DATA --out FILE` makes them with a run's network."
            )
    if opened is not None:
        opened, unknown_queries, references = apply_label_options(
            opened,
            fold=fold_labels,
            unknown_labels=unknown_label or [],
            unknown=unknown_queries,
            gallery=references,
        )
    elif exclude_same or unknown_label or fold_labels:
        raise ConfigError(
            f"{source} is a bundle, whose report was measured when it was made: --exclude-same, "
            "--unknown-label and --fold-labels need a run or an embeddings file."
        )
    if opened is None:
        report = Report.load(source / REPORT_FILE)
    else:
        from evaluation.evaluate import evaluate_embeddings

        report = evaluate_embeddings(
            opened.items,
            gallery=references,
            unknown=unknown_queries,
            exclude_same=exclude_same,
            scorer=scorer,
            model_hash=opened.model_hash,
            split=opened.split,
            track=track,
        )
    typer.echo(report.to_json() if json_ else format_table(report), nl=not json_)
    if out:
        diagnosis = None
        if opened is not None:
            from evaluation.diagnose import diagnose

            diagnosis = diagnose(
                opened.items,
                gallery=references,
                training=opened.training,
                exclude_same=exclude_same,
                columns=group or [],
                scorer=scorer,
                probability=saved.point.probability if saved else None,
                model_hash=opened.model_hash,
                split=opened.split,
                track=track,
            )
        write_report(report, out, [saved.point] if saved else [], diagnosis)
        say(f"Wrote report.json, report.html and plots to {out}.")
