"""Ctrl-C and SIGTERM stop the training loop after the step it is in."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from common.errors import InputError


class StopSignals:
    """While entered, the first SIGINT or SIGTERM is noted in ``received``; a second one acts as usual."""

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore_handlers()

    def build_error(self, step: int) -> InputError:
        """The error to raise once everything is saved."""
        return InputError(
            f"Stopped by {self.received or 'another process'} after step {step}, everything is saved: go on "
            "with --resume."
        )

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
