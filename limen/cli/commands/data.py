"""``limen data``."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.atomic_files import write_atomically
from common.console import say, track
from common.errors import InputError, needs

if TYPE_CHECKING:
    from api_schemas.config import Config
    from encoder.inputs.preprocessing import Preprocessing

SHOWN = 10
AUDIT_SUFFIXES = (".csv", ".html", ".json")
PICTURE_SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
app = typer.Typer(
    help="Check a data set before training on it, see what the network sees, audit labels.",
    no_args_is_help=True,
)


@app.callback()
def data() -> None:
    """Check a data set before training on it, see what the network sees, audit labels."""


@app.command()
def check(
    source: Annotated[
        Path,
        typer.Argument(
            help="The configuration that would be trained (.yaml), or data alone: a folder or zip of images, "
            "a list of them, texts (.jsonl), vectors (.npz, .npy)."
        ),
    ],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key, e.g. data.kind=table; repeatable.")
    ] = None,
) -> int:
    """Read a data set as training would: classes, sizes, exact and near duplicates, leakage, imbalance.

    The exit code is 1 if something is likely to spoil training or its figures.
    """
    with needs("limen data check", "train"):
        from training.data.check_data import check_data
    config = _read_config(source, set_)
    findings = check_data(config.data, track, say, _read_given_preprocessing(config))
    for finding in findings:
        typer.echo(f"{'WARNING ' if finding.warns else ''}{finding.sentence}")
    return int(any(finding.warns for finding in findings))


@app.command()
def preview(
    source: Annotated[
        Path,
        typer.Argument(
            help="The configuration that would be trained (.yaml), or data alone: a folder or zip of images."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The picture to write: .png, .jpg or .webp.")],
    items: Annotated[int, typer.Option(min=1, max=100, help="Images, each of another class.")] = 8,
    views: Annotated[int, typer.Option(min=0, max=20, help="Views of each beside it.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Another seed shows others.")] = 0,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from", help="A run that training would start from: images as its network takes them."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a key, e.g. data.augmentation.crop=0.8; repeatable."),
    ] = None,
) -> None:
    """Draw a contact sheet of what the network sees: images as they are stored, beside augmented views."""
    if out.suffix.lower() not in PICTURE_SUFFIXES:
        raise InputError(f"--out {out}: a contact sheet is written as {', '.join(PICTURE_SUFFIXES)}.")
    with needs("limen data preview", "train"):
        from training.batches.contact_sheet import draw_contact_sheet
        from training.config_checks import check_data_config
        from training.data.kinds import open_kind
        from training.data.load_data import load_examples
    config = _read_config(source, [*(set_ or []), *([] if from_ is None else [f"start_from={from_}"])])
    given = _read_given_preprocessing(config)
    check_data_config(config.data, given or open_kind(config.data).build_placeholder())
    examples, preprocessing = load_examples(config.data, items, seed, say, given)
    augmentation = config.data.augmentation
    sheet = draw_contact_sheet(examples, preprocessing, augmentation, views, seed)
    picture = BytesIO()
    sheet.save(picture, PICTURE_SUFFIXES[out.suffix.lower()])
    write_atomically(out, picture.getvalue())
    if augmentation == type(augmentation)():
        say("data.augmentation changes nothing yet: all views are the image.")
    say(f"{len(examples)} images of {preprocessing.describe_shape()} in {out}.")


@app.command()
def audit(
    source: Annotated[
        Path,
        typer.Argument(
            help="A bundle (its gallery), a run folder (all its items), an embeddings file (.npz, .parquet), "
            "or raw data that --run or --bundle embeds."
        ),
    ],
    run: Annotated[Path | None, typer.Option(help="Run folder whose encoder embeds raw data.")] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Bundle whose 1:1 threshold counts; its encoder embeds raw data without --run."),
    ] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="File to write: .csv, .html (with pictures) or .json; repeatable."),
    ] = None,
    most: Annotated[int, typer.Option(min=1, max=1_000_000, help="Findings in the list at most.")] = 10_000,
) -> None:
    """List the items whose label may be wrong, most suspicious first, with the reason; no verdict.

    Items nearer to another label than to their own, copies under two labels, items near to nothing, and
    labels that differ in spelling alone.
    """
    from evaluation.label_audit.audit_files import MOST_ROWS, render_html, summarize, write_csv
    from limen.pipeline.audit_source import open_audit_source

    for file in out or []:
        if file.suffix not in AUDIT_SUFFIXES:
            raise InputError(f"--out {file}: an audit is written as {', '.join(AUDIT_SUFFIXES)}.")
    opened = open_audit_source(source, run, bundle)
    found = opened.audit(most)
    for sentence in summarize(found):
        typer.echo(sentence)
    for finding in found.findings[:SHOWN]:
        typer.echo(f"{finding.rank:4d}  {finding.id} ({finding.label}): {finding.reason}")
    for file in out or []:
        if file.suffix == ".json":
            found.save(file)
            continue
        if file.suffix == ".csv":
            text = write_csv(found.findings)
        else:
            shown = found.findings[:MOST_ROWS]
            ids = {finding.id for finding in shown} | {finding.nearest_id for finding in shown}
            pictures = opened.read_pictures(sorted(item_id for item_id in ids if item_id is not None))
            text = render_html(found, pictures.get)
        write_atomically(file, text.encode())
    if out:
        say(f"{len(found.findings)} findings in {', '.join(map(str, out))}.")


def _read_given_preprocessing(config: Config) -> Preprocessing | None:
    """That of the network which is there already; None where it is fitted to the data."""
    if config.start_from is None and ":" not in config.model.backbone:
        return None  # without torch, whose import takes longer than reading a small data set
    from training.loop.start_from import open_start, read_given_preprocessing

    start = None if config.start_from is None else open_start(config.start_from)
    return read_given_preprocessing(config, start)


def _read_config(source: Path, settings: list[str] | None) -> Config:
    """A configuration's file, or data alone as a configuration."""
    from api_schemas.config import Config
    from api_schemas.yaml_config import validate_mapping
    from training.data.kinds import guess_kind

    if source.suffix in (".yaml", ".yml"):
        return Config.load(source, settings or [])
    data = {"kind": guess_kind(source), "path": str(source)}
    return validate_mapping(Config, {"data": data}, settings or [], "--set")
