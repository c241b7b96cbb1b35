"""Progress where there is no terminal: a plain line every ten seconds, on stderr."""

from __future__ import annotations

import pytest

from common.console import say, track
from common.progress import silent


def test_lines_tell_rate_rest_and_note(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1_000, 6))
    monkeypatch.setattr("common.console.time.monotonic", lambda: float(next(clock)))
    steps = track(range(5), "build")
    steps.set_postfix_str("loss 0.5")  # type: ignore[attr-defined]
    assert list(steps) == list(range(5))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "build: 1 of 5, 12.0 s each, 48 s left, loss 0.5",
        "build: 3 of 5, 8.0 s each, 16 s left, loss 0.5",
    ]


def test_a_sentence_leaves_stdout_to_data(capsys: pytest.CaptureFixture[str]) -> None:
    say("Ready.")
    assert capsys.readouterr() == ("", "Ready.\n")
    assert list(silent([1, 2], "nothing")) == [1, 2]
    assert capsys.readouterr() == ("", "")
