"""Ctrl-C and SIGTERM ask the loop to stop after the step it is in."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from common.errors import InputError


class Interruption:
    """While entered, the first SIGINT or SIGTERM is remembered in ``asked``; a second one acts as usual."""

    def __init__(self) -> None:
        self.asked: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._put_back()

    def stopped(self, step: int) -> InputError:
        """What to raise once everything is saved."""
        return InputError(
            f"Stopped by {self.asked or 'another process'} after step {step}, everything is saved: go on "
            "with --resume."
        )

    def _note(self, number: int, _: FrameType | None) -> None:
        self.asked = signal.Signals(number).name
        self._put_back()

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
