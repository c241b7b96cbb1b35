"""A report as a file: what is in it, and that no label runs as a formula or as HTML."""

from __future__ import annotations

import csv
import io
from typing import Any

import httpx
import pytest
from PIL import Image

from api_schemas.report import Report
from limen.client import Client, ServiceError
from service.errors.problems import ServiceProblem
from service.http.report_exports import export_report
from tests.service.bundles import ServiceBundle

PATH = "/v1/reports/consistency/export"


def test_every_format_is_a_file_of_its_kind(client: Client, address: str) -> None:
    report = client.consistency()
    assert Report.model_validate_json(client.export_report(format="json")) == report
    rows = list(csv.DictReader(io.StringIO(client.export_report(format="csv").decode())))
    assert len(rows) == report.counts.classes
    assert [row["label"] for row in rows] == [row.label for row in report.consistency.per_class]
    assert float(rows[0]["utility"]) == report.consistency.per_class[0].utility
    page = client.export_report(format="html").decode()
    assert page.startswith("<!doctype html>")
    assert "How evenly one threshold holds" in page
    assert "<script" not in page
    with Image.open(io.BytesIO(client.export_report(format="png", chart="rates"))) as picture:
        assert picture.format == "PNG"
        assert picture.width > 600
    answer = httpx.get(f"{address}{PATH}?format=csv")
    assert answer.headers["content-disposition"].startswith('attachment; filename="limen-holdout-')
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"


def test_what_is_not_there_is_said(client: Client, address: str) -> None:
    with pytest.raises(ServiceError, match="no chart 'pie'; it has utility, rates"):
        client.export_report(format="png", chart="pie")
    with pytest.raises(ServiceError, match="no report of the gallery"):
        client.export_report("gallery")
    assert httpx.get(f"{address}{PATH}?format=pdf").status_code == 422


def test_hostile_labels_stay_text(bundle: ServiceBundle) -> None:
    report = Report.load(bundle.path / "report.json")
    labels = ["=1+1", "@cmd", "<img src=x onerror=alert(1)>", "\u202eabc", 'a,"b"\nc', "x" * 500]
    classes = [
        row.model_copy(update={"label": label})
        for row, label in zip(report.consistency.per_class, labels, strict=False)
    ]
    consistency = report.consistency.model_copy(update={"per_class": classes})
    hostile = report.model_copy(update={"consistency": consistency})
    rows = list(csv.DictReader(io.StringIO(export_report(hostile, [], "csv").decode(), newline="")))
    assert [row["label"] for row in rows] == ["'=1+1", "'@cmd", *labels[2:]]
    assert "<img" not in export_report(hostile, [], "html").decode()
    with pytest.raises(ServiceProblem):
        export_report(hostile, [], "png", "<img>")


def test_the_gallerys_report_is_made_with_progress(start: Any, bundle: ServiceBundle) -> None:
    with Client(start(bundle.path)) as client:
        job = client.wait(client.compute_report("gallery"))
        assert (job.status, job.step, job.progress) == ("done", None, None)
        rows = client.export_report("gallery", format="csv").decode().splitlines()
        assert len(rows) == 1 + len(bundle.gallery.classes)
