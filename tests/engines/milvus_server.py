"""Milvus over TCP: milvus-lite's server as a process on loopback, or the one that LIMEN_MILVUS_URI names.

Gaps of milvus-lite that are worked round here, and nowhere else: it listens on every address unless told not
to, it takes any token, and it knows neither users nor TLS.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from tests.conftest import absent

URI = "LIMEN_MILVUS_URI"


class LocalServer:
    """A server that can be killed and started again on the same data and port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return once it accepts connections."""
        arguments = ["--host", "127.0.0.1", "--port", str(self.port), "--data-dir", str(self._folder)]
        with (self._folder.parent / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "milvus_lite", "server", *arguments],
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        while self._process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.02)
        raise AssertionError((self._folder.parent / "log").read_text())

    def kill(self) -> None:
        """End it as `kill -9` does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None


@contextmanager
def run_local_server() -> Iterator[LocalServer]:
    """A server of milvus-lite at work, whose files go with the block."""
    if find_spec("milvus_lite") is None or find_spec("pymilvus") is None:
        absent("milvus-lite (pip install 'limen[dev]')")
    folder = Path(tempfile.mkdtemp(prefix="milvus"))
    (folder / "data").mkdir()
    server = LocalServer(folder / "data")
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder)


@contextmanager
def provide_milvus() -> Iterator[str]:
    """The address of the Milvus to test on."""
    if URI in os.environ:
        yield os.environ[URI]
        return
    with run_local_server() as server:
        yield server.uri
