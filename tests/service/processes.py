"""The service as a process of its own."""

from __future__ import annotations

import json
import logging
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.telemetry import logs
from tests.limen.conftest import run_limen

COMMAND = [sys.executable, "-c", "from limen.cli.main import main; main()", "serve"]


def read_refusal(*arguments: str, **variables: str) -> str:
    """The last line that the command prints, run in this process; it must end with exit code 2."""
    with pytest.MonkeyPatch.context() as patch, keep_logging():
        patch.setattr("service.server.configure_malloc", lambda: None)  # it would hold for the tests after it
        for name, value in variables.items():
            patch.setenv(name, value)
        outcome = run_limen("serve", *arguments)
    return check_refusal(outcome.code, outcome.err)


def check_refusal(code: int, said: str) -> str:
    """The last line of a refusal to start, before which no line says that the service is there."""
    assert code == 2, said
    assert "Traceback" not in said
    assert "listening" not in said, "said only once a service is ready to answer"
    return said.strip().splitlines()[-1]


@contextmanager
def keep_logging() -> Iterator[None]:
    """Log lines go where they went before, whatever the command configures."""
    loggers = [logging.getLogger(name) for name in ("limen", "uvicorn", "uvicorn.error")]
    kept = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "_request_log", logs._request_log)
        yield
    for logger, (handlers, level, propagate) in zip(loggers, kept, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def measure_resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def measure_peak(pid: int) -> int:
    """The most bytes of memory that a process has held."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


@contextmanager
def run_service(
    *arguments: str, limits: Sequence[str] = (), **variables: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command at work with these environment variables, and its address once it is ready.

    ``limits`` are arguments of ``prlimit``.
    """
    limit = ["prlimit", *limits] if limits else []
    process = subprocess.Popen(
        [*limit, *COMMAND, *arguments, "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if '"address"' in line:
            break
    else:
        raise AssertionError(f"the service did not start: {''.join(said)}")
    address = json.loads(said[-1])["address"]
    log = threading.Thread(target=process.stderr.read)
    log.start()
    try:
        for _ in range(2400):
            try:
                if httpx.get(f"{address}/readyz", timeout=1).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        yield process, address
    finally:
        process.kill()
        process.wait(10)
        log.join()
        process.stderr.close()
