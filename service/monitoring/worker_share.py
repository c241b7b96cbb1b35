"""What the workers of one service share of their monitoring: series, alerts, readings; one of them leads.

Every worker counts its own requests and looks at its own queries. Counts are added up in a database in a
folder that lasts as long as the service. The worker that holds the lock of that folder is the leader: it
alone raises alerts and tells the webhook, by the worst of what any worker reads. When it ends, the system
gives the lock to another.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from time import time

from sqlalchemy.exc import DBAPIError

from api_schemas.base import Schema
from api_schemas.http.monitoring import Reading
from common.atomic_files import write_atomically
from common.errors import LimenError
from index.store.item_store import ItemStore
from index.store.monitoring_records import MonitoringRecords
from index.store.shared.records import SharedRecords
from service.telemetry.logs import LOGGER

FOLDER_VARIABLE = "LIMEN_WORKERS_FOLDER"  # set by the process that starts the workers
DATABASE_FILE, LOCK_FILE = "monitoring.sqlite", "leader.lock"
FRESH = 180.0  # seconds; readings of a worker that is gone count no longer


class _Readings(Schema):
    at: float
    readings: list[Reading]


def make_share(folder: Path) -> None:
    """Create the database, before there are several that would."""
    ItemStore(folder / DATABASE_FILE).close()


def open_share() -> WorkerShare | None:
    """The share of this worker, or None for a service of one process."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return None if folder is None else WorkerShare(Path(folder))


class WorkerShare:
    """The part of one worker; used by its monitor's thread, ``records`` in any."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: int | None = None
        self._store = ItemStore(folder / DATABASE_FILE)
        self.records = MonitoringRecords(self._store)

    def lead(self) -> bool:
        """Whether this worker is the leader; it is asked again and again, until another has ended."""
        if self._lock is None:
            file = os.open(self._folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(file)
                return False
            self._lock = file
        return True

    def merge_readings(self, own: Mapping[str, Reading]) -> dict[str, Reading]:
        """Of each signal the worst of the latest readings of all workers; these become known to them."""
        name = f"readings-{os.getpid()}.json"
        now = time()
        write_atomically(self._folder / name, write_readings(own, now).encode())
        others = []
        for file in sorted(self._folder.glob("readings-*.json")):
            if file.name != name:
                with suppress(OSError):
                    others.append(file.read_bytes())
        return merge_worst(own, others, now)

    def close(self) -> None:
        """Let another worker lead."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._store.close()


class ReplicaShare:
    """The part of one of the processes that share one PostgreSQL, where series and alerts are kept.

    While the database is away every process goes by its own readings, and who has led leads on.

    Attributes:
        records: None.
    """

    records = None

    def __init__(self, shared: SharedRecords) -> None:
        self._shared = shared
        self._turn = shared.prepare_turn("alerts")
        self._name = token_hex(8)
        self._leads = False

    def lead(self) -> bool:
        """Whether this process is the leader; it is asked again and again, until another has ended."""
        try:
            self._leads = self._turn.take()
        except DBAPIError as error:
            LOGGER.debug("it is not known who raises alerts: %s", error)
        return self._leads

    def merge_readings(self, own: Mapping[str, Reading]) -> dict[str, Reading]:
        """Of each signal the worst of the latest readings of all processes; these become known to them."""
        now = time()
        try:
            others = self._shared.exchange_readings(self._name, write_readings(own, now), now, FRESH)
        except LimenError:
            return dict(own)
        return merge_worst(own, others, now)

    def close(self) -> None:
        """Let another process lead."""
        self._turn.close()


def write_readings(own: Mapping[str, Reading], now: float) -> str:
    """Readings as others read them."""
    return _Readings(at=now, readings=list(own.values())).model_dump_json()


def merge_worst(own: Mapping[str, Reading], others: Iterable[str | bytes], now: float) -> dict[str, Reading]:
    """Of each signal the worst of one's own readings and those of others that are still alive."""
    merged = dict(own)
    for written in others:
        with suppress(ValueError, LimenError):
            other = _Readings.model_validate_json(written)
            if now - other.at < FRESH:
                merged |= {
                    reading.signal: reading
                    for reading in other.readings
                    if reading.signal in merged and _rank(reading) > _rank(merged[reading.signal])
                }
    return merged


def _rank(reading: Reading) -> float:
    if reading.value is None:
        return float("-inf")
    return reading.value if reading.lower is None else reading.lower
