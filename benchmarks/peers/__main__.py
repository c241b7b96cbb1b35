"""Limen beside chroma, pgvector, milvus-lite, LanceDB, qdrant's edge engine and FAISS, on the same machine.

    make bench-peers                                     # installs the peers into .venv-peers, once
    python -m benchmarks.peers --keep FOLDER             # every job; the folder keeps what was built
    python -m benchmarks.peers --jobs search match --dims 128
    python -m benchmarks.peers --small                   # under 3 minutes; fails where an answer costs more
    python -m benchmarks.peers --write docs/performance.md

Rows lie around items / 20 centres, ``unit(centre + 1.2 / sqrt(d) * normal)``. Each engine is set up as its
own documentation advises and searches at the smallest width with recall@10 >= 0.95 (printed). Engines take
turns, A B A B, every second round backwards; a figure is the median of the rounds with their range, a ratio
is taken within a round. Servers are asked over kept connections by ``wrk`` (pgvector by ``pgbench``, milvus
by its client), engines in process by threads; clients and engines share the cores.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.peers.bench import Bench
from benchmarks.peers.jobs import CASES, JOBS, SMALL_CASES, measure_job
from benchmarks.peers.registry import ENGINES, explain_absence
from benchmarks.peers.report.guard import compute_ratios, find_losses, write_reference
from benchmarks.peers.report.plot import draw_ratios
from benchmarks.peers.report.table import write_into, write_section
from benchmarks.peers.results import Results
from benchmarks.peers.scripts import JOB as SCRIPTS_JOB
from benchmarks.peers.scripts import SCRIPTS, measure_scripts
from benchmarks.service import describe_machine

PICTURE = "pictures/peers.png"


def read_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dims", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--jobs", nargs="*", choices=[*JOBS, SCRIPTS_JOB], default=[*JOBS, SCRIPTS_JOB])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--long-rounds", type=int, default=5, help="of ingest and first decision")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each load")
    parser.add_argument("--keep", type=Path, help="keep what the engines built here, and use what is there")
    parser.add_argument("--out", type=Path, help="figures as JSON, round by round; other jobs in it stay")
    parser.add_argument("--resume", action="store_true", help="measure only the rounds that --out lacks")
    parser.add_argument("--write", type=Path, help="write the tables into this page, the plot beside it")
    parser.add_argument("--small", action="store_true", help="5,000 x 32; fails where an answer costs more")
    parser.add_argument(
        "--remember", action="store_true", help="with --small: make these ratios the usual ones"
    )
    given = parser.parse_args(arguments)
    if given.small:
        given.items, given.dims = 5_000, [32]
        given.jobs = [job for job in given.jobs if job in ("search", "match")]
        given.rounds = min(given.rounds, 3)
    return given


def measure(given: argparse.Namespace, folder: Path, results: Results) -> None:
    """Carry out the jobs; ``results`` grows round by round."""
    about = f"{datetime.now(UTC):%-d %B %Y}: {describe_machine()}"
    present, absent = {}, []
    for name in given.engines:
        sentence = explain_absence(ENGINES[name])
        if sentence is None:
            present[name] = ENGINES[name]
        elif sentence not in absent:
            absent.append(sentence)
            print(sentence, flush=True)
    results.change(lambda content: content.update(absent=absent))
    jobs = [job for job in JOBS if job in given.jobs]
    for dim in given.dims if jobs else []:
        bench = Bench(folder, given.items, dim, SMALL_CASES if given.small else CASES)
        try:
            versions = {}
            for name in tqdm(list(present), desc=f"{bench.size}, builds", disable=None):
                try:
                    versions[name] = bench.read_version(name)
                except RuntimeError as error:
                    print(error, flush=True)
                    del present[name]
            results.note_engines(bench.size, versions, bench.tuned)
            for job in jobs:
                engines = [name for name, entry in present.items() if job in entry.jobs]
                rounds = given.long_rounds if JOBS[job].is_long else given.rounds
                results.begin(job, bench.size, about)
                with tqdm(total=rounds * len(engines), desc=f"{bench.size}, {job}", disable=None) as bar:
                    measure_job(results, bench, job, engines, rounds, given.seconds, partial(show, bar))
        finally:
            bench.close()
    if SCRIPTS_JOB in given.jobs:
        results.begin(SCRIPTS_JOB, "", about)
        with tqdm(total=given.long_rounds * len(SCRIPTS), desc=SCRIPTS_JOB, disable=None) as bar:
            measure_scripts(results, given.long_rounds, partial(show, bar))


def show(bar: Any, text: str) -> None:
    """One step further, or what went wrong."""
    if text:
        print(text, flush=True)
    bar.update()


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write; 1 where the guard found a loss."""
    given = read_arguments(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server is left behind
    results = Results(given.out, resume=given.resume)
    with tempfile.TemporaryDirectory() as temporary:
        Path(temporary).chmod(0o755)  # PostgreSQL runs as a user of its own where this is root
        measure(given, given.keep or Path(temporary), results)
    section = write_section(results.content)
    print(section)
    if given.write:
        picture = given.write.parent / PICTURE
        if draw_ratios(results.content["records"], f"{given.items:,} x {given.dims[0]}", picture):
            section += f"\n\n![Queries a second of Limen over those of each peer]({PICTURE})"
        write_into(given.write, section)
    if not given.small:
        return 0
    ratios = compute_ratios(results.content["records"])
    if given.remember:
        write_reference(ratios)
    losses = find_losses(ratios)
    print("\n".join(losses) or "No answer costs more than usually by over twice its spread.")
    return 1 if losses else 0


if __name__ == "__main__":
    sys.exit(main())
