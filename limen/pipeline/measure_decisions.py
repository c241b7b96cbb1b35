"""What a threshold decides on the data of an evaluation: an audit, an operating point's figures, groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from api_schemas.operating_point import OperatingPoint
from api_schemas.report import Report
from common.progress import Track
from decision.operating_point_files import SavedPoint
from embeddings.embedding_set import EmbeddingSet
from evaluation.audit.audit_threshold import audit_threshold
from evaluation.audit.decision_figures import add_decision_figures, measure_fpir_by_gallery
from evaluation.audit.group_rates import measure_groups
from evaluation.audit.threshold_rates import MeasuredThreshold
from evaluation.pairs.exclusions import ExcludeSame
from limen.pipeline.chosen_threshold import ChosenThreshold

GROUPS_AT_FAR = 0.01  # where no threshold is given, groups are compared at the pooled threshold of this FAR


@dataclass(frozen=True, eq=False)
class DecisionRequest:
    """The data of an evaluation, and the columns to group it by; whether it is of a run."""

    items: EmbeddingSet
    gallery: EmbeddingSet | None
    unknown: EmbeddingSet | None
    exclude_same: ExcludeSame
    groups: Sequence[str]
    is_of_run: bool
    track: Track


def measure_decisions(
    report: Report,
    request: DecisionRequest,
    saved: SavedPoint | None,
    chosen: ChosenThreshold | None,
    model_hash: str,
) -> tuple[Report, OperatingPoint | None]:
    """The report with what a threshold or groups do, and the operating point of a threshold chosen by hand.

    The threshold is that of an operating point, or a chosen one; without either, groups are compared where
    the pooled FAR is 1 %.
    """
    sets: dict[str, Any] = {
        "gallery": request.gallery,
        "unknown": request.unknown,
        "exclude_same": request.exclude_same,
        "track": request.track,
    }
    if chosen is not None:
        audited = audit_threshold(request.items, chosen.value, chosen.distance, groups=request.groups, **sets)
        is_search = request.gallery is not None or request.unknown is not None
        endpoint = chosen.decides or ("match" if is_search else "verify")
        update: dict[str, object] = {
            "audit": audited.audit,
            "groups": audited.audit.groups,
            "reasons": [*report.reasons, *audited.reasons],
        }
        if report.identification is not None:
            sizes = measure_fpir_by_gallery(audited.measured)
            update["identification"] = report.identification.model_copy(update={"fpir_by_gallery": sizes})
        return report.model_copy(update=update), audited.build_point(endpoint, model_hash)
    if saved is not None:
        figures = add_decision_figures(
            report,
            request.items,
            saved.point,
            saved.scorer,
            groups=request.groups,
            may_be_fitted=request.is_of_run,
            **sets,
        )
        return figures, None
    curve = report.verification.curve
    if curve is None:
        return report, None
    kept = [at for at, far in zip(curve.threshold, curve.far, strict=True) if far <= GROUPS_AT_FAR]
    threshold = min(kept, default=curve.threshold[0])
    measured = MeasuredThreshold.prepare(request.items, threshold, **sets)
    groups = measure_groups(measured, request.items, request.groups, request.unknown)
    return report.model_copy(update={"groups": groups}), None
