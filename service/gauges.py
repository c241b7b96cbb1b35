"""Gauges that are looked up when Prometheus asks: what the active model holds now."""

from __future__ import annotations

import math
from pathlib import Path
from time import monotonic

from index.store import DATABASE_FILE
from service import metrics
from service.drift import KEPT, Drift
from service.served import Served, recall_probe

PROBE_EVERY = 60.0  # seconds, at the most, between probes of a gallery that changes


class RecallProbe:
    """Asks again how many neighbours the index finds once the gallery has changed, but seldom."""

    def __init__(self) -> None:
        self._of: tuple[object, ...] = ()
        self._at = -math.inf

    def look(self, served: Served) -> None:
        """Set the gauge, unless nothing has changed since or it was set a moment ago."""
        counts = served.gallery.stats()
        of = (served.model_hash, *(counts.get(name) for name in ("generation", "sequence")))
        if of != self._of and monotonic() >= self._at + PROBE_EVERY:
            self._of, self._at = of, monotonic()
            metrics.RECALL_PROBE.set(recall_probe(served.gallery))


def look(served: Served, drift: Drift, items: Path | None) -> None:
    """Set the gauges of the active model; ``items`` is the folder where its items are kept."""
    gallery, counts = served.gallery, served.gallery.stats()

    def count(name: str) -> int:
        return int(counts.get(name, 0))

    metrics.ROWS.labels("live").set(gallery.n_items)
    metrics.ROWS.labels("deleted").set(count("dead"))
    metrics.ROWS.labels("side_exact").set(count("side_list") + count("buffer"))
    metrics.UNREACHABLE.set(count("side_list"))
    metrics.DUPLICATES.set(count("duplicate_groups"))
    metrics.DRIFT.set(drift.auc(gallery.sample(KEPT)))
    for endpoint, point in (("verify", served.active_verify), ("match", served.active_match)):
        metrics.THRESHOLD.labels(endpoint).set(math.nan if point is None else point.threshold)
    if items is None:
        return
    # a generation is named by the writes it was built from; the bundle's own is the first
    built = str(counts.get("generation", "")).partition("-")[0]
    metrics.GENERATION.set(int(built) if built.isdigit() else 0)
    log = items / f"{DATABASE_FILE}-wal"
    metrics.WAL_BYTES.set(log.stat().st_size if log.exists() else 0)
    made = items / "generations" / str(counts.get("generation", ""))
    if made.is_dir() and built.isdigit():
        metrics.LAST_SNAPSHOT.set(made.stat().st_mtime)
