"""Items written since the bundle was made against those of the bundle, at most every ten minutes."""

from __future__ import annotations

from pathlib import Path
from time import monotonic

import numpy as np

from api_schemas.http.monitoring import Reading
from evaluation.drift.repeated_looks import spend_alpha
from index.search.item_sample import read_item_sample
from service.models.loaded_model import LoadedModel
from service.monitoring.query_comparison import ALPHA
from service.monitoring.signals import measure_gallery_drift

SAMPLE = 4_096  # items
EVERY = 600.0  # seconds


class GalleryComparison:
    """The reading ``gallery_drift`` of the active model; used by one thread."""

    def __init__(self) -> None:
        self._seen: tuple[object, ...] = ()
        self._model = ""
        self._looked = self._looks = 0.0
        self.reading = _describe("no item has been written since the bundle was made")

    def look(self, model: LoadedModel, bundle: Path) -> Reading:
        """Measure again if items were written and the last look was long ago."""
        if model.live is None:
            return _describe("without a data folder the gallery is the bundle's")
        if model.model_hash != self._model:
            self._model, self._seen, self._looks = model.model_hash, (), 0
        written = (model.gallery.compute_stats().get("sequence"),)
        if written == self._seen or (self._seen and monotonic() - self._looked < EVERY):
            return self.reading
        self._seen, self._looked = written, monotonic()
        rows, labels = model.live.monitoring.read_written_items(SAMPLE)
        if not rows:
            self.reading = _describe("no item has been written since the bundle was made")
            return self.reading
        self._looks += 1
        vectors = np.stack([np.frombuffer(row, dtype="<f4") for row in rows])
        alpha = spend_alpha(ALPHA, int(self._looks))
        self.reading = measure_gallery_drift(vectors, labels, *read_item_sample(bundle, SAMPLE), alpha)
        return self.reading


def _describe(why: str) -> Reading:
    return Reading(signal="gallery_drift", value=None, detail=f"Not measured: {why}.")
