"""``limen train``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.console import say, track
from common.errors import needs

if TYPE_CHECKING:
    from api_schemas.config import Config
    from training.run_folder.run_folder import Run


def train(
    config: Annotated[Path, typer.Argument(help="A YAML file; examples are in configs/.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key, e.g. schedule.epochs=5; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; runs/NAME unless given.")] = None,
    find_lr: Annotated[
        bool,
        typer.Option("--find-lr", help="Try rising learning rates for 100 steps, suggest one, keep no run."),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="A run to start from: its network and class vectors, with the data and classes of CONFIG.",
        ),
    ] = None,
) -> None:
    """Train an embedding network; classes of train, validation and test are disjoint. Writes a run folder."""
    with needs("limen train", "train"):
        from api_schemas.config import Config
        from training.loop.train import train as train_network
    overrides = [*(set_ or []), *([] if from_ is None else [f"start_from={from_}"])]
    settings = Config.load(config, overrides)
    if find_lr:
        _find_rate(settings, out or Path("runs") / f"{settings.name}-lr")
        return
    run = train_network(settings, out or Path("runs") / settings.name, resume=resume, track=track, say=say)
    if os.environ.get("RANK", "0") != "0":  # torchrun starts this command once for each process
        return
    if run.config.teacher is not None:
        _say_beside_teacher(run)
    for flag, values in (("--size", run.config.model.sizes), ("--exit", run.config.model.exits)):
        if values:
            say(f"limen export {run.path} {flag} N --out BUNDLE makes a bundle for N in {values}.")
    if run.config.start_from is None:
        say(f"Run in {run.path}. Next: limen evaluate {run.path}")
    else:
        say(_compare_with_start(run))


def _find_rate(settings: Config, out: Path) -> None:
    """Say which learning rate to set, and draw the loss over the rates."""
    from common.atomic_files import write_atomically
    from training.loop.find_learning_rate import draw_sweep, find_learning_rate, round_rate

    sweep = find_learning_rate(settings, track=track, say=say)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "learning_rate.png", draw_sweep(sweep))
    say(
        f"The loss fell fastest at a learning rate of {sweep.suggested:.1e}, and was lowest at "
        f"{sweep.rates[sweep.losses.index(min(sweep.losses))]:.1e}: try --set optimizer.lr="
        f"{round_rate(sweep.suggested):g}. The picture: {out / 'learning_rate.png'}"
    )


def _say_beside_teacher(run: Run) -> None:
    """What the student reaches of its teacher, FRR at FAR 1 % and FNIR at FPIR 1 % among it."""
    from evaluation.comparison.describe_comparison import describe_comparison
    from limen.pipeline.two_models.beside_teacher import compare_with_teacher

    comparison = compare_with_teacher(run, track)
    if comparison is not None:
        say(f"The teacher (first) and the student, on the items measured:\n{describe_comparison(comparison)}")


def _compare_with_start(run: Run) -> str:
    """What training changed on the run's test items (validation items without those), and what to do next."""
    import numpy as np

    from embeddings.files import read_embeddings
    from evaluation.comparison.compare import compare_models
    from evaluation.comparison.describe_comparison import describe_comparison
    from training.loop.start_from import open_start
    from training.run_folder.layout import get_before_path

    source = run.config.start_from
    steps = (
        f"Run in {run.path}. To offer it as a new version: limen export {run.path} --out BUNDLES/VERSION, "
        "then load it, compare and switch to it by POST /v1/models, or on the dashboard's page of versions."
    )
    before, part = get_before_path(run.path), run.load_embeddings("test") or run.load_embeddings("validation")
    if part is None or not before.is_file():
        return f"Nothing to compare with {source}: the run has no test and no validation items.\n{steps}"
    comparison = compare_models(
        read_embeddings(before),
        part,
        model_hash_a="",
        model_hash_b="",
        exclude_same=run.config.evaluation.exclude_same,
        track=track,
    )
    known = open_start(str(source)).load_embeddings("train")
    shared = np.empty(0) if known is None else np.intersect1d(known.classes, part.classes)
    seen = ""
    if len(shared):
        seen = (
            f"{source} was trained on {len(shared)} of these {len(part.classes)} classes, which favours it: "
            "to compare fairly, keep test classes apart (data.split.by: column, or data.test_path).\n"
        )
    return f"Beside {source}, on the items measured:\n{describe_comparison(comparison)}\n{seen}{steps}"
