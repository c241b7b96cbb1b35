"""What monitoring costs a match: the service with it against the same without, request by request in turns.

    python -m benchmarks.monitoring [--items 20000] [--dim 128] [--requests 4000]

Two servers run side by side; in the other the calls of the recorder do nothing and the monitor's thread does
not start. The client sends the same request to one and then to the other, in alternating order (A B, B A),
so that what else the machine does meets both. There is drift to measure at every look of the monitor.
Bar: <= 1.05 x at the median, for single raw rows, JSON, and batches of 64.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from api_schemas.build_config import IndexConfig
from benchmarks.bundles import write_matching_bundle
from benchmarks.service import BATCH, describe_machine, make_data
from benchmarks.wire import JSON, build_request, send, start_server, write_server_program

BAR = 1.05
WITHOUT = """
from service.monitoring.monitor import Monitor
from service.monitoring.recorder import Recorder
for name in ("observe_match", "observe_verify", "observe_response"):
    setattr(Recorder, name, lambda *given: None)
Monitor.start = lambda monitor: None
"""


def measure_pairs(path: Path, requests: dict[str, list[bytes]], n: int) -> dict[str, tuple[float, float]]:
    """Median milliseconds with and without monitoring, by kind of request."""
    serve, ready = write_server_program(path), build_request("GET", "/readyz")
    found: dict[str, tuple[float, float]] = {}
    with (
        start_server(serve, ready, {}) as watched,
        start_server(f"{WITHOUT}{serve}", ready, {}) as plain,
    ):
        for name, prepared in requests.items():
            times: dict[int, list[float]] = {0: [], 1: []}
            count = n if len(prepared[0]) < 10_000 else n // 4
            for number in range(-200, count):
                order = (0, 1) if number % 2 else (1, 0)
                for server in order:
                    start = time.perf_counter()
                    send((watched, plain)[server], prepared[number % len(prepared)])
                    if number >= 0:
                        times[server].append(time.perf_counter() - start)
            found[name] = 1000 * float(np.median(times[0])), 1000 * float(np.median(times[1]))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--requests", type=int, default=4_000)
    given = parser.parse_args()
    items, queries = make_data(given.items, given.dim, 0.6)
    rows = [queries[number : number + 1] for number in range(len(queries))]
    batches = [np.roll(queries, -number, axis=0)[:BATCH] for number in range(50)]

    def write_json(row: np.ndarray) -> bytes:
        return json.dumps({"queries": [{"vector": row[0].tolist()}], "k": 10}).encode()

    requests = {
        "match, raw row": [build_request("POST", "/v1/match?k=10", row.tobytes()) for row in rows],
        "match, JSON": [build_request("POST", "/v1/match", write_json(row), JSON) for row in rows],
        "match, raw batch of 64": [
            build_request("POST", "/v1/match?k=10", batch.tobytes()) for batch in batches
        ],
    }
    print(f"{describe_machine()}; {given.items:,} x {given.dim}, {given.requests:,} requests of each.\n")
    print("| | with | without | ratio | bar |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "bundle"
        index = IndexConfig(kind="hnsw", m=16, ef_construction=100, ef_search=32)
        write_matching_bundle(path, items, index, classes=100, fpir=0.05)
        for name, (watched, plain) in measure_pairs(path, requests, given.requests).items():
            ratio = watched / plain
            met = "met" if ratio <= BAR else "**missed**"
            print(
                f"| {name} | {watched:.3f} ms | {plain:.3f} ms | {ratio:.3f} x | <= {BAR} x: {met} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
