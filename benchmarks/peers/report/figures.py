"""Medians over rounds with their spread, ratios within a round, and the bars that they must meet."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.peers.jobs import CASES
from benchmarks.peers.results import Record


@dataclass(frozen=True)
class Spread:
    """The median of some rounds, and their range."""

    median: float
    least: float
    most: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values), len(values))

    @property
    def width(self) -> float:
        """Half of the range."""
        return (self.most - self.least) / 2


def collect(
    records: Sequence[Record], job: str, size: str, engine: str, case: str, figure: str
) -> dict[int, float]:
    """A figure by round."""
    return {
        record["round"]: record["figures"][case][figure]
        for record in records
        if (record["job"], record["size"], record["engine"]) == (job, size, engine)
        and figure in record["figures"].get(case, {})
    }


def compare(above: dict[int, float], below: dict[int, float]) -> Spread | None:
    """The ratio of two figures of the same rounds."""
    ratios = [value / below[number] for number, value in above.items() if number in below]
    return Spread.of(ratios) if ratios else None


@dataclass(frozen=True)
class Bar:
    """What a figure of ours must reach over that of ``peer``, or by itself where that is "".

    ``peer`` "best" is whichever does best; ``at_least`` or ``at_most`` is the bar.
    """

    job: str
    case: str
    peer: str
    at_least: float | None = None
    at_most: float | None = None
    figure: str = "rate"
    ours: str = "limen"

    def is_met(self, ratio: float) -> bool:
        """Whether a ratio meets it."""
        if self.at_least is not None:
            return ratio >= self.at_least
        return self.at_most is not None and ratio <= self.at_most

    def describe(self) -> str:
        """The bar in signs."""
        return f">= {self.at_least} x" if self.at_least is not None else f"<= {self.at_most} x"


SINGLE = [case for case in CASES if case.endswith("single")]
BATCHES = [case for case in CASES if case.endswith("64") and "batches" in case]
DURABLE = ("chroma", "pgvector", "milvus", "lance", "edge")
BARS = (
    *(Bar("search", case, "chroma", at_least=2.5) for case in SINGLE),
    *(Bar("search", case, "chroma", at_most=1.0, figure="p99") for case in SINGLE),
    Bar("search", "8 clients, single", "pgvector", at_least=1.5),
    *(Bar("search", case, "chroma", at_least=1.5) for case in BATCHES),
    Bar("search", BATCHES[0], "faiss", at_least=0.8, ours="limen-raw"),
    Bar(
        "search", "1 client, single", "limen-raw empty endpoint", at_most=1.5, figure="p50", ours="limen-raw"
    ),
    *(Bar("match", "1 client", peer, at_least=1.5) for peer in ("chroma", "pgvector", "milvus")),
    *(Bar("match", "1 client", peer, at_least=1.5, ours="limen-library") for peer in ("lance", "edge")),
    *(
        Bar("filters", case, "edge", at_most=bar, figure="p50", ours="limen-library")
        for case, bar in (("label", 1.5), ("range 1 %", 1.0), ("range 10 %", 1.0))
    ),
    Bar("ingest", "all rows", "best", at_most=1.0, figure="seconds"),
    Bar("upserts", "8 clients, single", "", at_least=0.8, figure="kept"),
    Bar("upserts", "8 clients, single", "", at_least=1.0, figure="of the writes"),
    Bar("restart", "restart", "best", at_most=0.5, figure="seconds"),
    Bar("restart", "restart", "", at_most=1.4, figure="of vectors"),
)


def measure_bar(records: Sequence[Record], bar: Bar, size: str) -> tuple[Spread, str] | None:
    """The ratio that a bar is about, and against whom; None where it was not measured."""
    ours = collect(records, bar.job, size, bar.ours, bar.case, bar.figure)
    if not ours:
        return None
    if not bar.peer:
        return Spread.of(list(ours.values())), ""
    if bar.peer.endswith("empty endpoint"):
        found = compare(
            ours, collect(records, bar.job, size, bar.ours, "empty endpoint, 1 client", bar.figure)
        )
        return (found, "empty endpoint") if found else None
    ratios = {
        peer: ratio
        for peer in (DURABLE if bar.peer == "best" else (bar.peer,))
        if (ratio := compare(ours, collect(records, bar.job, size, peer, bar.case, bar.figure)))
    }
    if not ratios:
        return None
    hardest = max if bar.at_most is not None else min
    peer = hardest(ratios, key=lambda name: ratios[name].median)
    return ratios[peer], peer
