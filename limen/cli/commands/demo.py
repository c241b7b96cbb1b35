"""``limen demo``: from training to a running service, on data that comes with an installed package."""

from __future__ import annotations

import shlex
import shutil
import time
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.console import say, track
from common.errors import InputError, needs

if TYPE_CHECKING:
    from embeddings.embedding_set import EmbeddingSet

EVERY = 9  # of the test's classes one is unknown to the gallery, and of one a single picture
ASKED = 20  # of either
THUMBNAILS = 96  # pixels


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the run, the report and the bundle.")] = Path(
        "limen-demo"
    ),
    no_serve: Annotated[bool, typer.Option("--no-serve", help="Stop after the export.")] = False,
    port: Annotated[int, typer.Option(help="Port to serve on.", min=0, max=65535)] = 8000,
) -> None:
    """Train, evaluate, calibrate, export and serve: some 900 characters in the typefaces of matplotlib.

    The network learns which pictures show the same character, and is tested on characters that it has
    never seen. Takes about half a minute on two cores.
    """
    with needs("limen demo", "train"):
        from api_schemas.config import Config
        from limen.pipeline.evaluation_source import read_run
        from limen.pipeline.make_bundle import export_run
        from training.loop.train import train
    with needs("limen demo", "serve"):
        from service.server import check_port_free, run
    import numpy as np

    from api_schemas.manifest import POINTS_FOLDER, REPORT_FILE
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
    source = read_run(run_folder)
    held_out = _hold_out(source.items)
    # a gallery of characters that the network was not trained on
    gallery = source.items.subset(np.flatnonzero(~np.isin(source.items.ids, held_out.ids)))
    export_run(run_folder, bundle, gallery=gallery, thumbnails=THUMBNAILS)
    report = Report.load(bundle / REPORT_FILE)
    points = [OperatingPoint.load(path) for path in sorted((bundle / POINTS_FOLDER).glob("*.json"))]
    write_report(report, out / "report", points)
    typer.echo(format_table(report))
    examples = _ask_about(held_out, bundle, out)
    say(f"Ready after {time.monotonic() - started:.0f} s: {bundle}; {out}/report/report.html")
    url = f"http://127.0.0.1:{port}"
    say(f"\nDashboard   {url}/dashboard\nAPI docs    {url}/docs\n{examples.replace('URL', url)}")
    if no_serve:
        say(f"Next: limen serve {bundle}")
        return
    run(bundle, host="127.0.0.1", port=port, data=None, workers=1)


def _hold_out(items: EmbeddingSet) -> EmbeddingSet:
    """What the gallery never sees: strangers, all items of every ninth class of a set, and of every ninth
    other class one item."""
    import numpy as np

    every = np.arange(len(items.classes))
    strange = every[every % EVERY == 0][:ASKED]
    known = every[every % EVERY == EVERY // 2][:ASKED]
    is_first = np.isin(np.arange(len(items)), np.unique(items.codes, return_index=True)[1])
    rows = np.isin(items.codes, strange) | (np.isin(items.codes, known) & is_first)
    return items.subset(np.flatnonzero(rows))


def _ask_about(held_out: EmbeddingSet, bundle: Path, out: Path) -> str:
    """Ask about one picture of each class held out; returns what came of it, and two requests to try."""
    import numpy as np

    from index.gallery.gallery import Gallery

    asked = held_out.subset(np.unique(held_out.codes, return_index=True)[1])
    with Gallery.open(bundle) as gallery:
        classes = {label for part, _ in gallery.view.parts for label in part.items.classes}
        answers = gallery.match(asked.vectors) if gallery.manifest.operating_points.match else []
    right: list[str] = []
    refused: list[str] = []
    n_known = sum(label in classes for label in asked.labels.tolist())
    for answer, item, label in zip(answers, asked.ids.tolist(), asked.labels.tolist(), strict=False):
        if answer.decision == "match" and answer.label == label:
            right.append(item)
        elif answer.decision == "unknown" and label not in classes:
            refused.append(item)
    lines = [
        f"Asked about new pictures of {n_known} characters of the gallery: {len(right)} named rightly. "
        f'About {len(asked) - n_known} characters that are not in it: {len(refused)} answered "unknown".'
    ]
    for name, about, ids in (("known", "Who is this?", right), ("stranger", "And this?", refused)):
        if ids:
            _save_picture(ids[0], out / f"{name}.png")
            lines += [f"{about} ({ids[0]}, a picture that the gallery does not hold)", _write_curl(out, name)]
    return "\n".join(lines) + "\n"


def _save_picture(item: str, path: Path) -> None:
    from PIL import Image

    from training.data.glyphs import draw_glyphs

    pixels, _, ids = draw_glyphs()
    Image.fromarray(pixels[ids.index(item)]).save(path)


def _write_curl(out: Path, name: str) -> str:
    picture = f"'$(base64 -w0 {shlex.quote(str(out / f'{name}.png'))})'"
    body = f'{{"queries": [{{"input": "data:image/png;base64,{picture}"}}]}}'
    return f"curl -s URL/v1/match -H 'content-type: application/json' -d '{body}'"


def _clear_demo(out: Path) -> None:
    """Remove the files of an earlier demo; raises InputError if the folder holds anything else."""
    from limen.pipeline.evaluation_source import is_bundle, is_run

    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give --out a folder.")
    foreign = [
        path.name
        for path in (out.iterdir() if out.is_dir() else ())
        if path.name not in ("run", "bundle", "report", "known.png", "stranger.png")
        or (path.name == "run" and not is_run(path))
        or (path.name == "bundle" and not is_bundle(path))
    ]
    if foreign:
        raise InputError(f"{out} holds {foreign[0]}, which is not from a demo: give --out another folder.")
    for name in ("known.png", "stranger.png"):
        (out / name).unlink(missing_ok=True)
    for name in ("run", "report", "bundle"):
        shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
