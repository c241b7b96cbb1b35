"""Gauges that are looked up when Prometheus asks: what the active model holds now."""

from __future__ import annotations

import math
from pathlib import Path
from time import monotonic

from index.store.item_store import DATABASE_FILE
from service.models.loaded_model import LoadedModel, recall_probe
from service.telemetry import prometheus
from service.telemetry.drift import KEPT, DriftMonitor

PROBE_EVERY = 60.0  # seconds, at the most, between probes of a gallery that changes


class RecallProbe:
    """Asks again how many neighbours the index finds once the gallery has changed, but seldom."""

    def __init__(self) -> None:
        self._of: tuple[object, ...] = ()
        self._at = -math.inf

    def look(self, served: LoadedModel) -> None:
        """Set the gauge, unless nothing has changed since or it was set a moment ago."""
        counts = served.gallery.stats()
        of = (served.model_hash, *(counts.get(name) for name in ("generation", "sequence")))
        if of != self._of and monotonic() >= self._at + PROBE_EVERY:
            self._of, self._at = of, monotonic()
            prometheus.RECALL_PROBE.set(recall_probe(served.gallery))


def look(served: LoadedModel, drift: DriftMonitor, items: Path | None) -> None:
    """Set the gauges of the active model; ``items`` is the folder where its items are kept."""
    gallery, counts = served.gallery, served.gallery.stats()

    def count(name: str) -> int:
        return int(counts.get(name, 0))

    prometheus.ROWS.labels("live").set(gallery.n_items)
    prometheus.ROWS.labels("deleted").set(count("dead"))
    prometheus.ROWS.labels("side_exact").set(count("side_list") + count("buffer"))
    prometheus.UNREACHABLE.set(count("side_list"))
    prometheus.DUPLICATES.set(count("duplicate_groups"))
    prometheus.DRIFT.set(drift.auc(gallery.sample(KEPT)))
    for endpoint, point in (("verify", served.active_verify), ("match", served.active_match)):
        prometheus.THRESHOLD.labels(endpoint).set(math.nan if point is None else point.threshold)
    if items is None:
        return
    # a generation is named by the writes it was built from; the bundle's own is the first
    built = str(counts.get("generation", "")).partition("-")[0]
    prometheus.GENERATION.set(int(built) if built.isdigit() else 0)
    log = items / f"{DATABASE_FILE}-wal"
    prometheus.WAL_BYTES.set(log.stat().st_size if log.exists() else 0)
    made = items / "generations" / str(counts.get("generation", ""))
    if made.is_dir() and built.isdigit():
        prometheus.LAST_SNAPSHOT.set(made.stat().st_mtime)
