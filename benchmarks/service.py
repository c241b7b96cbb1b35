"""What HTTP costs on top of the engine: ratios of one run, on this machine.

    python -P benchmarks/service.py [--items 100000] [--dims 128 512] [--out docs/performance.md]

Bars: single query p50 against an empty endpoint of the same app, <= 2.0 x with raw rows and <= 3.0 x
with JSON; batches of 64 raw rows against the engine in this process, >= 0.6 x its throughput; match
against search, <= 1.2 x. Recall@10 against exact search is measured with the same queries.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import faiss
import numpy as np

from api_schemas.config import IndexConfig
from api_schemas.operating_point import GallerySize, OperatingPoint, Target
from decision.embeddings import EmbeddingSet
from decision.hashes import vectors_model_hash
from evaluation.calibrate import calibrate
from index.bundle import write_bundle
from index.gallery import Gallery

BATCH = 64
SINGLES = 600
BATCHES = 60
OCTETS = {"content-type": "application/octet-stream"}
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Measured:
    """One size: times in milliseconds, throughputs in queries a second."""

    dim: int
    recall: float
    empty: float
    raw: float
    json: float
    match: float
    engine_batch: float
    gallery_batch: float
    http_batch: float
    json_batch: float

    def rows(self) -> list[tuple[str, str, str, bool]]:
        """Name, value, bar, and whether the bar is met."""
        raw, as_json = self.raw / self.empty, self.json / self.empty
        through, match = self.http_batch / self.gallery_batch, self.match / self.raw
        return [
            ("recall@10", f"{self.recall:.3f}", ">= 0.95", self.recall >= 0.95),
            ("empty endpoint, p50", f"{self.empty:.2f} ms", "", True),
            ("single query, raw rows, p50", f"{self.raw:.2f} ms = {raw:.2f} x empty", "<= 2.0 x", raw <= 2.0),
            (
                "single query, JSON, p50",
                f"{self.json:.2f} ms = {as_json:.2f} x empty",
                "<= 3.0 x",
                as_json <= 3.0,
            ),
            ("match against search", f"{match:.2f} x", "<= 1.2 x", match <= 1.2),
            ("FAISS alone, batches of 64", f"{self.engine_batch:,.0f} queries/s", "", True),
            ("gallery in process, batches of 64", f"{self.gallery_batch:,.0f} queries/s", "", True),
            (
                "HTTP, raw batches of 64",
                f"{self.http_batch:,.0f} queries/s = {through:.2f} x in process",
                ">= 0.6 x",
                through >= 0.6,
            ),
            ("HTTP, JSON batches of 64", f"{self.json_batch:,.0f} queries/s", "", True),
        ]


def data(items: int, dim: int) -> tuple[EmbeddingSet, np.ndarray]:
    """Clustered unit vectors, and 1,000 queries near them."""
    rng = np.random.default_rng(0)
    classes = items // 20
    centres = rng.normal(size=(classes, dim)).astype(np.float32)
    labels = np.arange(items) % classes
    vectors = centres[labels] + 0.5 * rng.normal(size=(items, dim)).astype(np.float32)
    queries = centres[rng.integers(0, classes, 1000)] + 0.5 * rng.normal(size=(1000, dim)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    return EmbeddingSet.from_arrays(vectors, labels), np.ascontiguousarray(queries)


def bundle(folder: Path, items: EmbeddingSet, kind: str, ef_search: int) -> Path:
    """A bundle with a 1:N point calibrated on a few hundred of its classes."""
    out = folder / f"{kind}-{items.dimension}"
    model_hash = vectors_model_hash("benchmark", items.dimension)
    chosen = items.subset(np.flatnonzero(items.codes < 100))
    size = GallerySize(items=len(chosen), classes=100)
    point: OperatingPoint = calibrate(
        chosen,
        Target(kind="fpir", value=0.05, gallery=size),
        name="fpir",
        model_hash=model_hash,
        gallery=size,
    ).point
    write_bundle(
        out,
        name="benchmark",
        items=items,
        model_hash=model_hash,
        encoder_folder=None,
        index_config=IndexConfig(kind=kind, ef_search=ef_search),
        report=None,
        operating_points=[point],
        active={"verify": None, "match": point.id},
        reasons=[],
        config_yaml="",
    )
    return out


@contextmanager
def served(path: Path) -> Iterator[tuple[str, int]]:
    """The service in its own process, as anyone would start it."""
    command = [sys.executable, "-c", "from limen.cli import main; main()", "serve", str(path), "--port", "0"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stderr=log, env=os.environ | {"LIMEN_LOG_LEVEL": "info"})
        try:
            address: tuple[str, int] | None = None
            while address is None:
                time.sleep(0.1)
                log.seek(0)
                line = log.readline()
                if line.endswith("\n"):
                    host, port = json.loads(line)["address"].removeprefix("http://").split(":")
                    address = (host, int(port))
            while ask(http.client.HTTPConnection(*address), "GET", "/readyz")[0] != 200:
                time.sleep(0.2)
            yield address
        finally:
            process.terminate()
            process.wait()


def ask(
    to: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    """One request over a kept connection."""
    to.request(method, path, body, headers or {})
    answer = to.getresponse()
    return answer.status, answer.read()


def p50(call: Callable[[int], object], n: int) -> float:
    """Median milliseconds of a call, after some that warm up."""
    for number in range(min(n, 50)):
        call(number)
    times = []
    for number in range(n):
        start = time.perf_counter()
        call(number)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def measure(path: Path, queries: np.ndarray) -> Measured:
    """All figures of one bundle."""
    dim = queries.shape[1]
    with Gallery.open(path) as gallery:
        faiss.omp_set_num_threads(1)
        exact = gallery.search(queries[:200], 10, exact=True)
        found = gallery.search(queries[:200], 10)
        recall = float(
            np.mean(
                [
                    len({a.id for a in one} & {b.id for b in two}) / 10
                    for one, two in zip(exact, found, strict=True)
                ]
            )
        )
        batches = [
            np.ascontiguousarray(np.roll(queries, -number, axis=0)[:BATCH]) for number in range(BATCHES)
        ]
        gallery_batch = 1000 * BATCH / p50(lambda n: gallery.search(batches[n], 10), BATCHES)
        engine = faiss.read_index(str(path / "index.faiss"))
        beam = gallery.manifest.index.parameters.get("ef_search")
        how = None if beam is None else faiss.SearchParametersHNSW(efSearch=int(beam))
        engine_batch = 1000 * BATCH / p50(lambda n: engine.search(batches[n], 10, params=how), BATCHES)
    with served(path) as address:
        to = http.client.HTTPConnection(*address)

        def post(where: str, body: bytes, headers: dict[str, str]) -> None:
            status, content = ask(to, "POST", where, body, headers)
            assert status == 200, content

        raws = [queries[n : n + 1].tobytes() for n in range(SINGLES)]
        jsons = [
            json.dumps({"queries": [{"vector": queries[n].tolist()}], "k": 10}).encode()
            for n in range(SINGLES)
        ]
        wide = [
            json.dumps({"queries": [{"vector": row} for row in one.tolist()], "k": 10}).encode()
            for one in batches
        ]
        return Measured(
            dim=dim,
            recall=recall,
            empty=p50(lambda _: ask(to, "GET", "/livez"), SINGLES),
            raw=p50(lambda n: post("/v1/search?k=10", raws[n], OCTETS), SINGLES),
            json=p50(lambda n: post("/v1/search", jsons[n], JSON), SINGLES),
            match=p50(lambda n: post("/v1/match?k=10", raws[n], OCTETS), SINGLES),
            engine_batch=engine_batch,
            gallery_batch=gallery_batch,
            http_batch=1000
            * BATCH
            / p50(lambda n: post("/v1/search?k=10", batches[n].tobytes(), OCTETS), BATCHES),
            json_batch=1000 * BATCH / p50(lambda n: post("/v1/search", wide[n], JSON), BATCHES),
        )


def as_table(measured: list[Measured], items: int) -> str:
    """A Markdown section a size."""
    lines = []
    for one in measured:
        lines += [f"### {items:,} x {one.dim}", "", "| | measured | bar | |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {name} | {value} | {bar} | {'' if not bar else 'met' if met else '**missed**'} |"
            for name, value, bar, met in one.rows()
        ]
        lines.append("")
    return "\n".join(lines)


def machine() -> str:
    """The machine, in words."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}, FAISS {faiss.__version__}"


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dims", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--kind", default="hnsw")
    parser.add_argument("--ef-search", type=int, default=32, help="the beam; recall@10 must stay >= 0.95")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        for dim in given.dims:
            items, queries = data(given.items, dim)
            measured.append(measure(bundle(Path(folder), items, given.kind, given.ef_search), queries))
            print(as_table(measured[-1:], given.items), flush=True)
    if given.out is not None:
        head = (
            f"Measured on {datetime.now(UTC):%-d %B %Y}: {machine()}. Client and service share the cores.\n\n"
        )
        given.out.write_text(head + as_table(measured, given.items), encoding="utf-8")


if __name__ == "__main__":
    main()
