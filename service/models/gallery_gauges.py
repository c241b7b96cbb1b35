"""Gauges of the active model that are updated when Prometheus scrapes."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from time import monotonic

from index.engines.engine import EngineUnavailable
from index.store.item_store import DATABASE_FILE
from service.models.loaded_model import LoadedModel, measure_recall
from service.telemetry import prometheus

PROBE_EVERY = 60.0  # minimum seconds between probes of a gallery that changes


class RecallProbe:
    """Measures the recall of the index again after the gallery has changed, at most once a minute."""

    def __init__(self) -> None:
        self._probed_state: tuple[object, ...] = ()
        self._probed_at = -math.inf

    def update(self, model: LoadedModel) -> None:
        """Set the gauge, unless nothing has changed since or it was set less than a minute ago."""
        counts = model.gallery.compute_stats()
        state = (model.model_hash, *(counts.get(name) for name in ("generation", "sequence")))
        if state != self._probed_state and monotonic() >= self._probed_at + PROBE_EVERY:
            self._probed_state, self._probed_at = state, monotonic()
            with suppress(EngineUnavailable):
                prometheus.RECALL_PROBE.set(measure_recall(model.gallery))


def update_gauges(model: LoadedModel, items: Path | None) -> None:
    """Set the gauges of the active model; ``items`` is the folder of its item store."""
    gallery, counts = model.gallery, model.gallery.compute_stats()

    def get_count(name: str) -> int:
        return int(counts.get(name, 0))

    prometheus.ROWS.labels("live").set(gallery.n_items)
    prometheus.ROWS.labels("deleted").set(get_count("deleted"))
    prometheus.ROWS.labels("side_exact").set(get_count("side_list") + get_count("buffer"))
    prometheus.UNREACHABLE.set(get_count("side_list"))
    prometheus.REBUILD_FAILED.set(model.rebuild_error is not None)
    prometheus.DUPLICATES.set(get_count("duplicate_groups"))
    for endpoint, point in (("verify", model.active_verify), ("match", model.active_match)):
        prometheus.THRESHOLD.labels(endpoint).set(math.nan if point is None else point.threshold)
    if items is None:
        return
    # a generation's name begins with the number of writes it was built from; the bundle's own has none
    generation = str(counts.get("generation", ""))
    writes = generation.partition("-")[0]
    prometheus.GENERATION.set(int(writes) if writes.isdigit() else 0)
    log = items / f"{DATABASE_FILE}-wal"
    prometheus.WAL_BYTES.set(log.stat().st_size if log.exists() else 0)
    folder = items / "generations" / generation
    if folder.is_dir() and writes.isdigit():
        prometheus.LAST_SNAPSHOT.set(folder.stat().st_mtime)
