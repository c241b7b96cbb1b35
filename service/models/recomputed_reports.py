"""Reports recomputed by the service: of its gallery, and of the feedback on its decisions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np

from api_schemas.http.admin import HistoryEntry
from api_schemas.http.gallery import Feedback
from api_schemas.report import Consistency, Counts, Geometry, Report, Retrieval, Verification
from decision.scorers import count_accepted
from evaluation.metrics.judged_pairs import measure_judged_consistency
from evaluation.metrics.opis import OpisSettings, build_consistency
from evaluation.metrics.verification import verify_scores
from service.models.loaded_model import LoadedModel
from service.models.version_figures import summarize_report

Source = Literal["holdout", "gallery", "feedback"]
MIN_PAIRS = 2


def compute_feedback_report(model: LoadedModel, feedback: Sequence[Feedback]) -> Report:
    """FAR and FRR of the pairs with ground truth; figures that pairs cannot give are null.

    Pairs that were decided by another score than the active point's are left out.
    """
    score = model.gallery.scorer.score
    pairs = _select_comparable(model, feedback)
    same = np.array([entry.same for entry in pairs], dtype=bool)
    scores = np.array([entry.score for entry in pairs], dtype=np.float64)
    genuine, impostor = scores[same], scores[~same]
    too_few = min(len(genuine), len(impostor)) < MIN_PAIRS
    reasons = ["Feedback is about pairs: retrieval and geometry need a gallery."]
    if too_few:
        reasons.append(
            f"Rates need at least {MIN_PAIRS} pairs of either kind; there are {len(genuine)} genuine and "
            f"{len(impostor)} impostor pairs."
        )
    consistency, why = measure_feedback_consistency(model, feedback)
    return Report(
        created_at=datetime.now(UTC),
        model_hash=model.model_hash,
        data_hash="",
        split="feedback",
        score=score,
        reasons=[*reasons, *why],
        counts=Counts(
            items=0,
            classes=0,
            classes_scored=len(consistency.per_class),
            queries_without_partner=0,
            genuine_pairs=len(genuine),
            impostor_pairs=len(impostor),
        ),
        retrieval=Retrieval(**dict.fromkeys(Retrieval.model_fields)),
        verification=Verification(eer=None, eer_threshold=None, auc=None, tar_at_far={}, curve=None)
        if too_few
        else verify_scores(genuine, impostor),
        identification=None,
        consistency=consistency,
        geometry=Geometry(alignment=None, uniformity=None, tolerance=None),
    )


def measure_feedback_consistency(
    model: LoadedModel, feedback: Sequence[Feedback]
) -> tuple[Consistency, list[str]]:
    """OPIS of judged pairs over the thresholds of the hold-out report, and what is to be said of it.

    A pair is about the classes of those of its items that are still in the gallery.
    """
    holdout = model.report
    if holdout is None or holdout.score != model.gallery.scorer.score or not holdout.consistency.thresholds:
        return build_consistency(OpisSettings()), [
            "OPIS is taken over the thresholds of the hold-out report, and the bundle has none of the score "
            "that decides."
        ]
    about: list[tuple[str, float, bool]] = []
    for entry in _select_comparable(model, feedback):
        assert entry.score is not None
        labels = {entry.not_label, *(_find_label(model, item_id) for item_id in (entry.a, entry.b))}
        known = sorted(label for label in labels if label is not None)
        about += [(label, entry.score, entry.same) for label in known]
    names, codes = np.unique([label for label, _, _ in about], return_inverse=True)
    return measure_judged_consistency(
        names,
        codes,
        np.array([score for _, score, _ in about], dtype=np.float64),
        np.array([same for _, _, same in about], dtype=bool),
        np.array(holdout.consistency.thresholds, dtype=np.float32),
    )


def _select_comparable(model: LoadedModel, feedback: Sequence[Feedback]) -> list[Feedback]:
    """What was decided by this model, by the score of the active point."""
    score = model.gallery.scorer.score
    return [
        entry
        for entry in feedback
        if entry.model_hash == model.model_hash
        and entry.score is not None
        and model.get_score(entry.operating_point) == score
    ]


def _find_label(model: LoadedModel, item_id: str | None) -> str | None:
    found = None if item_id is None else model.gallery.view.locate(item_id)
    if found is None:
        return None
    part, row = found
    return part.items.classes[int(part.items.label_codes[row])]


def build_history_entry(source: Source, report: Report, model: LoadedModel, version: str) -> HistoryEntry:
    """The main figures of a report; FAR and FRR at the threshold that decides 1:1 now.

    They are null where the report is of another score than that threshold.
    """
    point, curve = model.active_verify, report.verification.curve
    far = frr = None
    if point is not None and curve is not None and point.score == report.score:
        # thresholds descend: the last one that is not below the point's decides like it
        last = int(count_accepted(curve.threshold[::-1], point.threshold)) - 1
        far, frr = (curve.far[last], curve.frr[last]) if last >= 0 else (0.0, 1.0)
    figures = summarize_report(report)
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
        opis_ci=figures.opis_ci,
        recall_at_1=figures.recall_at_1,
        eer=figures.eer,
        fnir=figures.fnir,
    )


def get_report_path(folder: Path, source: Source) -> Path:
    """The file of a recomputed report in the folder of a model's items."""
    return folder / f"report-{source}.json"
