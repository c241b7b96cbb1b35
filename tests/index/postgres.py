"""A PostgreSQL server of the tests' own: on a socket in a temporary folder, run by an unprivileged user."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tests.conftest import absent

USER = "limen"


def program(name: str) -> str:
    """A program of PostgreSQL, also where Debian keeps it."""
    program = shutil.which(name) or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)), None
    )
    if program is None:
        absent(f"PostgreSQL ({name}; apt-get install postgresql)")
    assert program is not None
    return str(Path(program).resolve())


@dataclass(frozen=True)
class Server:
    """A server that can be stopped and started; ``address`` is that of its empty database."""

    address: str
    start: Callable[[], None]
    stop: Callable[[], None]


@contextmanager
def running() -> Iterator[str]:
    """The address of an empty database; the server ends and its files go with the block."""
    with running_server() as server:
        yield server.address


@contextmanager
def running_server() -> Iterator[Server]:
    """A server at work, which ends with the block."""
    initdb, pg_ctl = program("initdb"), program("pg_ctl")
    # a socket's path must be short
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    data = folder / "data"
    as_nobody: list[str] = []
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "nobody")
        as_nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]

    def call(*words: str) -> None:
        done = subprocess.run([*as_nobody, *words], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"

    try:
        call(initdb, "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
        settings = {"listen_addresses": "", "unix_socket_directories": str(folder), "shared_buffers": "16MB"}
        options = " ".join(
            chain.from_iterable(("-c", f"{name}='{value}'") for name, value in settings.items())
        )

        def start() -> None:
            log = str(folder / "log")
            call(pg_ctl, "-D", str(data), "-w", "-t", "120", "-l", log, "-o", options, "start")

        def stop() -> None:
            call(pg_ctl, "-D", str(data), "-w", "-m", "immediate", "stop")

        start()
        try:
            yield Server(f"postgresql+psycopg://{USER}@/postgres?host={folder}", start, stop)
        finally:
            if (data / "postmaster.pid").exists():
                stop()
    finally:
        shutil.rmtree(folder)
