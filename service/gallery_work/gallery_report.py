"""The report of a gallery: in full from all pairs, or brought up to date from the items that changed."""

from __future__ import annotations

from typing import Literal

import numpy as np

from api_schemas.report import Report
from common.array_types import Float32s
from common.progress import Track
from decision.scorers import Scorer
from embeddings.embedding_set import EmbeddingSet
from evaluation.evaluate import evaluate_embeddings
from evaluation.gallery_counts.counts_file import AboutCounts, SavedCounts, open_counts, save_counts
from evaluation.gallery_counts.counts_report import (
    build_counted_report,
    build_full_report,
    measure_classes,
)
from evaluation.gallery_counts.item_counts import ItemCounts, count_pairs, update_counts
from evaluation.metrics.opis import OpisSettings
from service.gallery_work.gallery_task import GalleryTask


def compute_report(
    task: GalleryTask,
    items: EmbeddingSet,
    sequence: int,
    model_hash: str,
    scorer: Scorer,
    track: Track,
) -> Report:
    """The report of the items as they are now; with a data folder the counts behind it are kept there.

    Raises:
        InputError: there are too few items.
    """
    saved = None
    if task.update and task.items_folder is not None:
        saved = _find_usable(open_counts(task.items_folder), task, model_hash, scorer)
    if saved is not None and len(items.classes) > 1:
        counts, _ = update_counts(saved.counts, items, scorer, track)
        grid = np.array(saved.about.grid, dtype=np.float32)
        _save(
            task, counts, saved.about.model_copy(update={"sequence": sequence, "threshold": task.threshold})
        )
        return _add_classes(
            task, counts, build_counted_report(counts, grid, scorer, model_hash, saved.about.noise_floor)
        )
    settings = OpisSettings()
    grid_from: Literal["holdout", "gallery"] = "gallery"
    if task.thresholds is not None:
        settings = OpisSettings(grid=len(task.thresholds), thresholds=tuple(task.thresholds))
        grid_from = "holdout"
    full = evaluate_embeddings(
        items, scorer=scorer, model_hash=model_hash, split="gallery", settings=settings, track=track
    )
    if not full.consistency.thresholds:
        return full
    grid = np.array(full.consistency.thresholds, dtype=np.float32)
    further = [*task.further_thresholds, *([] if task.threshold is None else [task.threshold])]
    counts = count_pairs(items, _join(grid, further), scorer, track)
    report = _add_classes(task, counts, build_full_report(counts, grid, full))
    about = AboutCounts(
        model_hash=model_hash,
        score=scorer.score,
        sequence=sequence,
        threshold=task.threshold,
        grid=grid.tolist(),
        grid_from=grid_from,
        noise_floor=report.consistency.noise_floor,
        sha256="",
    )
    _save(task, counts, about)
    return report


def _add_classes(task: GalleryTask, counts: ItemCounts, report: Report) -> Report:
    if task.threshold is None:
        return report
    return report.model_copy(update={"at_threshold": measure_classes(counts, task.threshold)})


def _find_usable(
    saved: SavedCounts | None, task: GalleryTask, model_hash: str, scorer: Scorer
) -> SavedCounts | None:
    """Counts of this model and score, at the thresholds that are wanted now."""
    if saved is None or saved.about.model_hash != model_hash or saved.about.score != scorer.score:
        return None
    if task.threshold is not None and np.float32(task.threshold) not in saved.counts.thresholds:
        return None
    if task.thresholds is None:
        return saved if saved.about.grid_from == "gallery" else None
    wanted = np.array(task.thresholds, dtype=np.float32)
    return saved if np.array_equal(np.array(saved.about.grid, dtype=np.float32), wanted) else None


def _join(grid: Float32s, further: list[float]) -> Float32s:
    return np.concatenate([grid, np.array(further, dtype=np.float32)])


def _save(task: GalleryTask, counts: ItemCounts, about: AboutCounts) -> None:
    if task.items_folder is not None:
        save_counts(task.items_folder, counts, about)
