"""Background worker thread that runs whenever its work is due."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Thread
from time import monotonic

LOGGER = logging.getLogger("limen.index")


class BackgroundWorker:
    """Calls ``work`` until it is no longer ``due``; never twice at once.

    Attributes:
        error: of the last call, None if it succeeded; the next then waits ``retry_seconds``.
    """

    def __init__(
        self,
        work: Callable[[], None],
        is_due: Callable[[], bool],
        lock: AbstractContextManager[object],
        retry_seconds: float,
    ) -> None:
        self._work, self._is_due = work, is_due
        self._lock = lock  # held while checking whether work is due
        self._retry_seconds = retry_seconds
        self._retry_at = 0.0
        self._thread: Thread | None = None
        self.error: str | None = None

    def start_if_due(self) -> None:
        """Start unless it is running, or failed a moment ago."""
        with self._lock:
            if self._thread is None and monotonic() >= self._retry_at and self._is_due():
                self._thread = Thread(target=self._run, name="limen-rebuild", daemon=True)
                self._thread.start()

    def wait(self) -> None:
        """Return once nothing is running."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            try:
                self._work()
                self.error = None
            except Exception as error:  # logged and kept for monitoring: there is no caller to raise it to
                self.error = f"{type(error).__name__}: {error}"
                self._retry_at = monotonic() + self._retry_seconds
                LOGGER.error("limen-rebuild failed: %s", self.error, exc_info=error)
            with self._lock:
                if self.error is not None or not self._is_due():
                    self._thread = None
                    return
