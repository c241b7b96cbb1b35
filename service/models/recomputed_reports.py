"""Reports of what the service holds now: its gallery, and what it was told about its decisions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np

from api_schemas.http.admin import HistoryEntry
from api_schemas.http.items import Feedback
from api_schemas.report import (
    Counts,
    Geometry,
    Report,
    Retrieval,
    Verification,
    VerificationCurve,
)
from common.array_types import Float32s, Float64s
from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet
from evaluation.evaluate import evaluate
from evaluation.metrics.opis import Settings, empty_consistency
from service.models.loaded_model import LoadedModel

Source = Literal["holdout", "gallery", "feedback"]
LEAST_PAIRS = 2


def compute_gallery_report(served: LoadedModel, block: int = 4096) -> Report:
    """All items of the gallery, each a query of all others, scored as the active operating point scores.

    Raises:
        InputError: there are too few.
    """
    vectors: list[Float32s] = []
    labels: list[str] = []
    ids: list[str] = []
    after: str | None = None
    while found := served.gallery.page(after, block):
        after = found[-1].id
        vectors.append(np.stack([item.vector for item in found]))
        labels += [item.label for item in found]
        ids += [item.id for item in found]
    if not ids:
        raise InputError("The gallery is empty, so there is nothing to report on.")
    items = EmbeddingSet(np.concatenate(vectors), np.array(labels), np.array(ids))
    return evaluate(items, scorer=served.gallery.scorer, model_hash=served.model_hash, split="gallery")


def compute_feedback_report(served: LoadedModel, told: Sequence[Feedback]) -> Report:
    """FAR and FRR of the pairs that people told the truth about; what pairs cannot give is null.

    Pairs that were decided by another kind of score than the active point's are left out.
    """
    score = served.gallery.scorer.score
    ours = [
        one
        for one in told
        if one.model_hash == served.model_hash
        and one.score is not None
        and served.get_score(one.operating_point) == score
    ]
    same = np.array([one.same for one in ours], dtype=bool)
    scores = np.array([one.score for one in ours], dtype=np.float64)
    genuine, impostor = np.sort(scores[same]), np.sort(scores[~same])
    nothing = dict.fromkeys(Retrieval.model_fields)
    reasons = [
        "Feedback tells about pairs, not classes: retrieval, geometry and OPIS need a gallery.",
    ]
    if min(len(genuine), len(impostor)) < LEAST_PAIRS:
        reasons.append(
            f"Rates need pairs of both kinds; {len(genuine)} same and {len(impostor)} different are known."
        )
    return Report(
        created_at=datetime.now(UTC),
        model_hash=served.model_hash,
        data_hash="",
        split="feedback",
        score=score,
        reasons=reasons,
        counts=Counts(
            items=0,
            classes=0,
            classes_scored=0,
            queries_without_partner=0,
            genuine_pairs=len(genuine),
            impostor_pairs=len(impostor),
        ),
        retrieval=Retrieval(**nothing),
        verification=_verification(genuine, impostor),
        identification=None,
        consistency=empty_consistency(Settings()),
        geometry=Geometry(alignment=None, uniformity=None, tolerance=None),
    )


def build_history_entry(source: Source, report: Report, served: LoadedModel, version: str) -> HistoryEntry:
    """What a report says in one line; FAR and FRR at the threshold that decides 1:1 now.

    They are null where the report is of another score than that threshold.
    """
    point, curve = served.active_verify, report.verification.curve
    far = frr = None
    if point is not None and curve is not None and point.score == report.score:
        # thresholds fall: the last one that is not below the point's decides like it
        place = int(np.searchsorted(-np.array(curve.threshold), -point.threshold, side="right")) - 1
        far, frr = (curve.far[place], curve.frr[place]) if place >= 0 else (0.0, 1.0)
    return HistoryEntry(
        at=report.created_at,
        source=source,
        model_hash=report.model_hash,
        version=version,
        operating_point=None if point is None else point.id,
        items=report.counts.items,
        opis=report.consistency.opis,
        opis_debiased=report.consistency.opis_debiased,
        far=far,
        frr=frr,
    )


def report_file(folder: Path, source: Source) -> Path:
    """Where a recomputed report is kept."""
    return folder / f"report-{source}.json"


def _verification(genuine: Float64s, impostor: Float64s) -> Verification:
    if min(len(genuine), len(impostor)) < LEAST_PAIRS:
        return Verification(eer=None, eer_threshold=None, auc=None, tar_at_far={}, curve=None)
    thresholds = np.unique(np.concatenate([genuine, impostor]))[::-1]
    far = 1.0 - np.searchsorted(impostor, thresholds, side="left") / len(impostor)
    frr = np.searchsorted(genuine, thresholds, side="left") / len(genuine)
    crossing = int(np.argmin(np.abs(far - frr)))
    below = np.searchsorted(impostor, genuine, side="left") + np.searchsorted(impostor, genuine, side="right")
    tar = {
        key: float((1.0 - frr)[far <= float(key)].max(initial=0.0))
        for key in ("0.1", "0.01", "0.001", "0.0001")
    }
    return Verification(
        eer=float((far[crossing] + frr[crossing]) / 2),
        eer_threshold=float(thresholds[crossing]),
        auc=float(below.sum() / (2 * len(genuine) * len(impostor))),
        tar_at_far=dict(tar),
        curve=VerificationCurve(threshold=thresholds.tolist(), far=far.tolist(), frr=frr.tolist()),
    )
