"""Gauges of the active model that are updated when Prometheus scrapes."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from time import monotonic

from index.engines.engine import EngineUnavailable
from index.store.item_store import DATABASE_FILE
from service.models.loaded_model import LoadedModel, measure_recall
from service.telemetry import logs, prometheus

SAMPLING_ERROR = 0.05  # of the recall of 20 rows
PROBE_EVERY = 60.0  # minimum seconds between probes of a gallery that changes


class RecallProbe:
    """Measures the recall of the index again after the gallery has changed, at most once a minute."""

    def __init__(self) -> None:
        self._probed_state: tuple[object, ...] = ()
        self._probed_at = -math.inf

    def update(self, model: LoadedModel, name: str) -> None:
        """Set the gauge of the gallery ``name``, unless nothing has changed, or it was set a minute ago."""
        counts = model.gallery.compute_stats()
        state = (model.model_hash, *(counts.get(what) for what in ("generation", "sequence")))
        if state != self._probed_state and monotonic() >= self._probed_at + PROBE_EVERY:
            self._probed_state, self._probed_at = state, monotonic()
            with suppress(EngineUnavailable):
                recall = measure_recall(model.gallery)
                prometheus.RECALL_PROBE.labels(name).set(recall)
                _check_recall(model, recall)


def _check_recall(model: LoadedModel, recall: float) -> None:
    """Log a recall that is clearly less than the build was to reach."""
    parameters = model.gallery.describe_index().parameters
    if recall < parameters.get("target_recall", 0.0) - SAMPLING_ERROR:
        fields = {"recall": round(recall, 3), "target": parameters["target_recall"]}
        logs.LOGGER.warning(
            "searches find less than index.recall: set LIMEN_RECALL higher, or build again",
            extra={"fields": fields},
        )


def update_gauges(name: str, model: LoadedModel, items: Path | None) -> None:
    """Set the gauges of a gallery's active model; ``items`` is the folder of its item store."""
    gallery, counts = model.gallery, model.gallery.compute_stats()

    def get_count(name: str) -> int:
        return int(counts.get(name, 0))

    prometheus.ROWS.labels(name, "live").set(gallery.n_items)
    prometheus.ROWS.labels(name, "deleted").set(get_count("deleted"))
    prometheus.ROWS.labels(name, "side_exact").set(get_count("side_list") + get_count("buffer"))
    prometheus.UNREACHABLE.labels(name).set(get_count("side_list"))
    prometheus.REBUILD_FAILED.labels(name).set(model.rebuild_error is not None)
    prometheus.DUPLICATES.labels(name).set(get_count("duplicate_groups"))
    for endpoint, point in (("verify", model.active_verify), ("match", model.active_match)):
        prometheus.THRESHOLD.labels(name, endpoint).set(math.nan if point is None else point.threshold)
    if items is None:
        return
    # a generation's name begins with the number of writes it was built from; the bundle's own has none
    generation = str(counts.get("generation", ""))
    writes = generation.partition("-")[0]
    prometheus.GENERATION.labels(name).set(int(writes) if writes.isdigit() else 0)
    log = items / f"{DATABASE_FILE}-wal"
    prometheus.WAL_BYTES.labels(name).set(log.stat().st_size if log.exists() else 0)
    folder = items / "generations" / generation
    if folder.is_dir() and writes.isdigit():
        prometheus.LAST_SNAPSHOT.labels(name).set(folder.stat().st_mtime)
