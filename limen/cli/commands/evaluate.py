"""``limen evaluate`` and ``opis``."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.choices import UNNAMED
from common.console import say, track
from common.errors import ConfigError, InputError
from common.progress import silent
from limen.cli.options import ExcludeSame, FoldLabels, UnknownLabel

if TYPE_CHECKING:
    from limen.pipeline.chosen_threshold import ChosenThreshold


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
    threshold: Annotated[
        float | None, typer.Option(help="Audit this threshold, which you have already, as it is.")
    ] = None,
    distance: Annotated[
        str | None,
        typer.Option(
            help="What --threshold is of: similarity (cosine, the usual one), cosine or l2 distance."
        ),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="Column whose values are groups, such as sites or cameras; repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for report.json, diagnosis.json, report.html and plots; with --threshold also a "
            "file that ends in .json, for the threshold as an operating point."
        ),
    ] = None,
    decides: Annotated[
        str | None,
        typer.Option(help="What the point of --threshold is for: verify (1:1) or match (1:N)."),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Name of the model, for embeddings without an encoder.")
    ] = UNNAMED,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the report alone, as JSON, on stdout.")
    ] = False,
) -> None:
    """Measure retrieval, verification, identification and how evenly one threshold holds over classes."""
    from api_schemas.manifest import REPORT_FILE
    from api_schemas.report import Report
    from decision.operating_point_files import read_point
    from decision.scorers import CosineScorer
    from embeddings.files import read_embeddings
    from evaluation.calibration.sets.two_models import split_by_role
    from evaluation.report.audit_text import format_decisions
    from evaluation.report.text_table import format_table
    from limen.pipeline.evaluation_source import is_bundle, is_run, open_source
    from limen.pipeline.label_options import apply_label_options

    chosen = _read_threshold(threshold, distance, decides, out, operating_point)
    saved = read_point(operating_point) if operating_point else None
    scorer = saved.scorer if saved else CosineScorer()
    references = read_embeddings(gallery, say) if gallery else None
    unknown_queries = read_embeddings(unknown, say) if unknown else None
    opened = None if is_bundle(source) else open_source(source, model)
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
    elif exclude_same or unknown_label or fold_labels or group or chosen:
        raise ConfigError(
            f"{source} is a bundle, whose report was measured when it was made: --threshold, --group, "
            "--exclude-same, --unknown-label and --fold-labels need a run or an embeddings file."
        )
    if opened is not None and opened.role_column is not None:
        queries, items_held = split_by_role(opened.items, opened.role_column)
        opened, references = replace(opened, items=queries), references or items_held
    made = None
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
        if saved or chosen or group:
            from limen.pipeline.measure_decisions import DecisionRequest, measure_decisions

            request = DecisionRequest(
                opened.items,
                references,
                unknown_queries,
                exclude_same,
                tuple(group or ()),
                opened.validation is not None,
                track,
            )
            report, made = measure_decisions(report, request, saved, chosen, opened.model_hash)
        if is_run(source) and references is None:
            from limen.pipeline.evaluation_source import open_run
            from limen.pipeline.two_models.beside_teacher import add_teacher

            report = add_teacher(report, open_run(source), track)
    text = format_table(report) + "\n" + format_decisions(report)
    typer.echo(report.to_json() if json_ else text.rstrip() + "\n", nl=not json_)
    if out and out.suffix == ".json":
        assert made is not None
        out.parent.mkdir(parents=True, exist_ok=True)
        made.save(out)
        say(f"Wrote the operating point {made.name} ({made.status} by hand) to {out}.")
    elif out:
        from evaluation.report.write_report import write_report

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


def _read_threshold(
    threshold: float | None,
    distance: str | None,
    decides: str | None,
    out: Path | None,
    operating_point: Path | None,
) -> ChosenThreshold | None:
    """The threshold to audit; raises ConfigError for options that do not go together."""
    from limen.pipeline.chosen_threshold import parse_chosen_threshold

    is_file = out is not None and out.suffix == ".json"
    if threshold is None:
        for name, given in (("--distance", distance), ("--decides", decides), (f"--out {out}", is_file)):
            if given:
                raise ConfigError(f"{name} goes with --threshold X: without it no threshold is audited.")
        return None
    if operating_point is not None:
        raise ConfigError("give either --threshold or --operating-point: each is a threshold to measure.")
    return parse_chosen_threshold(threshold, distance or "similarity", decides)


def opis(
    source: Annotated[Path, typer.Argument(help="A run folder, or an embeddings file (.npz, .parquet).")],
    exchange: Annotated[
        Path | None, typer.Option(help="Folder that all processes see, where there are several.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the figures and counts, as .npz.")] = None,
) -> None:
    """Measure OPIS over all pairs, in as many processes as a launcher starts: the same to the last bit.

    `torchrun --standalone --no-python --nproc-per-node 4 limen opis vectors.npz --exchange /tmp/opis`
    """
    import numpy as np

    from evaluation.pairs.pairs import arrange
    from evaluation.sharding.exchange import FolderExchange
    from evaluation.sharding.sharded_opis import measure_sharded_opis
    from limen.pipeline.evaluation_source import open_source

    process = FolderExchange.from_environment(os.environ, exchange)
    is_first = process.rank == 0
    items = open_source(source, UNNAMED).items
    measured = measure_sharded_opis(arrange(items), process, track=track if is_first else silent)
    process.close()
    if not is_first:
        return
    if out is not None:
        np.savez(
            out,
            thresholds=np.concatenate([measured.grid.uniform, measured.grid.log_far]),
            genuine=measured.genuine,
            impostor=measured.impostor,
        )
        say(f"Counts of every class at every threshold in {out}.")
    figures = {"opis": measured.opis, "opis_logfar": measured.opis_logfar, "processes": process.count}
    typer.echo(json.dumps({"items": len(items), "classes": len(items.classes), **figures}))
