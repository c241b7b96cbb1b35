"""A report's files in a folder."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from api_schemas.diagnosis import Diagnosis
from api_schemas.report import Report
from evaluation.report.write_report import write_report
from tests.evaluation.report.reports import make_tiny_report


def test_report_json_page_and_pictures_are_written(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path / "out")
    assert Report.load(tmp_path / "out" / "report.json") == report
    assert (tmp_path / "out" / "report.html").read_text().startswith("<!doctype html>")
    for name in ("utility", "rates"):
        with Image.open(tmp_path / "out" / f"{name}.png") as picture:
            assert picture.width > 800
            assert len(picture.convert("L").getcolors() or []) > 10


def test_a_diagnosis_is_written_beside_it_with_its_reliability(
    report: Report, diagnosis: Diagnosis, tmp_path: Path
) -> None:
    write_report(report, tmp_path, diagnosis=diagnosis)
    with Image.open(tmp_path / "reliability.png") as picture:
        assert picture.width > 800
    assert Diagnosis.load(tmp_path / "diagnosis.json") == diagnosis


def test_a_report_without_curves_still_makes_a_page(tmp_path: Path) -> None:
    write_report(make_tiny_report(), tmp_path)
    assert "Utility needs classes" in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "utility.png").exists()
