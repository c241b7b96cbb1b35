"""A worker process and the one that started it."""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing import parent_process
from multiprocessing.connection import wait


def exit_with_parent() -> None:
    """Have this process stop, as at SIGTERM, once the process that started it is gone.

    A parent that is killed cannot stop its workers: they would hold the port and answer on.
    """
    parent = parent_process()
    if parent is None:
        return

    def watch(gone: int = parent.sentinel) -> None:
        wait([gone])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
