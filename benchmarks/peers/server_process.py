"""A server as a process on loopback, and what memory and processor time processes take."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def find_free_port() -> int:
    """A port that nothing listens on, below those that the system hands out meanwhile."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


class ServerProcess:
    """A server that is started and ended with its children."""

    def __init__(self, command: Sequence[str], port: int, log: Path, **options: Any) -> None:
        environment = os.environ | options.pop("environment", {})
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                command, stdout=file, stderr=file, env=environment, start_new_session=True, **options
            )
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                if self._process.poll() is not None:
                    raise RuntimeError(f"{command[0]} ended: {log.read_text()[-2000:]}") from None
                time.sleep(0.01)

    def list_processes(self) -> list[int]:
        """It and its children."""
        return list_tree(self._process.pid)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end, and wait."""
        self._process.send_signal(number)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def list_tree(pid: int) -> list[int]:
    """A process and all below it; nothing where it has ended."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [pid, *(each for child in children for each in list_tree(int(child)))]


def measure_memory(processes: Iterable[int]) -> float:
    """Resident MiB, pages that several processes share counted once."""
    total = 0
    for pid in processes:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def measure_cpu(processes: Iterable[int]) -> float:
    """Seconds of processor time that these took, with their children that have ended.

    One that ends before it is looked at counts among its parent's.
    """
    ticks = 0
    for pid in reversed(list(processes)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")
