"""The service as a process of its own."""

from __future__ import annotations

import json
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

COMMAND = [sys.executable, "-c", "from limen.cli.main import main; main()", "serve"]


def read_refusal(*arguments: str, **variables: str) -> str:
    """The last line that the command prints; it must end with exit code 2."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env=os.environ | variables,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "listening" not in done.stderr, "said only once a service is ready to answer"
    return done.stderr.strip().splitlines()[-1]


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
    address = next(json.loads(line)["address"] for line in process.stderr if '"address"' in line)
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
