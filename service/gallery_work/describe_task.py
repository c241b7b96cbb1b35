"""The task of a worker, from what the service has loaded."""

from __future__ import annotations

from pathlib import Path

from service.gallery_work.gallery_task import GalleryTask
from service.models.loaded_model import LoadedModel, find_items_folder
from service.settings import ServiceSettings

MOST_THRESHOLDS = 100  # of operating points, at which a report gives rates


def describe_report(
    settings: ServiceSettings, bundle: Path, model: LoadedModel, *, update: bool
) -> GalleryTask:
    """A report by the score that decides now, over the hold-out's thresholds if they are of that score."""
    score = model.gallery.scorer.score
    holdout = model.report
    is_comparable = holdout is not None and holdout.score == score and holdout.consistency.thresholds
    of_points = sorted({point.threshold for point in model.points.values() if point.score == score})
    return _describe(settings, bundle, model).model_copy(
        update={
            "kind": "report",
            "update": update,
            "thresholds": holdout.consistency.thresholds if holdout is not None and is_comparable else None,
            "threshold": find_deciding_threshold(model),
            "further_thresholds": of_points[:MOST_THRESHOLDS],
        }
    )


def find_deciding_threshold(model: LoadedModel) -> float | None:
    """The threshold of the active 1:1 point, if it is of the score that a report is about."""
    point = model.active_verify
    return point.threshold if point is not None and point.score == model.gallery.scorer.score else None


def describe_audit(settings: ServiceSettings, bundle: Path, model: LoadedModel) -> GalleryTask:
    """An audit of labels by the threshold that decides 1:1 now, or else 1:N."""
    return _describe(settings, bundle, model).model_copy(update={"most": settings.label_findings})


def _describe(settings: ServiceSettings, bundle: Path, model: LoadedModel) -> GalleryTask:
    point = model.active_verify or model.active_match
    return GalleryTask(
        kind="label audit",
        bundle=bundle,
        items_folder=None if settings.data is None else find_items_folder(bundle, settings.data),
        database_url=settings.database_url,
        point=None if point is None else point.id,
    )
