"""Several clients that wait for each answer: requests a second, median and 99th percentile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import NotRequired, TypedDict

import numpy as np

from benchmarks.wire import build_request

SCRIPT = """
local requests, at = {}, 0
for line in io.lines(os.getenv("SIZES")) do requests[#requests + 1] = tonumber(line) end
local file = io.open(os.getenv("BODIES"), "rb")
for n, size in ipairs(requests) do requests[n] = file:read(size) end
request = function() at = at % #requests + 1; return requests[at] end
done = function(summary, latency)
  io.write(string.format("\\nFIGURES %d %d %d %.9f %.9f\\n", summary.requests, summary.errors.status,
    summary.duration, latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
"""


class Load(TypedDict):
    """What clients saw: answers, answers a second, milliseconds from sending a request to its whole answer.

    ``cpu``: milliseconds of the engine's processor time for an answer, which others' load hardly changes.
    """

    count: int
    rate: float
    p50: float
    p99: float
    cpu: NotRequired[float]


def measure_calls(call: Callable[[int], object], clients: int, seconds: float) -> Load:
    """Calls of some threads, each of which waits for its answer; ``call`` gets a running number."""
    times: list[list[float]] = [[] for _ in range(clients)]
    begin = threading.Barrier(clients)
    errors: list[BaseException] = []

    def run(client: int) -> None:
        try:
            begin.wait()
            start = now = perf_counter()
            number = client
            while now - start < seconds:
                call(number)
                number += clients
                before, now = now, perf_counter()
                times[client].append(now - before)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(client,)) for client in range(clients)]
    start = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return summarise([value for each in times for value in each], perf_counter() - start)


def summarise(times: Sequence[float], seconds: float) -> Load:
    """The load of calls that took ``times`` seconds each within ``seconds``."""
    p50, p99 = np.percentile(times, [50, 99]) * 1000
    return {"count": len(times), "rate": len(times) / seconds, "p50": float(p50), "p99": float(p99)}


def measure_http(requests: Sequence[bytes], port: int, clients: int, seconds: float) -> Load:
    """Whole requests over kept connections, by ``wrk`` where it is at hand, else by a process of threads."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "sizes").write_text("\n".join(str(len(each)) for each in requests))
        (folder / "bodies").write_bytes(b"".join(requests))
        environment = os.environ | {"SIZES": str(folder / "sizes"), "BODIES": str(folder / "bodies")}
        if shutil.which("wrk") is None:
            program = [sys.executable, "-m", "benchmarks.peers.http_clients"]
            command = [*program, str(port), str(clients), str(seconds)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"requests were not answered with success: {done.stderr.strip()[-500:]}")
            figures: Load = json.loads(done.stdout)
            return figures
        script = folder / "requests.lua"
        script.write_text(SCRIPT)
        # wrk takes whole seconds; --latency corrects nothing here, it counts every answer
        command = ["wrk", "-t1", f"-c{clients}", f"-d{max(1, round(seconds))}s", "--timeout", "20s"]
        command += ["-s", str(script), f"http://127.0.0.1:{port}/"]
        printed = subprocess.check_output(command, env=environment, text=True)
    line = next(line for line in printed.splitlines() if line.startswith("FIGURES"))
    answered, refused, microseconds, p50, p99 = (float(field) for field in line.split()[1:])
    if refused:
        raise RuntimeError(f"{refused:.0f} of {answered:.0f} requests were not answered with success")
    return {"count": int(answered), "rate": answered / microseconds * 1e6, "p50": p50, "p99": p99}


def build_json_request(path: str, body: object, method: str = "POST") -> bytes:
    """The bytes of a request with a JSON body."""
    return build_request(method, path, json.dumps(body).encode(), "application/json")
