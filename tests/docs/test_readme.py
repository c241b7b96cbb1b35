"""What README shows of the demo is what the demo prints, and its answers are what the service gives."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import limen
from api_schemas.config import Config
from api_schemas.http.decisions import MatchResponse, MatchResult
from limen.cli.main import app

README = Path(__file__).parents[2] / "README.md"
DEMO = README.read_text().partition("## What the demo prints")[2].partition("## Your embeddings")[0]
BLOCKS = re.findall(r"```\n(.*?)```", DEMO, flags=re.DOTALL)


def mask(text: str) -> set[str]:
    """Lines without what rounding changes on another machine: numbers, rule and rung that decide, blanks."""
    plain = re.sub(r"(under )?\d[\d.,]*|nearest|evidence", "#", text.replace("<- decides", ""))
    return {re.sub(r"\s+", " ", line).strip() for line in plain.splitlines() if line.strip()}


@pytest.mark.parametrize(("epochs", "missed"), [(2, 400), pytest.param(6, 200, marks=pytest.mark.full)])
def test_the_demo_prints_what_readme_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int, missed: int
) -> None:
    config = Config.load(Path(limen.__file__).with_name("glyphs.yaml"))
    assert config.schedule.epochs == 6
    schedule = config.schedule.model_copy(update={"epochs": epochs, "minutes": None})  # however busy it is
    config = config.model_copy(update={"schedule": schedule})
    monkeypatch.setattr(Config, "load", lambda path: config)
    outcome = CliRunner().invoke(app, ["demo", "--no-serve", "--out", str(tmp_path / "demo")])
    assert outcome.exit_code == 0, outcome.output
    printed = outcome.output
    assert mask(BLOCKS[0]) | mask(BLOCKS[1]) <= mask(printed)
    kept = re.search(r"Active for match: .* of 1,000 that are, (\d+) are missed", printed)
    assert kept is not None
    assert int(kept[1]) <= missed, "the default point keeps four fifths of the known queries"
    assert "Who is this?" in printed
    assert "And this?" in printed
    assert {"known.png", "stranger.png"} <= {path.name for path in (tmp_path / "demo").iterdir()}


def test_the_answer_that_readme_shows_has_the_fields_of_the_service() -> None:
    shown = BLOCKS[2].partition("known.png)'\"}]}'\n")[2].partition("\n\n")[0]
    answer = json.loads(shown)
    assert set(answer) == set(MatchResponse.model_fields)
    unasked = {"explanation", "reason"}  # which "explain" and copies of items give
    assert set(answer["results"][0]) == set(MatchResult.model_fields) - unasked
