"""The documents are a promise: files of earlier versions are read, those of this one written unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from api_schemas.base import Schema
from api_schemas.manifest import Manifest
from api_schemas.operating_point import OperatingPoint
from api_schemas.report import Report
from common.errors import InputError
from scripts.schemas import DOCUMENTS, FOLDER, render_schema

GOLDEN = Path(__file__).parent / "golden" / "2"
FIRST = GOLDEN.parent / "1"
GOLDEN_DOCUMENTS: dict[str, type[Schema]] = {
    "manifest": Manifest,
    "operating_point": OperatingPoint,
    "report": Report,
}


@pytest.mark.parametrize("name", GOLDEN_DOCUMENTS)
def test_a_golden_file_is_read_and_written_unchanged(name: str, tmp_path: Path) -> None:
    document = GOLDEN_DOCUMENTS[name].load(GOLDEN / f"{name}.json")
    document.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == (GOLDEN / f"{name}.json").read_text()


@pytest.mark.parametrize("name", GOLDEN_DOCUMENTS)
def test_a_file_of_version_1_keeps_every_value(name: str) -> None:
    content = json.loads((FIRST / f"{name}.json").read_text())
    read = json.loads(GOLDEN_DOCUMENTS[name].load(FIRST / f"{name}.json").to_json())
    assert _select_known(read, content) == content


def test_a_point_whose_content_was_changed_is_refused_with_the_way_to_do_it(tmp_path: Path) -> None:
    content = json.loads((GOLDEN / "operating_point.json").read_text())
    for key, value in {"threshold": 0.5, "proof": {**content["proof"], "far": 0.0}}.items():
        (tmp_path / "x.json").write_text(json.dumps({**content, key: value}))
        with pytest.raises(InputError, match=r"does not hash to its id.*limen evaluate VECTORS --threshold"):
            OperatingPoint.load(tmp_path / "x.json")
    (tmp_path / "x.json").write_text(json.dumps({**content, "name": "a better name"}))
    assert OperatingPoint.load(tmp_path / "x.json").id == content["id"], "a name is not what it decides by"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_published_schema_is_current(name: str) -> None:
    published = (FOLDER / f"{name}.schema.json").read_text()
    assert published == render_schema(DOCUMENTS[name]), "run: python -m scripts.schemas"


@pytest.mark.parametrize("name", GOLDEN_DOCUMENTS)
def test_an_unknown_key_is_named(name: str, tmp_path: Path) -> None:
    content = json.loads((GOLDEN / f"{name}.json").read_text())
    content["surprise"] = 1
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"x\.json is not a valid .*: surprise: "):
        GOLDEN_DOCUMENTS[name].load(tmp_path / "x.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema_version": 2}', "\x00"])
def test_what_is_no_document_is_refused_with_the_files_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=r"x\.json is not a valid"):
        Report.load(tmp_path / "x.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.json cannot be read"):
        Report.load(tmp_path / "gone.json")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_no_number_that_json_cannot_carry_is_read(value: str, tmp_path: Path) -> None:
    text = (GOLDEN / "operating_point.json").read_text().replace("0.7123456", value)
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match="threshold"):
        OperatingPoint.load(tmp_path / "x.json")


def test_a_density_score_without_its_cohort_is_refused(tmp_path: Path) -> None:
    content = json.loads((GOLDEN / "operating_point.json").read_text())
    content["score"] |= {"kind": "density", "form": "csls"}
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="cohort"):
        OperatingPoint.load(tmp_path / "x.json")


def _select_known(value: Any, known: Any) -> Any:
    """The parts of a document that an earlier version had."""
    if isinstance(value, dict) and isinstance(known, dict):
        return {key: _select_known(part, known[key]) for key, part in value.items() if key in known}
    return value
