"""``limen losses`` and ``limen miners``."""

from __future__ import annotations

import typer

from common.errors import needs


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
