"""Reports of the gallery and of feedback, and their history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decision.scorer_registry import open_scorer
from evaluation.evaluate import evaluate_embeddings
from limen.client import Client, ServiceError
from tests.service.bundles import make_density_bundle, serve


def test_reports_are_in_the_score_of_the_active_point(two_bundles: Any, tmp_path: Path) -> None:
    _, bundle, _ = two_bundles
    density_bundle, cohort = make_density_bundle(tmp_path / "density", bundle)
    score = density_bundle.points["verify"].score
    with serve(density_bundle.path, data=tmp_path / "data") as at, Client(at, retries=0) as client:
        client.feedback(a={"id": "item-0"}, b={"id": "item-1"}, same=True)
        decided = client.match([{"id": "item-0"}]).results[0]
        client.feedback(decision_id=decided.decision_id, same=True)
        for source in ("gallery", "feedback"):
            client.wait(client.compute_report(source))  # type: ignore[arg-type]
        report = client.consistency("gallery")
        expected = evaluate_embeddings(
            bundle.gallery.subset(np.argsort(bundle.gallery.ids)),
            scorer=open_scorer(score, cohort.vectors),
            model_hash=report.model_hash,
            split="gallery",
        )
        assert report.score == score
        assert report.verification == expected.verification
        assert report.consistency.opis == pytest.approx(expected.consistency.opis, abs=1e-9)
        feedback_report = client.consistency("feedback")
        assert feedback_report.score == score
        assert feedback_report.counts.genuine_pairs == 1, "the pair that the similarity decided is left out"
        holdout, gallery, _ = client.history().entries
        assert (holdout.far, holdout.frr) == (None, None), "the hold-out report is of the similarity"
        assert gallery.far is not None
        client.add_operating_point(bundle.points["verify"])
        client.activate_operating_point(bundle.points["verify"].id)
        with pytest.raises(ServiceError, match="with the density score"):
            client.consistency("gallery")


def test_reports_of_gallery_and_feedback(two_bundles: Any, tmp_path: Path) -> None:
    _, bundle, _ = two_bundles
    with serve(bundle.path, data=tmp_path) as at, Client(at, retries=0) as client:
        for source in ("gallery", "feedback"):
            with pytest.raises(ServiceError, match="POST"):
                client.consistency(source)  # type: ignore[arg-type]
        job = client.wait(client.compute_report("gallery"))
        assert job.status == "done", job.detail
        report = client.consistency("gallery")
        assert report.counts.items == 320
        assert report.consistency.opis == pytest.approx(client.consistency().consistency.opis, abs=1e-9)
        for row in range(1, 30):
            same = bool(bundle.gallery.labels[0] == bundle.gallery.labels[row])
            client.feedback(a={"id": "item-0"}, b={"id": f"item-{row}"}, same=same)
        client.wait(client.compute_report("feedback"))
        feedback_report = client.consistency("feedback")
        assert (feedback_report.counts.genuine_pairs, feedback_report.counts.impostor_pairs) == (7, 22)
        curve = feedback_report.verification.curve
        assert curve is not None
        scores = [
            client.verify([({"id": "item-0"}, {"id": f"item-{row}"})]).results[0].score
            for row in range(1, 30)
        ]
        for threshold, far, frr in zip(curve.threshold, curve.far, curve.frr, strict=True):
            assert far == pytest.approx(sum(score >= threshold for score in scores[7:]) / 22)
            assert frr == pytest.approx(sum(score < threshold for score in scores[:7]) / 7)
        assert [entry.source for entry in client.history().entries] == ["holdout", "gallery", "feedback"]
        with pytest.raises(ServiceError, match="no job"):
            client.job("nothing")
    with serve(bundle.path, data=tmp_path) as at, Client(at) as client:
        assert client.consistency("gallery") == report
        assert len(client.history().entries) == 3


def test_opis_of_feedback_takes_classes_that_were_judged_often(two_bundles: Any, tmp_path: Path) -> None:
    """Six classes of eight items: each item is judged with the next of its class, and with one of another."""
    _, bundle, _ = two_bundles
    with serve(bundle.path, data=tmp_path) as at, Client(at, retries=0) as client:
        client.feedback(a={"id": "item-0"}, b={"id": "item-1"}, same=True)
        client.wait(client.compute_report("feedback"))
        before = client.consistency("feedback")
        assert before.consistency.opis is None
        assert "OPIS needs 5 classes" in " ".join(before.reasons)
        judged: dict[str, list[tuple[float, bool]]] = {}
        for row in range(48):
            own = row // 8 * 8
            for other, same in ((own + (row + 1) % 8, True), ((row + 8) % 48, False)):
                answer = client.feedback(a={"id": f"item-{row}"}, b={"id": f"item-{other}"}, same=same)
                for label in {str(bundle.gallery.labels[row]), str(bundle.gallery.labels[other])}:
                    judged.setdefault(label, []).append((answer.score or 0.0, same))
        client.wait(client.compute_report("feedback"))
        report, holdout = client.consistency("feedback"), client.consistency()
        entry = client.history().entries[-1]
    found = report.consistency
    assert report.counts.classes_scored == 6
    assert found.thresholds == holdout.consistency.thresholds
    utilities = []
    for label in sorted(judged):
        scores = np.float32([score for score, _ in judged[label]])
        same = np.array([same for _, same in judged[label]])
        accepted = scores[:, None] >= np.float32(found.thresholds)
        psi, phi = accepted[same].mean(axis=0), 1 - accepted[~same].mean(axis=0)
        utilities.append(2 * phi * psi / (phi + psi))
    assert found.opis == pytest.approx(np.var(utilities, axis=0).mean())
    assert found.opis_ci is not None
    assert (entry.source, entry.opis_ci) == ("feedback", found.opis_ci)
