"""One engine in a process of its own, which does what lines of JSON ask for.

    python -m benchmarks.peers.worker ENGINE FOLDER DATA [--alone]

``--alone``: open what was built, answer once, then all queries, print how long the first answer took and
what the process holds.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import Any, TextIO, cast

import numpy as np

from benchmarks.peers.client_load import Load
from benchmarks.peers.dataset import Dataset
from benchmarks.peers.engine import Engine
from benchmarks.peers.server_process import measure_cpu, measure_memory

UPSERTS_A_SECOND, ROWS_A_WRITE = 500, 25


def build_engine(name: str, folder: Path, data: Path) -> Engine:
    """The engine of this name, MODULE:CLASS."""
    module, _, cls = name.partition(":")
    found = getattr(importlib.import_module(f"benchmarks.peers.engines.{module}"), cls)
    return cast(Engine, found(folder, Dataset.load(data)))


def measure_load(engine: Engine, measure: Callable[[], Load]) -> Load:
    """A load, and the processor time of an answer."""
    before = measure_cpu(engine.list_processes())
    load = measure()
    load["cpu"] = 1000 * (measure_cpu(engine.list_processes()) - before) / load["count"]
    return load


def measure_restart(engine: Engine, command: list[str]) -> dict[str, float]:
    """Seconds from a start to the first answer, and MiB held after all queries; it runs again after."""
    engine.stop()
    if engine.in_process:
        start = perf_counter()
        process = subprocess.Popen([*command, "--alone"], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        seconds = perf_counter() - start
        memory = json.loads(process.stdout.readline())
        process.wait()
    else:
        start = perf_counter()
        engine.first_answer()
        seconds = perf_counter() - start
        engine.tune()
        memory = measure_memory(engine.list_processes())
    if engine.in_process:
        engine.start()
        engine.tune()
    return {"seconds": seconds, "memory": memory, "of vectors": memory * 2**20 / engine.data.rows.nbytes}


def measure_upserts(engine: Engine, clients: int, seconds: float) -> dict[str, float]:
    """Answers a second without writes and with 500 rows a second written anew."""
    quiet = engine.measure_search(clients, 1, seconds)
    rng = np.random.default_rng()
    done, stop, errors = 0, threading.Event(), list[BaseException]()
    began = monotonic()

    def write() -> None:
        nonlocal done
        try:
            while not stop.is_set():
                rows = rng.choice(len(engine.data.rows), ROWS_A_WRITE, replace=False)
                vectors = engine.data.rows[rows] + 0.05 * rng.normal(size=(ROWS_A_WRITE, engine.data.dim))
                vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
                engine.upsert(rows.tolist(), vectors.astype(np.float32))
                done += ROWS_A_WRITE
                sleep(max(0.0, began + done / UPSERTS_A_SECOND - monotonic()))
        except BaseException as error:
            errors.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    busy = engine.measure_search(clients, 1, seconds)
    spent = monotonic() - began
    stop.set()
    writer.join()
    if errors:
        raise errors[0]
    return {
        "quiet": quiet["rate"],
        "rate": busy["rate"],
        "p99": busy["p99"],
        "kept": busy["rate"] / quiet["rate"],
        "written": done / spent,
        "of the writes": done / spent / UPSERTS_A_SECOND,
    }


def carry_out(engine: Engine, asked: dict[str, Any], command: list[str]) -> Any:
    """The answer to one request."""
    seconds = float(asked.get("seconds", 1))
    match asked["do"]:
        case "version":
            return engine.read_version()
        case "build":
            start = perf_counter()
            engine.build()
            return {"seconds": perf_counter() - start}
        case "start":
            engine.start()
            return engine.tune()
        case "search":
            return measure_load(
                engine, lambda: engine.measure_search(asked["clients"], asked["batch"], seconds)
            )
        case "empty":
            measured: Load = engine.measure_empty(seconds)  # type: ignore[attr-defined]
            return measured
        case "match":
            return measure_load(engine, lambda: engine.measure_match(seconds))
        case "filters":
            return engine.measure_filters(seconds)
        case "upserts":
            return measure_upserts(engine, asked["clients"], seconds)
        case "restart":
            return measure_restart(engine, command)
        case "stop":
            engine.stop()
            return None
    raise ValueError(asked["do"])


def answer_alone(engine: Engine) -> None:
    """One answer, then all of them; what is held."""
    engine.first_answer()
    print("answered", flush=True)
    engine.tune()
    print(json.dumps(measure_memory([os.getpid()])), flush=True)


def main(name: str, folder: str, data: str, *options: str) -> None:
    """Read requests until the input ends; what libraries print goes to the error stream."""
    engine = build_engine(name, Path(folder), Path(data))
    if options:
        answer_alone(engine)
        os._exit(0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server is left behind
    replies: TextIO = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    command = [sys.executable, "-m", "benchmarks.peers.worker", name, folder, data]
    try:
        for line in sys.stdin:
            try:
                answer = {"answer": carry_out(engine, json.loads(line), command)}
            except Exception as error:
                traceback.print_exc()
                answer = {"error": f"{type(error).__name__}: {error}"}
            replies.write(json.dumps(answer) + "\n")
            replies.flush()
    finally:
        engine.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
