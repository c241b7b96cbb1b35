"""What is measured: a job asks one engine once and returns figures by case; engines take turns."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.peers.bench import Bench
from benchmarks.peers.results import Figures, Results, measure_rounds

BATCH = 64
CLIENTS = 8  # while rows are written
CASES = {  # clients, and queries a request
    "1 client, single": (1, 1),
    "8 clients, single": (8, 1),
    "64 clients, single": (64, 1),
    "1 client, batches of 64": (1, BATCH),
    "8 clients, batches of 64": (8, BATCH),
}
SMALL_CASES = {name: CASES[name] for name in ("1 client, single", "1 client, batches of 64")}


def measure_search(bench: Bench, name: str, seconds: float) -> Figures:
    """Answers a second over HTTP, or of threads in process."""
    worker = bench.get_worker(name)
    figures: Figures = {}
    for case, (clients, batch) in bench.cases.items():
        load = worker.ask("search", clients=clients, batch=batch, seconds=seconds)
        figures[case] = load | {"rate": load["rate"] * batch}
    if name == "limen-raw":
        figures["empty endpoint, 1 client"] = worker.ask("empty", seconds=seconds)
    return figures


def measure_match(bench: Bench, name: str, seconds: float) -> Figures:
    """Decisions of one client."""
    return {"1 client": bench.get_worker(name).ask("match", seconds=seconds)}


def measure_filters(bench: Bench, name: str, seconds: float) -> Figures:
    """Filtered searches of one client."""
    answer: Figures = bench.get_worker(name).ask("filters", seconds=seconds / 2)
    return answer


def measure_ingest(bench: Bench, name: str, _: float) -> Figures:
    """All rows from arrays to a durable index; the build that the searches need is the first round."""
    if (seconds := bench.take_build_seconds(name)) is not None:
        return {"all rows": {"seconds": seconds}}
    folder = bench.folder / f"{name}-ingest"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        with bench.open_worker(name, folder) as worker:
            return {"all rows": worker.ask("build")}
    finally:
        shutil.rmtree(folder)


def measure_restart(bench: Bench, name: str, seconds: float) -> Figures:
    """Seconds to the first answer, memory after all queries."""
    return {"restart": bench.get_worker(name).ask("restart")}


def measure_upserts(bench: Bench, name: str, seconds: float) -> Figures:
    """What writes leave of the searches of eight clients."""
    worker = bench.get_worker(name, copy="written")
    return {"8 clients, single": worker.ask("upserts", clients=CLIENTS, seconds=2 * seconds)}


@dataclass(frozen=True)
class Job:
    """A measurement, and how its figures read: ``figure`` is compared, larger is better unless ``lower``."""

    title: str
    measure: Callable[[Bench, str, float], Figures]
    figure: str
    unit: str
    lower: bool = False
    also: tuple[tuple[str, str], ...] = ()  # other figures shown, each with its unit
    is_long: bool = False


LOAD = (("p99", "ms p99"), ("cpu", "ms of CPU"))
JOBS: dict[str, Job] = {
    "ingest": Job("Ingest, durable", measure_ingest, "seconds", "s", lower=True, is_long=True),
    "search": Job("Search", measure_search, "rate", "queries/s", also=LOAD),
    "match": Job("Match with decision, one query", measure_match, "rate", "/s", also=LOAD),
    "filters": Job("Filters, one client", measure_filters, "p50", "ms", lower=True, also=(("full", "full"),)),
    "upserts": Job(
        "Searches while 500 rows a second are written",
        measure_upserts,
        "rate",
        "queries/s",
        also=(("kept", "kept"), ("written", "rows/s written")),
    ),
    "restart": Job(
        "Restart to the first answer",
        measure_restart,
        "seconds",
        "s",
        lower=True,
        also=(("memory", "MiB"), ("of vectors", "x vectors")),
    ),
}


def measure_job(
    results: Results,
    bench: Bench,
    name: str,
    engines: Sequence[str],
    rounds: int,
    seconds: float,
    report: Callable[[str], None],
) -> None:
    """Rounds of a job at the size of the bench."""

    def measure(engine: str) -> Figures:
        return JOBS[name].measure(bench, engine, seconds)

    measure_rounds(results, name, bench.size, engines, rounds, measure, report)
