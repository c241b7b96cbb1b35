"""Inputs that people brought, one folder a case, each with what is right; every folder here is run.

A case is a folder under ``tests/field_reports/cases`` with small input files and one ``expected.yaml``:

    report: What someone had and did, in a sentence.
    right: What is right, in a sentence.
    check: table            # a name in ``checks.CHECKS``; its docstring says which further keys it reads
    file: faces.csv
    labels: [a, b]

Each check gets a copy of the folder that it may write into. To add a case, add a folder; no line of code is
needed where a check fits. Four fit most reports:

- ``table``: a file of any kind is read as data to train on; labels, ids, metadata or the error are compared.
- ``embeddings``: the same for an embeddings file.
- ``command``: ``limen`` is run with ``arguments`` in the folder (one list, or several one after the other);
  its exit code, what it prints and what it must not print are compared. It never prints a traceback.
- ``script``: ``script.py`` is run in the folder, in this process, and asserts what is right itself: for
  Python objects, the client, the service.

Another kind of check is a function in ``checks.py`` with its name in ``CHECKS``. A case that needs an
optional package names it in ``needs: [polars]`` and is skipped with a reason where it is absent. A key that
the check does not know is an error, so that nothing stands there unchecked.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from tests.field_reports.checks import CHECKS, Case, read_case

CASES = Path(__file__).parent / "cases"
NAMES = sorted(folder.name for folder in CASES.iterdir() if folder.is_dir())


@pytest.mark.parametrize("name", NAMES)
def test_what_people_bring_is_answered_rightly(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "case"
    shutil.copytree(CASES / name, folder)
    case = read_case(folder)
    for package in case.needs:
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(folder)
    CHECKS[case.check](case, capsys)
    assert case.unread == [], f"{name}/expected.yaml: the check '{case.check}' reads no such keys"


def test_every_folder_is_a_case() -> None:
    assert len(NAMES) > 3
    for name in NAMES:
        written = yaml.safe_load((CASES / name / "expected.yaml").read_text())
        assert written["report"].endswith("."), name
        assert written["right"].endswith("."), name
        assert written["check"] in CHECKS, name


def test_a_key_that_no_check_reads_is_noticed(tmp_path: Path) -> None:
    case = Case(tmp_path, "report", "right", "table", [], {"label": ["a"]})
    assert case.unread == ["label"]
    assert case.get("label") == ["a"]
    assert case.unread == []
