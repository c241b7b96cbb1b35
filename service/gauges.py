"""Gauges that are looked up when Prometheus asks: what the active model holds now."""

from __future__ import annotations

import math
from pathlib import Path

from index.store import DATABASE_FILE
from service import metrics
from service.served import Served


def look(served: Served, items: Path | None) -> None:
    """Set the gauges of the active model; ``items`` is the folder where its items are kept."""
    gallery, counts = served.gallery, served.gallery.stats()

    def count(name: str) -> int:
        return int(counts.get(name, 0))

    metrics.ROWS.labels("live").set(gallery.n_items)
    metrics.ROWS.labels("deleted").set(count("dead"))
    metrics.ROWS.labels("side_exact").set(count("side_list") + count("buffer"))
    metrics.UNREACHABLE.set(count("side_list"))
    metrics.DUPLICATES.set(count("duplicates"))
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
