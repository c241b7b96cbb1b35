"""Keeps the gallery's report current: once writes have settled, what changed is counted anew."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread
from time import monotonic

from evaluation.gallery_counts.counts_file import read_about
from service.models.loaded_model import LoadedModel, find_items_folder
from service.models.model_registry import ModelRegistry
from service.settings import ServiceSettings
from service.telemetry.logs import LOGGER

LOOKS = 4  # while writes settle


class ReportKeeper:
    """A thread that watches the number of the last write.

    Args:
        submit: queues the job that brings the report up to date.
    """

    def __init__(
        self, settings: ServiceSettings, models: ModelRegistry, submit: Callable[[], object]
    ) -> None:
        self._settle = settings.gallery_report_after
        self._most = settings.gallery_report_items
        self._models, self._submit = models, submit
        self._data = settings.data
        self._stop = Event()
        self._thread: Thread | None = None
        self._first: dict[str, int] = {}  # by model: the last write when it was first looked at
        self._submitted: dict[str, int] = {}

    def start(self) -> None:
        """Begin to watch, where there is a data folder and the setting is not 0."""
        if self._settle > 0 and self._data is not None:
            self._thread = Thread(target=self._watch, name="gallery report", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        seen, since = ("", -1), monotonic()
        while not self._stop.wait(min(5.0, self._settle / LOOKS)):
            model = self._models.active
            if model is None or model.live is None:
                continue
            try:
                now = model.model_hash, int(model.gallery.compute_stats()["sequence"])
                if now != seen:
                    seen, since = now, monotonic()
                elif monotonic() - since >= self._settle and self._is_due(model, now[1]):
                    self._submitted[model.model_hash] = now[1]
                    self._submit()
            except Exception:  # the gallery is being closed, its database is away, or too many jobs wait
                LOGGER.warning("the gallery's report was not brought up to date", exc_info=True)

    def _is_due(self, model: LoadedModel, newest: int) -> bool:
        """Whether there are writes that neither the report holds nor a job that was queued before will."""
        assert self._data is not None
        about = read_about(find_items_folder(self._models.active_folder, self._data))
        first = self._first.setdefault(model.model_hash, newest) if about is None else about.sequence
        return newest not in (first, self._submitted.get(model.model_hash)) and (
            model.gallery.n_items <= self._most
        )
