"""Several services on one PostgreSQL, each with its own graph: searches, and how soon all have a write.

    python -m benchmarks.replicas [--replicas 1 2 4] [--items 20000] [--database URL]

One process of this command sends searches over raw sockets, eight connections to each service, always the
next once one is answered. Printed for each number of services: searches a second, their time, and the
processor time that the services took for one. Then one item after another is written to the first service,
and searched for on the last from the moment that the write is acknowledged until it is the best
hit. Without ``--database`` Debian's PostgreSQL is started in a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import orjson

from api_schemas.build_config import IndexConfig
from benchmarks.bundles import write_matching_bundle
from embeddings.embedding_set import EmbeddingSet
from limen.client import Client
from tests.index import postgres
from tests.service.load_generator import Answer, send_at_rate

DIMENSION, CONNECTIONS, K = 128, 8, 10
LIMEN = Path(sys.executable).with_name("limen")


class Service(NamedTuple):
    """A service at work."""

    process: subprocess.Popen[bytes]
    port: int

    def measure_seconds(self) -> float:
        """Processor time that it has taken."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def make_items(n: int) -> EmbeddingSet:
    """Items of classes of ten."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(n // 10, DIMENSION))
    labels = np.arange(n) // 10
    vectors = centres[labels] + 0.5 * rng.normal(size=(n, DIMENSION))
    return EmbeddingSet.from_arrays(vectors, labels, ids=np.arange(n))


def start(bundle: Path, data: Path, database: str, stack: ExitStack) -> Service:
    """Start a service; it ends with the stack."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"LIMEN_DATABASE_URL": database, "LIMEN_THREADS": "1", "LIMEN_LOG_LEVEL": "error"}
    process = subprocess.Popen(
        [LIMEN, "serve", bundle, "--data", data, "--port", str(port)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
    )
    stack.callback(process.wait)
    stack.callback(process.kill)
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                return Service(process, port)
        except httpx.HTTPError:
            assert process.poll() is None, "the service did not start"
        time.sleep(0.1)


def measure_searches(services: list[Service], body: bytes, seconds: float) -> None:
    """Print how many searches these services answer."""
    lines = ("POST /v1/search HTTP/1.1", "Host: localhost", "Content-Type: application/json")
    request = "\r\n".join((*lines, f"Content-Length: {len(body)}", "", "")).encode() + body
    answers: list[Answer] = []

    def send(service: Service) -> None:
        answers.extend(send_at_rate(service.port, request, seconds, connections=CONNECTIONS))

    before = [service.measure_seconds() for service in services]
    threads = [threading.Thread(target=send, args=(service,)) for service in services]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = sum(service.measure_seconds() for service in services) - sum(before)
    good = [answer.ms for answer in answers if answer.status == 200]
    print(
        f"{len(services)} services: {len(good) / seconds:.0f} searches/s, median {np.median(good):.1f} ms, "
        f"p99 {np.quantile(good, 0.99):.1f} ms, {1e3 * taken / len(good):.3f} ms of processor time each, "
        f"{len(answers) - len(good)} refused, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def measure_delays(first: Service, last: Service, n: int) -> None:
    """Print after which time an item that is written to one service is found on another."""
    rng = np.random.default_rng(1)
    delays, written = [], []
    with Client(f"http://127.0.0.1:{first.port}") as one, Client(f"http://127.0.0.1:{last.port}") as other:
        for number in range(n):
            vector = rng.normal(size=DIMENSION).tolist()
            sent = time.perf_counter()
            one.upsert([{"id": f"new-{number}", "label": "new", "vector": vector}])
            acknowledged = time.perf_counter()
            written.append(acknowledged - sent)
            while other.search([{"vector": vector}], k=1).results[0].hits[0].id != f"new-{number}":
                pass
            delays.append(time.perf_counter() - acknowledged)
    for name, values in (("written", written), ("found on the other service after", delays)):
        print(
            f"{n} items {name}: median {1e3 * np.median(values):.1f} ms, "
            f"p99 {1e3 * np.quantile(values, 0.99):.1f} ms, longest {1e3 * max(values):.1f} ms, "
            f"load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


def main() -> None:
    """Measure all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--writes", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--database", help="address of an empty PostgreSQL database")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = stack.enter_context(nullcontext(given.database) if given.database else postgres.running())
        items = make_items(given.items)
        bundle = write_matching_bundle(
            folder / "bundle", items, IndexConfig(kind="hnsw"), classes=50, fpir=0.05
        )
        query = {"queries": [{"vector": items.vectors[7].tolist()}], "k": K}
        services: list[Service] = []
        print(
            f"{given.items} items of {DIMENSION} numbers, HNSW, k {K}, {os.cpu_count()} cores, "
            f"load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
        for n in given.replicas:
            while len(services) < n:
                services.append(start(bundle, folder / f"data-{len(services)}", database, stack))
            measure_searches(services[:n], orjson.dumps(query), given.seconds)
        measure_delays(services[0], services[-1], given.writes)


if __name__ == "__main__":
    main()
