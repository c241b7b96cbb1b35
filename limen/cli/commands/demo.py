"""``limen demo``: from training to a running service, on data that comes with an installed package."""

from __future__ import annotations

import shutil
import time
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from api_schemas.manifest import POINTS_FOLDER, REPORT_FILE
from common.console import say, track
from common.errors import InputError, needs
from limen.pipeline.evaluation_source import is_bundle, is_run


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the run, the report and the bundle.")] = Path(
        "limen-demo"
    ),
    no_serve: Annotated[bool, typer.Option("--no-serve", help="Stop after the export.")] = False,
    port: Annotated[int, typer.Option(help="Port to serve on.", min=0, max=65535)] = 8000,
) -> None:
    """Train, evaluate, calibrate, export and serve: some 900 characters in the typefaces of matplotlib.

    The network learns which pictures show the same character, and is tested on characters that it has
    never seen. Takes about a minute on two cores.
    """
    with needs("limen demo", "train"):
        from api_schemas.config import Config
        from limen.pipeline.evaluation_source import read_run
        from limen.pipeline.make_bundle import export_run
        from training.loop.train import train
    with needs("limen demo", "serve"):
        from service.server import check_port_free, run
    from api_schemas.operating_point import OperatingPoint
    from api_schemas.report import Report
    from evaluation.report.text_table import format_table
    from evaluation.report.write_report import write_report

    if not no_serve:
        check_port_free("127.0.0.1", port)
    started = time.monotonic()
    _clear_demo(out)
    with as_file(files("limen") / "glyphs.yaml") as path:
        config = Config.load(path)
    run_folder = train(config, out / "run", track=track, say=say)
    bundle = out / "bundle"
    export_run(run_folder, bundle)
    report = Report.load(bundle / REPORT_FILE)
    points = [OperatingPoint.load(path) for path in sorted((bundle / POINTS_FOLDER).glob("*.json"))]
    write_report(report, out / "report", points)
    typer.echo(format_table(report))
    example = read_run(run_folder).items.ids[0]
    say(f"Ready after {time.monotonic() - started:.0f} s: {bundle}; {out}/report/report.html")
    if no_serve:
        say(f"Next: limen serve {bundle}")
        return
    say(
        f"\nDashboard   http://127.0.0.1:{port}/dashboard\n"
        f"API docs    http://127.0.0.1:{port}/docs\n"
        f"Who is this? (item {example}, compared with all others)\n"
        f"curl -s http://127.0.0.1:{port}/v1/match -H 'content-type: application/json' "
        f'-d \'{{"queries": [{{"id": "{example}"}}]}}\'\n'
    )
    run(bundle, host="127.0.0.1", port=port, data=None, workers=1)


def _clear_demo(out: Path) -> None:
    """Remove the files of an earlier demo; raises InputError if the folder holds anything else."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give --out a folder.")
    foreign = [
        path.name
        for path in (out.iterdir() if out.is_dir() else ())
        if path.name not in ("run", "bundle", "report")
        or (path.name == "run" and not is_run(path))
        or (path.name == "bundle" and not is_bundle(path))
    ]
    if foreign:
        raise InputError(f"{out} holds {foreign[0]}, which is not from a demo: give --out another folder.")
    for name in ("run", "report", "bundle"):
        shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
