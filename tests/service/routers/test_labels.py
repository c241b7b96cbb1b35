"""The label audit of a gallery: as a job, page by page, as CSV, and after items were deleted."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from evaluation.label_audit.audit_labels import audit_labels
from limen.client import Client, ServiceError
from tests.service.bundles import ServiceBundle, serve


def test_audit_of_a_gallery(bundle: ServiceBundle, tmp_path: Path) -> None:
    with serve(bundle.path, data=tmp_path) as at, Client(at, retries=0) as client:
        with pytest.raises(ServiceError, match="were not audited"):
            client.label_audit()
        # two items that carry each other's label
        labels = bundle.gallery.labels.astype("<U40")
        labels[[3, 90]] = labels[[90, 3]]
        client.upsert(
            [
                {"id": f"item-{row}", "label": str(labels[row]), "vector": bundle.get_vector(row)}
                for row in (3, 90)
            ]
        )
        job = client.wait(client.start_label_audit())
        assert job.status == "done", job.detail
        page = client.label_audit(limit=1)
        assert page.items == 320
        assert page.next_offset == 1
        assert page.total >= 2
        assert page.threshold == pytest.approx(bundle.points["verify"].threshold)
        assert "'verify'" in page.threshold_from
        assert not page.changed_since
        whole = client.label_audit(limit=1000).findings
        assert {finding.id for finding in whole[:2]} == {"item-3", "item-90"}
        assert {finding.suggested_label for finding in whole[:2]} == set(bundle.gallery.labels[[3, 90]])
        items = replace(bundle.gallery, labels=labels)
        threshold = bundle.points["verify"].threshold
        assert whole == audit_labels(items, threshold=threshold).findings
        assert client.label_audit("outlier").total == page.counts["outlier"]
        assert client.label_audit(label=str(labels[3])).findings[0].id == "item-3"

        rows = list(csv.DictReader(io.StringIO(client.export_label_audit().decode())))
        assert [row["id"] for row in rows] == [finding.id for finding in whole]

        client.delete_items(ids=["item-3"])
        page = client.label_audit()
        assert page.changed_since
        assert "item-3" not in {finding.id for finding in page.findings}
        assert b"item-3," not in client.export_label_audit()
    with serve(bundle.path, data=tmp_path) as at, Client(at) as client:
        assert client.label_audit().findings[0].id == "item-90", "kept in the data folder"
        file = next(tmp_path.rglob("label-audit.json"))
        assert file.stat().st_mode & 0o077 == 0


def test_bad_questions_are_refused(address: str) -> None:
    for query in ("kind=nothing", "limit=0", "limit=1001", "offset=-1", f"label={'x' * 600}"):
        assert httpx.get(f"{address}/v1/labels/audit?{query}").status_code == 422


def test_list_is_bounded(bundle: ServiceBundle, tmp_path: Path) -> None:
    with (
        serve(bundle.path, data=tmp_path, label_findings=2) as at,
        Client(at, retries=0) as client,
    ):
        rng = np.random.default_rng(0)
        client.upsert(
            [
                {"id": f"item-{row}", "label": f"class-{rng.integers(40)}", "vector": bundle.get_vector(row)}
                for row in range(0, 320, 16)
            ]
        )
        client.wait(client.start_label_audit())
        page = client.label_audit()
        assert page.total == 2
        assert page.left_out > 10
