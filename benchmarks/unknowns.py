"""What keeping unknowns and obeying corrections costs a match, request by request in turns.

    python -m benchmarks.unknowns [--items 20000] [--dim 128] [--requests 3000]

Two servers with data folders run side by side, and the client sends the same request to one and then to the
other, in alternating order (A B, B A), so that what else the machine does meets both. Kept are queries that
are all unknown, as fast as one client can send them; corrections are 1,000, and the queries are known ones.
"Known again" is the fingerprint in the decision id, against a service that makes none. Bars: keeping <=
1.05 x at the median, corrections <= 1.02 x.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from api_schemas.build_config import IndexConfig
from benchmarks.bundles import write_matching_bundle
from benchmarks.service import BATCH, describe_machine, make_data
from benchmarks.wire import JSON, build_request, send, start_server, write_server_program

CORRECTIONS = 1_000
WITHOUT = """
import service.routers.match as match
match.identify_queries = lambda model, queries: [None] * len(queries.ids)
"""


def measure(
    serve: str,
    variants: list[tuple[str, dict[str, str]]],
    requests: dict[str, list[bytes]],
    n: int,
    prepare: list[bytes],
) -> dict[str, tuple[float, float]]:
    """Median milliseconds of two servers, by kind of request; the first is sent ``prepare`` before."""
    ready = build_request("GET", "/readyz")
    found: dict[str, tuple[float, float]] = {}
    with ExitStack() as running:
        servers = [
            running.enter_context(start_server(before + serve, ready, environment))
            for before, environment in variants
        ]
        for request in prepare:
            send(servers[0], request)
        for name, prepared in requests.items():
            times: dict[int, list[float]] = {0: [], 1: []}
            count = n if len(prepared[0]) < 10_000 else n // 8
            for number in range(-200, count):
                for server in (0, 1) if number % 2 else (1, 0):
                    start = time.perf_counter()
                    send(servers[server], prepared[number % len(prepared)])
                    if number >= 0:
                        times[server].append(time.perf_counter() - start)
            found[name] = 1000 * float(np.median(times[0])), 1000 * float(np.median(times[1]))
    return found


def build_requests(rows: np.ndarray) -> dict[str, list[bytes]]:
    """Matches of these rows: one raw row, one in JSON, and a raw batch of 64."""
    batches = [np.roll(rows, -number, axis=0)[:BATCH] for number in range(50)]
    bodies = [json.dumps({"queries": [{"vector": row.tolist()}], "k": 10}).encode() for row in rows]
    return {
        "raw row": [build_request("POST", "/v1/match?k=10", row.tobytes()) for row in rows],
        "JSON": [build_request("POST", "/v1/match", body, JSON) for body in bodies],
        "raw batch of 64": [build_request("POST", "/v1/match?k=10", rows.tobytes()) for rows in batches],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--requests", type=int, default=3_000)
    given = parser.parse_args()
    items, known = make_data(given.items, given.dim, 0.6)
    unknown = np.random.default_rng(1).normal(size=known.shape).astype(np.float32)
    others = items.vectors[np.linspace(0, len(items) - 1, CORRECTIONS).astype(int)]
    corrections = [
        build_request(
            "POST",
            "/v1/feedback",
            json.dumps({"vector": row.tolist(), "not_label": str(items.labels[number])}).encode(),
            JSON,
        )
        for number, row in enumerate(others)
    ]
    print(f"{describe_machine()}; {given.items:,} x {given.dim}, {given.requests:,} requests of each.\n")
    print("| | | with | without | ratio | bar |\n| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "bundle"
        index = IndexConfig(kind="hnsw", m=16, ef_construction=100, ef_search=32)
        write_matching_bundle(path, items, index, classes=100, fpir=0.05)
        serve = write_server_program(path)

        def make_environment(name: str, **more: str) -> dict[str, str]:
            return {"LIMEN_DATA": str(Path(temporary) / name), **more}

        cases: list[tuple[str, float, list[tuple[str, dict[str, str]]], np.ndarray, list[bytes]]] = [
            (
                "unknowns kept",
                1.05,
                [("", make_environment("a", LIMEN_KEEP_UNKNOWNS="unknown")), ("", make_environment("b"))],
                unknown,
                [],
            ),
            (
                "1,000 corrections",
                1.02,
                [("", make_environment("c")), ("", make_environment("d"))],
                known,
                corrections,
            ),
            (
                "known again",
                1.02,
                [("", make_environment("e")), (WITHOUT, make_environment("f"))],
                known,
                [],
            ),
        ]
        for case, bar, variants, rows, prepare in cases:
            measured = measure(serve, variants, build_requests(rows), given.requests, prepare)
            for name, (of_case, plain) in measured.items():
                ratio = of_case / plain
                met = "met" if ratio <= bar else "**missed**"
                times = f"{of_case:.3f} ms | {plain:.3f} ms"
                print(f"| {case} | {name} | {times} | {ratio:.3f} x | <= {bar} x: {met} |", flush=True)


if __name__ == "__main__":
    main()
