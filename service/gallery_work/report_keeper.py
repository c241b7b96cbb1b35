"""Keeps the gallery's report current: once writes have settled, or another threshold decides."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from threading import Event, Thread
from time import monotonic

from evaluation.gallery_counts.counts_file import read_about
from index.store.shared.records import SharedRecords
from service.gallery_work.describe_task import find_deciding_threshold
from service.models.loaded_model import LoadedModel, find_items_folder
from service.models.model_registry import ModelRegistry
from service.settings import ServiceSettings
from service.telemetry.logs import LOGGER

TURN = 60.0  # seconds after which a turn is taken anew, for it may have been lost with its session
NEXT_TURN = 1.0
LOOKS = 4  # while writes settle
State = tuple[int, float | None]  # the number of the last write, and the threshold that decides 1:1


class ReportKeeper:
    """A thread that watches the number of the last write, and the threshold that decides 1:1.

    Args:
        submit: queues the job that brings the report up to date.
        shared: where several processes are one service: one of them watches, another once it has ended.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        models: ModelRegistry,
        submit: Callable[[], object],
        shared: SharedRecords | None = None,
    ) -> None:
        self._shared = shared
        self._settle = settings.gallery_report_after
        self._most = settings.gallery_report_items
        self._models, self._submit = models, submit
        self._data = settings.data
        self._stop = Event()
        self._thread: Thread | None = None
        self._first: dict[str, State] = {}  # by model, when it was first looked at
        self._submitted: dict[str, State] = {}
        self._seen: tuple[str, State] = ("", (-1, None))
        self._since = monotonic()

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
        if self._shared is None:
            self._look(inf)
        while not self._stop.is_set():
            assert self._shared is not None
            try:
                with self._shared.take_turn("gallery reports") as is_ours:
                    if is_ours:
                        self._look(TURN)
            except Exception:  # the database is away
                LOGGER.debug("no turn to watch the gallery's report", exc_info=True)
            self._stop.wait(NEXT_TURN)

    def _look(self, seconds: float) -> None:
        """Look again and again, for so many seconds."""
        end = monotonic() + seconds
        while monotonic() < end and not self._stop.wait(min(5.0, self._settle / LOOKS)):
            model = self._models.active
            if model is None or model.live is None:
                continue
            try:
                newest = int(model.gallery.compute_stats()["sequence"])
                now = model.model_hash, (newest, find_deciding_threshold(model))
                if now != self._seen:
                    self._seen, self._since = now, monotonic()
                elif monotonic() - self._since >= self._settle and self._is_due(model, now[1]):
                    self._submitted[model.model_hash] = now[1]
                    self._submit()
            except Exception:  # the gallery is being closed, its database is away, or too many jobs wait
                LOGGER.warning("the gallery's report was not brought up to date", exc_info=True)

    def _is_due(self, model: LoadedModel, state: State) -> bool:
        """Whether writes or a threshold are such that neither the report nor a job queued before has them."""
        assert self._data is not None
        about = read_about(find_items_folder(self._models.active_folder, self._data))
        if about is None:
            first = self._first.setdefault(model.model_hash, state)
        else:
            first = about.sequence, about.threshold
        return state not in (first, self._submitted.get(model.model_hash)) and (
            model.gallery.n_items <= self._most
        )
