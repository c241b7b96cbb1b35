"""Our search beside the bare engine and other libraries, in one process, on the same vectors.

    python -m benchmarks.index                                   # 100,000 x 128, some minutes on two cores
    python -m benchmarks.index --rows 1000000 --keep /big/disk   # the long form
    python -m benchmarks.index --parts search peers              # some parts of it

Data: unit rows around rows/20 centres, noise 1.2/sqrt(d), queries of the same distribution. Every search is
single-threaded and tuned to recall@10 >= 0.95 on its own first 300 queries; all builds use two threads.
Ours is ``search`` with re-scoring and the accept rule at a threshold; rounds of ours and of bare FAISS take
turns, and the best of each counts. With ``--keep`` the bare graph and the bundles stay for the next part: the
bundle then takes the bare graph as its own before the audit, and its build time is the graph's plus the rest.
Build times are processor seconds, which a busy machine hardly changes.
hnswlib, usearch and qdrant-edge-py are measured where they are installed. Before all that, every kind answers
for SIFT's sample of real descriptors.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from api_schemas.build_config import IndexConfig
from benchmarks.index_parts.bench import Bench
from benchmarks.index_parts.ours import measure_deletes, measure_duplicates, measure_filters, measure_search
from benchmarks.index_parts.peers import measure_edge, measure_peers
from benchmarks.index_parts.sift import measure_sift

PARTS = {
    "search": measure_search,
    "filters": measure_filters,
    "deletes": measure_deletes,
    "duplicates": measure_duplicates,
    "peers": measure_peers,
    "edge": measure_edge,
}
KINDLESS = ("peers",)


def fit_growth(results: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Seconds a query, ``a + b n ** c`` over the sizes searched: least squares of the relative error."""
    from scipy.optimize import least_squares

    measured = [result for result in results if result["part"] == "search" and result["kind"] == kind]
    n = np.array([result["rows"] for result in measured], dtype=np.float64)
    out: dict[str, Any] = {"part": "growth", "kind": kind, "sizes": n.astype(int).tolist()}
    for batch in (64, 1):
        seconds = np.array([1 / result["ours"][f"q/s in {batch}"] for result in measured])

        def off(
            logs: Any, n: np.ndarray[Any, Any] = n, seconds: np.ndarray[Any, Any] = seconds
        ) -> np.ndarray[Any, Any]:
            return np.log(np.exp(logs[0]) + np.exp(logs[1]) * (n / n[-1]) ** logs[2]) - np.log(seconds)

        fit = least_squares(off, [np.log(seconds[0] / 2), np.log(seconds[-1]), 1.0])
        a, b = np.exp(fit.x[:2]) * 1e6
        out[f"microseconds a query in {batch}"] = (
            f"{a:.0f} + {b:.0f} (n / {n[-1]:,.0f}) ** {fit.x[2]:.2f}, off by at most "
            f"{np.expm1(np.abs(fit.fun).max()):.0%}"
        )
    memory = np.array([result["RssAnon MB"] + result["RssFile MB"] for result in measured]) * 2**20
    out["resident bytes a row"] = [round(each) for each in memory / n]
    return out


def main() -> None:
    """Read the options, measure, print; ``--out`` keeps the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000])
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--m", type=int, default=IndexConfig().m)
    parser.add_argument("--ef-construction", type=int, default=IndexConfig().ef_construction)
    parser.add_argument("--kinds", nargs="+", default=["hnsw"])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--keep", type=Path, help="a folder where graphs and bundles stay")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    results: list[dict[str, Any]] = [
        {"part": "sift", "kind": kind, **measure_sift(kind)} for kind in given.kinds
    ]
    print("\n".join(map(json.dumps, results)), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for rows in given.rows:
            bench = Bench(rows, given.dim, given.m, given.ef_construction, folder)
            for part in given.parts:
                for kind in ["-"] if part in KINDLESS else given.kinds:
                    figures = PARTS[part](bench, kind)
                    results.append(
                        {"rows": rows, "part": part, "kind": kind, "cores": os.cpu_count(), **figures}
                    )
                    print(json.dumps(results[-1]), flush=True)
    if len(given.rows) > 2 and "search" in given.parts:
        for kind in given.kinds:
            results.append(fit_growth(results, kind))
            print(json.dumps(results[-1]), flush=True)
    if given.out:
        given.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
