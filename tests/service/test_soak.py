"""Half load with writes, deletions and rebuilds: memory and recall stay as they are."""

from __future__ import annotations

import http.client
import itertools
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from api_schemas.build_config import IndexConfig
from benchmarks.bundles import write_matching_bundle
from embeddings.embedding_set import EmbeddingSet
from limen.client import Client, ServiceError
from tests.service.processes import measure_resident, run_service

LOGGER = logging.getLogger(__name__)
DIM, ITEMS, WRITTEN = 32, 10_000, 50
# rows written by one step are deleted this many steps later, so that the gallery keeps its size
KEPT_STEPS = 40


def draw_rows(seed: int, n: int) -> NDArray[np.float32]:
    """Rows around 500 centres, so that ten nearest mean something."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(500, DIM))
    return np.float32(centres[rng.integers(0, 500, n)] + 0.5 * rng.normal(size=(n, DIM)))


def make_graph_bundle(out: Path) -> Path:
    """A gallery large enough for an HNSW graph, with a 1:N point."""
    items = EmbeddingSet.from_arrays(draw_rows(1, ITEMS), np.arange(ITEMS) % 500)
    return write_matching_bundle(out, items, IndexConfig(kind="hnsw", ef_search=16), classes=40, fpir=0.1)


class Searcher(threading.Thread):
    """Sends matches and searches, at a pace or as fast as answers come."""

    def __init__(self, address: str, stop: threading.Event, every: float) -> None:
        super().__init__()
        self._host = address.removeprefix("http://")
        self._stop_event, self._every = stop, every
        self.statuses: dict[int, int] = {}

    def run(self) -> None:
        connection = http.client.HTTPConnection(self._host, timeout=30)
        bodies = [row.tobytes() for row in draw_rows(2, 200)]
        due = time.monotonic()
        for number in itertools.count():
            if self._stop_event.is_set():
                break
            path = "/v1/match?k=20" if number % 2 else "/v1/search?k=10"
            headers = {"content-type": "application/octet-stream"}
            connection.request("POST", path, bodies[number % len(bodies)], headers)
            answer = connection.getresponse()
            answer.read()
            self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
            due = max(due + self._every, time.monotonic() - 1.0)
            time.sleep(max(0.0, due - time.monotonic()))
        connection.close()


def search_during(address: str, every: float, while_doing: Callable[[], None]) -> dict[int, int]:
    """Two searchers while something else is done; how often each status came."""
    stop = threading.Event()
    searchers = [Searcher(address, stop, every) for _ in range(2)]
    for searcher in searchers:
        searcher.start()
    try:
        while_doing()
    finally:
        stop.set()
        for searcher in searchers:
            searcher.join()
    return {
        status: sum(searcher.statuses.get(status, 0) for searcher in searchers)
        for status in {status for searcher in searchers for status in searcher.statuses}
    }


def measure_recall(client: Client) -> float:
    """Recall@10 of the index against comparing with every row, over the HTTP the clients use."""
    queries = draw_rows(3, 200)
    approximate, exact_results = client.search(queries, 10), client.search(queries, 10, exact=True)
    return float(
        np.mean(
            [
                len({hit.id for hit in hits.hits} & {hit.id for hit in exact.hits}) / 10
                for hits, exact in zip(approximate.results, exact_results.results, strict=True)
            ]
        )
    )


def measure_footprint(pid: int) -> tuple[float, int, int]:
    """Resident MiB, open handles and mapped files of a process."""
    process = Path(f"/proc/{pid}")
    mapped = sum("/generations/" in line for line in (process / "maps").read_text().splitlines())
    return measure_resident(pid) / 2**20, len(list((process / "fd").iterdir())), mapped


def write(client: Client, step: int, rebuild: bool) -> None:
    """Fifty rows written, the fifty of forty steps ago deleted."""
    new = draw_rows(1000 + step, WRITTEN)
    items = [
        {"id": f"w-{step}-{number}", "label": f"w-{number}", "vector": row.tolist()}
        for number, row in enumerate(new)
    ]
    gone = [f"w-{step - KEPT_STEPS}-{number}" for number in range(WRITTEN)]
    try:
        client.upsert(items)
        client.delete_items(ids=gone, rebuild=rebuild)
    except ServiceError as error:
        if error.problem.status != 429:
            raise


@pytest.mark.parametrize(
    "seconds", [8.0, pytest.param(3600.0, marks=[pytest.mark.full, pytest.mark.timeout(4500)])]
)
def test_soak(tmp_path: Path, seconds: float, record_property: Callable[[str, object], None]) -> None:
    bundle = make_graph_bundle(tmp_path / "bundle")
    with (
        run_service(str(bundle), "--data", str(tmp_path / "data")) as (process, address),
        Client(address, retries=0) as client,
    ):
        began = measure_recall(client)
        quick = search_during(address, 0.0, lambda: time.sleep(2.0))
        every = 2 / (quick[200] / 2.0 / 2)
        seen: list[tuple[float, int, int]] = []

        def write_all_the_time() -> None:
            begun = time.monotonic()
            due = 0.0
            for step in itertools.count():
                passed = time.monotonic() - begun
                if passed > seconds:
                    break
                write(client, step, rebuild=passed >= due)
                due += 0.0 if passed < due else max(4.0, seconds / 200)
                seen.append(measure_footprint(process.pid))
                time.sleep(0.25)
            # jobs are done one after the other: once this one is, so are the rebuilds
            client.wait(client.compute_report("feedback"))

        statuses = search_during(address, every, write_all_the_time)
        ended = measure_recall(client)
        memory, handles, mapped = (np.array(column) for column in zip(*seen, strict=True))
        tenth = len(seen) // 10
        early, late = (np.median(memory[part]) for part in (slice(2 * tenth, 3 * tenth), slice(-tenth, None)))
        figures = (
            f"{sum(statuses.values()) / seconds:.0f} requests/s for {seconds:.0f} s, statuses {statuses}; "
            f"{len(seen)} writes; recall {began:.4f} then {ended:.4f}; "
            f"memory {early:.1f} then {late:.1f} MiB (most {memory.max():.1f}); "
            f"handles {handles[2 * tenth]} then {handles[-1]}, at most {handles.max()}; "
            f"mapped files {mapped[2 * tenth]} then {mapped[-1]}, at most {mapped.max()}"
        )
        LOGGER.info(figures)
        record_property("figures", figures)
        assert statuses.keys() <= {200, 429}, figures
        assert statuses[200] > 0.95 * sum(statuses.values()), figures
        assert ended >= 0.99 * began, figures
        # the first rebuilds widen the heap; over an hour the third tenth is as large as the last
        assert late - early < (64.0 if seconds < 60 else max(16.0, 0.05 * early)), figures
        assert np.median(handles[-tenth:]) <= np.median(handles[2 * tenth : 3 * tenth]) + 2, figures
        assert mapped.max() <= 12, figures
