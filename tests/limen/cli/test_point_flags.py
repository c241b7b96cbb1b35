"""Flags that several commands share."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from limen.cli.point_flags import NO_FLAGS, PointFlags, takes_point_flags
from limen.pipeline.point_options import PointOptions


@pytest.fixture
def received() -> dict[str, Any]:
    return {}


@pytest.fixture
def app(received: dict[str, Any]) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    @takes_point_flags
    def command(first: str, cost: str = "own", flags: PointFlags = NO_FLAGS, last: int = 0) -> None:
        received.update(first=first, cost=cost, flags=flags, last=last)

    return app


def test_a_command_is_given_the_shared_flags_together(app: typer.Typer, received: dict[str, Any]) -> None:
    arguments = ["here", "--group", "site", "--group", "age", "--proven-only", "--vectors", "3"]
    assert CliRunner().invoke(app, [*arguments, "--last", "7"]).exit_code == 0
    flags = received.pop("flags")
    assert received == {"first": "here", "cost": "own", "last": 7}
    options = PointOptions.read(**flags, cost=None)
    assert options == PointOptions(group=["site", "age"], proven_only=True, vectors=3)


def test_a_flag_of_its_own_stays_with_the_command(app: typer.Typer, received: dict[str, Any]) -> None:
    assert CliRunner().invoke(app, ["here", "--cost", "a,b,c"]).exit_code == 0
    assert received["cost"] == "a,b,c"
    assert "cost" not in received["flags"]


def test_what_the_flags_refuse_is_refused(app: typer.Typer) -> None:
    assert CliRunner().invoke(app, ["here", "--vectors", "0"]).exit_code == 2
