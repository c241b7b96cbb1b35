"""The gallery's report follows writes: what changed is counted anew, with the figures of a fresh report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from api_schemas.report import Report
from evaluation.evaluate import evaluate_embeddings
from evaluation.gallery_counts.counts_file import COUNTS_FILE, read_about
from evaluation.metrics.opis import OpisSettings
from limen.client import Client
from service.gallery_work.gallery_task import GalleryTask
from service.gallery_work.run_worker import GalleryWorkers, WorkerFailed
from tests.service.bundles import DIMENSION, ServiceBundle, serve


def write_at_random(client: Client, seed: int, rounds: int, each: int) -> None:
    """Upserts of new, changed and relabelled items, and deletions, in random order."""
    rng = np.random.default_rng(seed)
    known = [item.id for item in client.items(limit=1000).items]
    for number in range(rounds):
        centres = np.random.default_rng(2).normal(size=(40, DIMENSION))
        labels = rng.integers(0, 40, each)
        vectors = centres[labels] + 0.4 * rng.normal(size=(each, DIMENSION))
        ids = [
            known[rng.integers(len(known))] if rng.random() < 0.15 else f"new-{seed}-{number}-{k}"
            for k in range(each)
        ]
        ids = list(dict.fromkeys(ids))
        client.upsert(
            [
                {"id": item_id, "label": f"class-{label}", "vector": vector.tolist()}
                for item_id, label, vector in zip(ids, labels, vectors, strict=False)
            ]
        )
        known = sorted({*known, *ids})
        gone = rng.choice(known, size=min(each, len(known) - 100), replace=False).tolist()
        client.delete_items(ids=gone)
        known = sorted({*known} - {*gone})


def test_report_after_a_thousand_upserts_and_deletions_is_that_of_a_fresh_computation(
    bundle: ServiceBundle, tmp_path: Path
) -> None:
    with serve(bundle.path, data=tmp_path) as at, Client(at, retries=0) as client:
        job = client.wait(client.compute_report("gallery"))
        assert job.status == "done", job.detail
        first = client.consistency("gallery")
        write_at_random(client, 0, rounds=8, each=125)
        client.wait(client.compute_report("gallery", update=True))
        updated = client.consistency("gallery")
        client.wait(client.compute_report("gallery"))
        fresh = client.consistency("gallery")
        assert updated.counts == fresh.counts
        assert updated.counts.items == len(client.items(limit=1000).items)
        assert updated.counts != first.counts
        assert updated.data_hash == fresh.data_hash
        assert updated.consistency.opis == pytest.approx(fresh.consistency.opis, abs=1e-9)
        assert updated.at_threshold == fresh.at_threshold
        assert fresh.at_threshold is not None
        assert fresh.at_threshold.threshold == bundle.points["verify"].threshold
        assert updated.consistency.per_class == fresh.consistency.per_class
        assert updated.consistency.mean_utility == pytest.approx(fresh.consistency.mean_utility, abs=1e-9)
        assert updated.consistency.thresholds == client.consistency().consistency.thresholds
        assert updated.retrieval.recall_at_1 is None
        assert any("all pairs" in reason for reason in updated.reasons)
        assert fresh.retrieval.recall_at_1 is not None
        assert [entry.source for entry in client.history().entries] == ["holdout", *["gallery"] * 3]
        far = [entry.far for entry in client.history().entries[2:]]
        # counted at the threshold itself, where a report in full reads its curve
        assert far[0] == pytest.approx(far[1], abs=0.005)
        client.delete_items(filter={"label": {"$exists": True}})
        job = client.wait(client.compute_report("gallery", update=True))
        assert job.status == "failed"
        assert "gallery is empty" in str(job.detail)


def test_report_is_brought_up_to_date_once_writes_have_settled(bundle: ServiceBundle, tmp_path: Path) -> None:
    with serve(bundle.path, data=tmp_path, gallery_report_after=0.2) as at, Client(at, retries=0) as client:
        client.wait(client.compute_report("gallery"))
        client.delete_items(ids=["item-0"])
        report = _wait_for_items(client, 319)
        assert report.retrieval.recall_at_1 is None, "from what changed, not from all pairs"
        folder = next((tmp_path / "models").iterdir())
        about = read_about(folder)
        assert about is not None
        remains = client.delete_items(ids=["item-1"]).remains_in
        assert any("gallery's report" in sentence for sentence in remains)
        _wait_for_items(client, 318)
        with np.load(folder / COUNTS_FILE) as archive:
            assert not {"item-0", "item-1"} & set(archive["ids"].tolist()), "what was deleted is forgotten"


def test_rates_of_classes_follow_the_threshold_that_decides(bundle: ServiceBundle, tmp_path: Path) -> None:
    with serve(bundle.path, data=tmp_path, gallery_report_after=0.2) as at, Client(at, retries=0) as client:
        assert client.classes(source="gallery").rates.at is None
        client.wait(client.compute_report("gallery"))
        before = client.classes(source="gallery", limit=1000)
        point = bundle.points["verify"]
        assert (before.rates.at, before.rates.threshold) == ("threshold", point.threshold)
        choice = {"endpoint": "verify", "threshold": point.threshold + 0.05, "activate": True}
        chosen = httpx.post(f"{at}/v1/operating-points/choose", json=choice).json()["point"]
        for _ in range(600):
            after = client.classes(source="gallery", limit=1000)
            if after.rates.at == "threshold":
                break
            time.sleep(0.1)
        assert after.rates.threshold == chosen["threshold"], "it is measured again by itself"
    similarities = bundle.gallery.vectors @ bundle.gallery.vectors.T
    for page, threshold in ((before, point.threshold), (after, chosen["threshold"])):
        for entry in page.classes:
            own = bundle.gallery.labels == entry.label
            accepted = similarities >= np.float32(threshold)
            genuine = accepted[np.ix_(own, own)].sum() - own.sum()
            assert entry.frr == pytest.approx(1 - genuine / (own.sum() * (own.sum() - 1)))
            assert entry.far == pytest.approx(accepted[np.ix_(own, ~own)].mean())


def _wait_for_items(client: Client, items: int) -> Any:
    for _ in range(600):
        report = client.consistency("gallery")
        if report.counts.items == items:
            return report
        time.sleep(0.1)
    pytest.fail("the report was not brought up to date")


def test_worker_measures_over_given_thresholds_and_says_how_far_it_is(bundle: ServiceBundle) -> None:
    thresholds = np.linspace(0.9, 0.1, 50, dtype=np.float32).tolist()
    task = GalleryTask(
        kind="report",
        bundle=bundle.path,
        items_folder=None,
        database_url=None,
        point=None,
        thresholds=thresholds,
    )
    steps: list[tuple[str, float | None]] = []
    report = Report.model_validate(GalleryWorkers().run(task, lambda *said: steps.append(said)))
    expected = evaluate_embeddings(
        bundle.gallery.subset(np.argsort(bundle.gallery.ids)),
        model_hash=report.model_hash,
        split="gallery",
        settings=OpisSettings(grid=50, thresholds=tuple(thresholds)),
    )
    assert report.consistency.thresholds == thresholds
    assert report.consistency.opis == pytest.approx(expected.consistency.opis, abs=1e-12)
    assert report.consistency.opis_debiased == pytest.approx(expected.consistency.opis_debiased, abs=1e-12)
    assert report.retrieval == expected.retrieval
    assert report.verification == expected.verification
    names = [name for name, _ in steps]
    assert names[0] == "reading items"
    assert "pairs" in names
    assert all(progress is None or 0 <= progress <= 1 for _, progress in steps)


def test_closed_workers_start_nothing_and_end_what_runs(bundle: ServiceBundle, tmp_path: Path) -> None:
    workers = GalleryWorkers()
    task = GalleryTask(
        kind="report", bundle=tmp_path / "nothing", items_folder=None, database_url=None, point=None
    )
    with pytest.raises(WorkerFailed, match="nothing"):
        workers.run(task, lambda *_: None)

    def stop(step: str, progress: float | None) -> None:
        workers.close()

    with pytest.raises(WorkerFailed, match="service ended"):
        workers.run(task.model_copy(update={"bundle": bundle.path}), stop)
    with pytest.raises(WorkerFailed, match="service ended"):
        workers.run(task, lambda *_: None)
