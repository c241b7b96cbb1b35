"""What methods there are, and what one mines to train on: ``limen mine``, ``losses`` and ``miners``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from common.console import say, track
from common.errors import InputError, needs


def mine(
    source: Annotated[
        Path,
        typer.Argument(
            help="An embeddings file (.npz, .parquet), a run folder (its training items) or a bundle (its "
            "gallery)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    form: Annotated[
        Literal["triplets", "pairs"],
        typer.Option(help="triplets: anchor, positive, negative; pairs: a, b, same; with their scores."),
    ] = "triplets",
    negatives: Annotated[int, typer.Option(help="Hard negatives of each item.")] = 3,
    top: Annotated[int, typer.Option(help="How many of the nearest items of other classes to look at.")] = 50,
    skip: Annotated[int, typer.Option(help="How many of those nearest to leave out.")] = 0,
    sampling: Annotated[
        Literal["top", "random"], typer.Option(help="Take the nearest that pass, or any.")
    ] = "top",
    margin: Annotated[
        float | None, typer.Option(help="Take only what is less similar than the positive, by this much.")
    ] = None,
    percentage: Annotated[
        float | None, typer.Option(help="... than this part of the positive's similarity, e.g. 0.95.")
    ] = None,
    max_score: Annotated[float | None, typer.Option(help="Take nothing more similar than this.")] = None,
    min_score: Annotated[float | None, typer.Option(help="Take nothing less similar than this.")] = None,
    class_margin: Annotated[
        float | None,
        typer.Option(
            help="Leave out what is as near to the anchor's class as its members and not nearer by this to "
            "its own class (0.05): items whose label is wrong, classes under two names."
        ),
    ] = None,
    clusters: Annotated[
        int | None, typer.Option(help="Draw candidates from the item's k-means cluster, one of so many.")
    ] = None,
    text_column: Annotated[
        str | None,
        typer.Option(help="Metadata column that names items instead of their ids, e.g. their text."),
    ] = None,
    select: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Instead of negatives, choose so many items to label or train on: id and weight.",
        ),
    ] = None,
    loss_column: Annotated[
        str | None, typer.Option(help="With --select: metadata column with the loss of each item.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn at random.")] = 0,
) -> None:
    """Find hard negatives of every item, without those that may be positives in truth, to train on."""
    from api_schemas.config import MiningRule
    from api_schemas.yaml_config import validate_mapping
    from limen.pipeline.evaluation_source import read_items

    with needs("limen mine", "train"):
        from training.mining.mine_items import choose_items, mine_items, write_table
    if out.suffix != ".parquet":
        raise InputError(f"--out {out}: what is mined is written as .parquet.")
    items = read_items(source)
    if select is not None:
        table = choose_items(items, select, clusters, loss_column, seed)
        say(f"{out} holds {table.num_rows} of {len(items)} items with their weights.")
    else:
        given = {
            **{"negatives": negatives, "top": top, "skip": skip, "sampling": sampling},
            **{"margin": margin, "percentage": percentage, "max_score": max_score, "min_score": min_score},
            **{"class_margin": class_margin, "clusters": clusters},
        }
        rule = validate_mapping(MiningRule, given, [], "limen mine")
        table, sentence = mine_items(items, rule, form, text_column, seed, track)
        say(sentence)
        say(f"{out} holds {table.num_rows} {form}.")
    write_table(table, out)


def losses() -> None:
    """List the losses: name, paper, parameters with their defaults."""
    with needs("limen losses", "train"):
        from training.losses import list_losses
    for line in list_losses():
        typer.echo(line)


def miners() -> None:
    """List the miners: name, paper, parameters with their defaults."""
    with needs("limen miners", "train"):
        from training.objective.miners import list_miners
    for line in list_miners():
        typer.echo(line)
