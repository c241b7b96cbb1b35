"""Checks of the cases in this folder: from the keys of an ``expected.yaml`` to assertions."""

from __future__ import annotations

import math
import runpy
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from api_schemas.data_config import DataConfig
from common.console import say
from common.errors import InputError
from embeddings.files import open_embeddings
from limen.cli.main import main
from training.data.kinds import open_kind


@dataclass
class Case:
    """One report: its folder (a copy), what is right in words, and the keys that its check reads."""

    folder: Path
    report: str
    right: str
    check: str
    needs: list[str]
    keys: Mapping[str, Any]
    read: set[str] = field(default_factory=set)

    def get(self, key: str, default: Any = None) -> Any:
        """A key's value, which counts as read from then on."""
        self.read.add(key)
        return self.keys.get(key, default)

    @property
    def unread(self) -> list[str]:
        return sorted(set(self.keys) - self.read)


def read_case(folder: Path) -> Case:
    written = yaml.safe_load((folder / "expected.yaml").read_text(encoding="utf-8"))
    named = {name: written.pop(name) for name in ("report", "right", "check")}
    return Case(folder, **named, needs=written.pop("needs", []), keys=written)


def check_table(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    """``file`` as data to train on.

    Keys: ``file`` or ``files``; ``data``: further keys of the configuration's section, e.g. ``kind`` (default
    ``text``); and what is right: ``labels``, ``ids``, ``inputs``, ``metadata`` (columns by name, null for
    missing; all of them), ``said`` (parts of what is printed); or ``error`` (a part, or several).
    """
    files = case.get("files") or [case.get("file")]
    data = DataConfig.model_validate({"kind": "text", "path": files, **case.get("data", {})})

    def read() -> tuple[Any, Any, Any]:
        items = open_kind(data, say).read_all()
        inputs = case.get("inputs")
        if inputs is not None:
            assert items.inputs.tolist() == inputs
        return items.labels, items.ids, items.metadata

    _compare_items(case, read, capsys)


def check_embeddings(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    """``file`` (and for a ``.npy`` ``labels_file``) as embeddings; what is right as in ``table``.

    Keys besides: ``vectors``, whose rows are compared after they were brought to length one.
    """

    def read() -> tuple[Any, Any, Any]:
        labels_file = case.get("labels_file")
        items = open_embeddings(Path(case.get("file")), labels_file and Path(labels_file), say).read()
        vectors = case.get("vectors")
        if vectors is not None:
            assert items.vectors.tolist() == [pytest.approx(row, abs=1e-6) for row in vectors]
        return items.labels, items.ids, items.metadata

    _compare_items(case, read, capsys)


def _compare_items(
    case: Case, read: Callable[[], tuple[Any, Any, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    parts = case.get("error")
    if parts is not None:
        with pytest.raises(InputError) as refused:
            read()
        for part in [parts] if isinstance(parts, str) else parts:
            assert part in str(refused.value)
        assert "\n" not in str(refused.value)
        return
    labels, ids, metadata = read()
    for name, values in (("labels", labels), ("ids", ids)):
        expected = case.get(name)
        if expected is not None:
            assert values.tolist() == expected
    expected = case.get("metadata")
    if expected is not None:
        shown = {name: [_show(value) for value in column.tolist()] for name, column in metadata.items()}
        assert shown == expected
        assert [[type(value) for value in column] for column in shown.values()] == [
            [type(value) for value in expected[name]] for name in shown
        ]
    printed = capsys.readouterr()
    for part in case.get("said", []):
        assert part in printed.err


def _show(value: Any) -> Any:
    """A value of metadata as YAML has it: instants as ISO 8601 text, missing as null."""
    if isinstance(value, float) and math.isnan(value):
        return None
    return value.isoformat() if hasattr(value, "isoformat") else value


def check_command(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    """``limen`` with ``arguments``: a list, or a list of lists that run one after the other.

    Keys: ``exit`` (default 0) of the last one, those before exit with 0; ``printed`` and ``not_printed``:
    parts of what all of them print; ``written``: files that must be there afterwards.
    """
    lines = case.get("arguments")
    lines = lines if isinstance(lines[0], list) else [lines]
    printed = ""
    for number, line in enumerate(lines):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["limen", *map(str, line)])
            with pytest.raises(SystemExit) as ended:
                main()
        shown = capsys.readouterr()
        printed += shown.out + shown.err
        expected = case.get("exit", 0) if number == len(lines) - 1 else 0
        assert (ended.value.code or 0) == expected, printed
    assert "Traceback" not in printed
    for part in case.get("printed", []):
        assert part in printed
    for part in case.get("not_printed", []):
        assert part not in printed
    for name in case.get("written", []):
        assert (case.folder / name).exists()


def check_script(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    """``script.py`` in the folder, which asserts what is right itself."""
    runpy.run_path(str(case.folder / "script.py"))


CHECKS: dict[str, Callable[[Case, pytest.CaptureFixture[str]], None]] = {
    "table": check_table,
    "embeddings": check_embeddings,
    "command": check_command,
    "script": check_script,
}
