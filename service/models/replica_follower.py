"""Follows what other processes of the same service write, in a thread of its own."""

from __future__ import annotations

from threading import Event, Thread
from time import monotonic

from api_schemas.http.decisions import Replica
from index.store.shared.records import SharedRecords
from service.errors.problems import STALE, ServiceProblem
from service.models.model_registry import ModelRegistry
from service.settings import ServiceSettings
from service.telemetry import prometheus
from service.telemetry.logs import LOGGER

LOOK_EVERY = 0.5  # seconds between two looks where nothing was heard: what a lost message costs
AGAIN_AFTER = 0.5  # seconds between two attempts at a database that is away


class ReplicaFollower:
    """Listens to the database and has the models show what was written; ``start`` begins.

    What is shown is at most ``seconds`` old: all that was committed before that is in every answer.
    """

    def __init__(self, settings: ServiceSettings, shared: SharedRecords, models: ModelRegistry) -> None:
        self._most, self._gallery = settings.max_staleness, settings.gallery
        self._shared, self._models = shared, models
        self._current_at = monotonic()
        self._closing = Event()
        self._thread: Thread | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the database was last looked at, and all of it shown."""
        return monotonic() - self._current_at

    def describe(self) -> Replica:
        """How far this process is behind."""
        active = self._models.active
        live = None if active is None else active.live
        return Replica(
            change=0 if live is None else live.followed.change,
            lag_changes=0 if live is None else live.n_behind,
            lag_seconds=round(self.seconds, 3),
            waits_for=self._models.awaited,
        )

    def check_current(self) -> None:
        """Raises the problem ``stale`` (503) for a process that does not know what others have written."""
        if self.seconds > self._most:
            raise ServiceProblem(
                STALE,
                f"What other processes have written has not been seen for {self.seconds:.0f} s, as the "
                f"database does not answer: nothing is decided after {self._most:g} s "
                "(LIMEN_MAX_STALENESS). It goes on by itself once the database is back.",
                headers={"Retry-After": "2"},
            )

    def start(self) -> None:
        """Begin; the models are loaded."""
        self._current_at = monotonic()
        self._thread = Thread(target=self._run, name="follower", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def update_gauges(self) -> None:
        """Set the metrics."""
        now = self.describe()
        prometheus.LAG_CHANGES.labels(self._gallery).set(now.lag_changes)
        prometheus.LAG_SECONDS.labels(self._gallery).set(now.lag_seconds)

    def _run(self) -> None:
        is_away = False
        while not self._closing.is_set():
            try:
                with self._shared.database.listen() as wait:
                    while not self._closing.is_set():
                        begun = monotonic()
                        self._models.follow()
                        self._current_at = begun
                        if is_away:
                            LOGGER.info("other processes are followed again")
                            is_away = False
                        wait(LOOK_EVERY)
            except Exception as error:  # the driver's own among them; whatever it is, it is tried again
                if not is_away and not self._closing.is_set():
                    LOGGER.error("other processes cannot be followed: %s", str(error).strip())
                is_away = True
                self._closing.wait(AGAIN_AFTER)
