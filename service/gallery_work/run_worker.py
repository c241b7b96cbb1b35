"""Worker processes as the service sees them: started for a task, listened to, stopped with the service."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from threading import Lock
from typing import Any

from pydantic import ValidationError

from common.errors import LimenError
from service.gallery_work.gallery_task import GalleryTask, Message
from service.telemetry.logs import LOGGER

Report = Callable[[str, float | None], None]
COMMAND = (sys.executable, "-m", "service.gallery_work.gallery_worker")


class WorkerFailed(LimenError):
    """The worker could not do its task; the message says why."""


class GalleryWorkers:
    """One worker process at a time, so that memory and cores are bounded."""

    def __init__(self) -> None:
        self._turn = Lock()
        self._state = Lock()
        self._process: subprocess.Popen[str] | None = None
        self._closed = False

    def run(self, task: GalleryTask, report: Report) -> dict[str, Any]:
        """The document that the task makes; ``report`` is called with the step and the part of it done.

        Raises:
            WorkerFailed: bad input, an error in the worker, or the end of the service.
        """
        with self._turn, self._start() as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(task.model_dump_json() + "\n")
                process.stdin.flush()
                return self._listen(process, report)
            except BrokenPipeError:
                raise WorkerFailed(self._explain_end(process.wait())) from None
            finally:
                process.kill()

    def close(self) -> None:
        """Stop the running worker, and start no other."""
        with self._state:
            self._closed = True
            if self._process is not None:
                self._process.kill()

    def _start(self) -> subprocess.Popen[str]:
        with self._state:
            if self._closed:
                raise WorkerFailed(self._explain_end(None))
            self._process = subprocess.Popen(
                COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            return self._process

    def _listen(self, process: subprocess.Popen[str], report: Report) -> dict[str, Any]:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                message = Message.model_validate_json(line)
            except ValidationError:
                continue
            if message.traceback is not None:
                LOGGER.error("gallery worker failed", extra={"fields": {"traceback": message.traceback}})
            if message.problem is not None:
                raise WorkerFailed(message.problem)
            if message.result is not None:
                return message.result
            if message.step is not None:
                report(message.step, message.progress)
        raise WorkerFailed(self._explain_end(process.wait()))

    def _explain_end(self, code: int | None) -> str:
        if self._closed:
            return "The service ended before the work was done: start it again."
        return f"The worker process ended with code {code} before its work was done, as when memory runs out."
