"""The overhead of HTTP over the search engine: ratios within one run, on this machine.

    python -m benchmarks.service [--items 100000] [--dims 128 512] [--spread 0.6] [--keep FOLDER]

Rows lie around items/20 centres, ``unit(centre + spread / sqrt(d) * normal)``; the index is HNSW with
``m`` 16 and ``ef_construction`` 100, its beam the narrowest of a grid with recall@10 >= 0.95 on the same
queries. One client sends prepared bytes over one kept connection and waits for the whole answer.

Bars: single query p50 against an empty endpoint of the same app, <= 2.0 x with raw rows and <= 3.0 x
with JSON; batches of 64 with octet-stream both ways against the engine in this process, >= 0.6 x its
throughput; match against search, <= 1.2 x; match by class evidence with PLDA against match by the nearest
item, <= 1.25 x, over HTTP and in this process (one query, batches of 64 and of 1,000). Beside them, in the
same run: the minimum of a search request (one that is refused for its media type), and a bare FastAPI app
with FAISS inside that neither checks nor re-scores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import faiss
import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from api_schemas.build_config import IndexConfig
from api_schemas.operating_point import OperatingPoint
from benchmarks.bundles import EVIDENCE, write_matching_bundle
from benchmarks.index_parts.bench import open_faiss
from benchmarks.wire import JSON, OCTETS, build_request, send, start_server, write_server_program
from embeddings.embedding_set import EmbeddingSet
from index.gallery.gallery import Gallery

BATCH = 64
SINGLES, BATCHES, ROUNDS = 600, 60, 3
BEAMS = (16, 24, 32, 40, 48, 64, 80, 100, 128)
SIZES = ("1", "64", "1,000")  # queries of a match in process
Times = dict[str, float]


def make_data(items: int, dim: int, spread: float) -> tuple[EmbeddingSet, np.ndarray]:
    """Clustered unit vectors, and 1,000 queries of the same distribution."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(items // 20, dim))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)

    def draw(codes: np.ndarray) -> np.ndarray:
        rows = centres[codes] + spread / np.sqrt(dim) * rng.normal(size=(len(codes), dim))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    labels = np.arange(items) % len(centres)
    return EmbeddingSet.from_arrays(draw(labels), labels), draw(rng.integers(0, len(centres), 1000))


def make_bundle(out: Path, items: EmbeddingSet, queries: np.ndarray) -> None:
    """Write a bundle with the narrowest beam that reaches the recall."""
    index = IndexConfig(kind="hnsw", m=16, ef_construction=100, ef_search=BEAMS[0])
    write_matching_bundle(out, items, index, classes=100, fpir=0.05, evidence=True)
    for beam in BEAMS:
        manifest = json.loads((out / "manifest.json").read_text())
        manifest["index"]["parameters"]["ef_search"] = beam
        (out / "manifest.json").write_text(json.dumps(manifest))
        if measure_recall(out, queries[:300]) >= 0.953:
            return


def measure_recall(path: Path, queries: np.ndarray) -> float:
    """Recall@10 of the bundle against exact search."""
    with Gallery.open(path) as gallery:
        exact, approximate = gallery.search(queries, 10, exact=True), gallery.search(queries, 10)
    recalls = [
        len({hit.id for hit in exact_hits} & {hit.id for hit in hits}) / 10
        for exact_hits, hits in zip(exact, approximate, strict=True)
    ]
    return float(np.mean(recalls))


class BareQuery(BaseModel):
    """Body of a request to the bare app."""

    vector: list[float]
    k: int = 10


class BareAnswer(BaseModel):
    """Body of an answer of the bare app."""

    ids: list[int]
    scores: list[float]


def serve_bare(index: str, port: int) -> None:
    """Serve a minimal FastAPI app around FAISS."""
    engine = open_faiss(Path(index))
    engine.hnsw.efSearch = int(os.environ["EF_SEARCH"])
    faiss.omp_set_num_threads(1)
    app = FastAPI()

    @app.post("/empty", status_code=204)
    async def empty() -> None:
        return None

    @app.post("/search")
    async def search(query: BareQuery) -> BareAnswer:
        scores, ids = engine.search(np.array([query.vector], dtype=np.float32), query.k)
        return BareAnswer(ids=ids[0].tolist(), scores=scores[0].tolist())

    @app.post("/raw")
    async def raw(request: Request) -> Response:
        rows = np.frombuffer(await request.body(), dtype=np.float32).reshape(-1, engine.d)
        scores, ids = engine.search(rows, 10)
        answer = {"ids": ids, "scores": scores}
        return Response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), media_type=JSON)

    uvicorn.run(app, port=port, log_level="warning", access_log=False)


def measure_p50(call: Callable[[int], object], n: int) -> float:
    """Median milliseconds of a call, after a warm-up."""
    for number in range(min(n, 50)):
        call(number)
    times = []
    for number in range(n):
        start = time.perf_counter()
        call(number)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def repeat(measure: Callable[[], Times]) -> Times:
    """The median of each time over some rounds, so that a disturbance affects one round and not one row."""
    rounds = [measure() for _ in range(ROUNDS)]
    return {name: float(np.median([times[name] for times in rounds])) for name in rounds[0]}


def measure_matches(path: Path, queries: np.ndarray) -> Times:
    """Milliseconds of matches in this process, by the nearest item and by class evidence."""
    batches = [np.ascontiguousarray(np.roll(queries, -n, axis=0)[:BATCH]) for n in range(BATCHES)]
    with Gallery.open(path) as gallery:
        points = {point.name: point for point in gallery.operating_points.values()}

        def measure_all() -> Times:
            times: Times = {}
            for name, point in (("nearest", "match"), ("evidence", EVIDENCE)):
                gallery.decide_by(points[point])
                times |= {
                    f"{name}, 1": measure_p50(lambda n: gallery.match(queries[n : n + 1], k=10), SINGLES),
                    f"{name}, 64": measure_p50(lambda n: gallery.match(batches[n], k=10), BATCHES),
                    f"{name}, 1,000": measure_p50(lambda _: gallery.match(queries, k=10), 3),
                }
            return times

        return repeat(measure_all)


@contextmanager
def copy_with_evidence(path: Path) -> Iterator[Path]:
    """The same bundle, decided by its point of class evidence."""
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        copied = Path(temporary) / path.name
        shutil.copytree(path, copied, copy_function=os.link)
        manifest = json.loads((path / "manifest.json").read_text())
        points = (OperatingPoint.load(file) for file in (path / "operating_points").glob("*.json"))
        manifest["operating_points"]["match"] = next(point.id for point in points if point.name == EVIDENCE)
        (copied / "manifest.json").unlink()
        (copied / "manifest.json").write_text(json.dumps(manifest))
        yield copied


def measure(path: Path, queries: np.ndarray) -> Times:
    """All times in milliseconds, and the recall, of one bundle."""
    batches = [np.ascontiguousarray(np.roll(queries, -n, axis=0)[:BATCH]) for n in range(BATCHES)]
    faiss.omp_set_num_threads(1)
    engine = open_faiss(path)
    beam = json.loads((path / "manifest.json").read_text())["index"]["parameters"]["ef_search"]
    parameters = faiss.SearchParametersHNSW(efSearch=beam)
    with Gallery.open(path) as gallery:
        times = repeat(
            lambda: {
                "FAISS": measure_p50(
                    lambda n: engine.search(queries[n : n + 1], 10, params=parameters), SINGLES
                ),
                "gallery": measure_p50(lambda n: gallery.search(queries[n : n + 1], 10), SINGLES),
                "FAISS, batch": measure_p50(
                    lambda n: engine.search(batches[n], 10, params=parameters), BATCHES
                ),
                "gallery, batch": measure_p50(lambda n: gallery.search(batches[n], 10), BATCHES),
            }
        )

    def write_json(rows: np.ndarray) -> bytes:
        return json.dumps({"queries": [{"vector": row} for row in rows.tolist()], "k": 10}).encode()

    rows = [queries[n : n + 1] for n in range(SINGLES)]
    raw = [build_request("POST", "/v1/search?k=10", row.tobytes()) for row in rows]
    as_json = [build_request("POST", "/v1/search", write_json(row), JSON) for row in rows]
    match = [build_request("POST", "/v1/match?k=10", row.tobytes()) for row in rows]
    raw_batch = [build_request("POST", "/v1/search?k=10", batch.tobytes()) for batch in batches]
    octets_batch = [
        build_request("POST", "/v1/search?k=10", batch.tobytes(), accept=OCTETS) for batch in batches
    ]
    json_batch = [build_request("POST", "/v1/search", write_json(batch), JSON) for batch in batches]
    empty, refused = (
        build_request("GET", "/livez"),
        build_request("POST", "/v1/search", rows[0].tobytes(), "text/plain"),
    )
    times |= measure_matches(path, queries)
    ready = build_request("GET", "/readyz")
    with (
        copy_with_evidence(path) as by_evidence,
        start_server(write_server_program(path), ready, {}) as to,
        start_server(write_server_program(by_evidence), ready, {}) as to_evidence,
    ):
        times |= repeat(
            lambda: {
                "empty": measure_p50(lambda _: send(to, empty), SINGLES),
                "refused": measure_p50(lambda _: send(to, refused, 415), SINGLES),
                "raw": measure_p50(lambda n: send(to, raw[n]), SINGLES),
                "JSON": measure_p50(lambda n: send(to, as_json[n]), SINGLES),
                "match": measure_p50(lambda n: send(to, match[n]), SINGLES),
                "match by evidence": measure_p50(lambda n: send(to_evidence, match[n]), SINGLES),
                "octets, batch": measure_p50(lambda n: send(to, octets_batch[n]), BATCHES),
                "raw, batch": measure_p50(lambda n: send(to, raw_batch[n]), BATCHES),
                "JSON, batch": measure_p50(lambda n: send(to, json_batch[n]), BATCHES),
            }
        )
    bare_raw = [build_request("POST", "/raw", row.tobytes()) for row in rows]
    bare_json = [
        build_request("POST", "/search", json.dumps({"vector": row[0].tolist()}).encode(), JSON)
        for row in rows
    ]
    call = f"from benchmarks.service import serve_bare; serve_bare('{path}', PORT)"
    with start_server(call, build_request("POST", "/empty"), {"EF_SEARCH": str(beam)}) as to:
        times |= repeat(
            lambda: {
                "bare empty": measure_p50(lambda _: send(to, build_request("POST", "/empty")), SINGLES),
                "bare raw": measure_p50(lambda n: send(to, bare_raw[n]), SINGLES),
                "bare JSON": measure_p50(lambda n: send(to, bare_json[n]), SINGLES),
            }
        )
    return times | {"beam": beam, "recall": measure_recall(path, queries)}


def write_table(times: Times) -> str:
    """The times of one size as a Markdown table."""

    def format_single(name: str, to: str = "empty") -> str:
        return f"{times[name]:.3f} ms = {times[name] / times[to]:.2f} x {to}"

    def format_batch(name: str) -> str:
        through, inside = BATCH / times[name], BATCH / times["gallery, batch"]
        return f"{1000 * through:,.0f} queries/s = {through / inside:.2f} x in process"

    beam = round(times["beam"])
    bare = ", ".join(f"{times[f'bare {name}']:.3f} ms" for name in ("empty", "raw", "JSON"))
    rows: list[tuple[str, str, str, bool]] = [
        ("recall@10", f"{times['recall']:.3f} at ef_search {beam}", ">= 0.95", is_met(times, "recall")),
        ("FAISS alone, one query", f"{times['FAISS']:.3f} ms", "", True),
        ("gallery in process, one query", f"{times['gallery']:.3f} ms", "", True),
        ("empty endpoint", f"{times['empty']:.3f} ms", "", True),
        ("search refused for its media type", format_single("refused"), "", True),
        ("search, raw row", format_single("raw"), "<= 2.0 x", is_met(times, "raw")),
        ("search, JSON", format_single("JSON"), "<= 3.0 x", is_met(times, "JSON")),
        ("match, raw row", format_single("match", "raw"), "<= 1.2 x", is_met(times, "match")),
        (
            "match by evidence, raw row",
            format_single("match by evidence", "match"),
            "<= 1.25 x",
            is_met(times, "match by evidence"),
        ),
        *(
            (
                f"match by evidence in process, {n}",
                format_single(f"evidence, {n}", f"nearest, {n}"),
                "<= 1.25 x",
                is_met(times, f"evidence, {n}"),
            )
            for n in SIZES
        ),
        ("bare FastAPI app: empty, raw, JSON", bare, "", True),
        ("FAISS alone, batches of 64", format_batch("FAISS, batch"), "", True),
        ("gallery in process, batches of 64", format_batch("gallery, batch"), "", True),
        (
            "octet-stream both ways, 64",
            format_batch("octets, batch"),
            ">= 0.6 x",
            is_met(times, "octets, batch"),
        ),
        ("raw batches of 64, JSON answers", format_batch("raw, batch"), "", True),
        ("JSON batches of 64", format_batch("JSON, batch"), "", True),
    ]
    shown = ["| | p50 | bar | |", "| --- | --- | --- | --- |"]
    for name, value, bar, kept in rows:
        shown.append(f"| {name} | {value} | {bar} | {'' if not bar else 'met' if kept else '**missed**'} |")
    return "\n".join(shown)


def is_met(times: Times, name: str) -> bool:
    """True where a bar is met."""
    return {
        "recall": times["recall"] >= 0.95,
        "raw": times["raw"] <= 2.0 * times["empty"],
        "JSON": times["JSON"] <= 3.0 * times["empty"],
        "match": times["match"] <= 1.2 * times["raw"],
        "match by evidence": times["match by evidence"] <= 1.25 * times["match"],
        **{f"evidence, {n}": times[f"evidence, {n}"] <= 1.25 * times[f"nearest, {n}"] for n in SIZES},
        "octets, batch": times["gallery, batch"] >= 0.6 * times["octets, batch"],
    }[name]


def describe_machine() -> str:
    """The machine, in words."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    cpu = next(named, platform.processor())
    return (
        f"{cpu}, {os.cpu_count()} cores (load {os.getloadavg()[0]:.0f} while this began), "
        f"Python {platform.python_version()}, FAISS {faiss.__version__}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dims", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--spread", type=float, default=0.6, help="of the rows around their centres")
    parser.add_argument("--keep", type=Path, help="keep bundles here and use those that are there")
    parser.add_argument("--build-only", action="store_true")
    given = parser.parse_args()
    today = f"{datetime.now(UTC):%-d %B %Y}"
    print(f"Measured on {today}: {describe_machine()}. Client and service share the cores.\n")
    with tempfile.TemporaryDirectory() as temporary:
        for dim in given.dims:
            items, queries = make_data(given.items, dim, given.spread)
            out = (given.keep or Path(temporary)) / f"{given.items}x{dim}-{given.spread:g}"
            if not out.exists():
                make_bundle(out, items, queries)
            if not given.build_only:
                heading = f"### {given.items:,} x {dim}, spread {given.spread:g}"
                print(f"{heading}\n\n{write_table(measure(out, queries))}\n", flush=True)


if __name__ == "__main__":
    main()
