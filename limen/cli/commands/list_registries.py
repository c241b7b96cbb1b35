"""``limen losses`` and ``limen miners``."""

from __future__ import annotations

import typer

from common.optional_packages import needs


def losses() -> None:
    """List the losses: name, paper, parameters with their defaults."""
    with needs("limen losses", "train"):
        from training.losses import catalogue
    for line in catalogue():
        typer.echo(line)


def miners() -> None:
    """List the miners: name, paper, parameters with their defaults."""
    with needs("limen miners", "train"):
        from training.objective.miners import catalogue
    for line in catalogue():
        typer.echo(line)
