"""A simulation of search over many shards: what stragglers and lost replicas do to latency and availability.

    python -m benchmarks.sharded_search [--queries 100000] [--shard 4000000] [--seed 0]

Nothing is measured here: a query goes to every shard, waits for the slowest, and is refused where a shard has
no live replica, because a decision without a shard may be wrongly "unknown". What goes in are constants that
docs/scale.md measured on one machine (`Machine`) and assumptions about many (`Fleet`), each with its name.
The stragglers, and the second request after a while, are those of Dean and Barroso, The Tail at Scale, 2013.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GIB = 2**30
DAY = 86_400.0
SAMPLE = 400_000  # answers of one shard that the others are drawn from


@dataclass(frozen=True)
class Machine:
    """What docs/scale.md measured: HNSW, 128 numbers, m 32, one core, clustered data, queries one by one."""

    graph_bytes: float = 8 * 32 + 16  # links of a row
    vector_bytes: float = 4 * 128  # of vectors.npy, which the graph searches
    own_bytes: float = 250.0  # ids, labels, one metadata column
    build_seconds: float = 1_176.0  # of processor time for a million rows
    memory: float = 64 * GIB
    cores: int = 16
    disk_rate: float = 1.0 * GIB  # bytes a second that a shard is loaded with; assumed

    def compute_search_seconds(self, rows: float) -> float:
        """Of one query on one core: the fit of docs/scale.md, 64 + 1,179 N^1.44 microseconds."""
        return (64 + 1_179 * (rows / 1e6) ** 1.44) / 1e6

    def compute_build_seconds(self, rows: float) -> float:
        """Of processor time; a graph's build grows with n log n."""
        return self.build_seconds * rows / 1e6 * np.log(max(rows, 2)) / np.log(1e6)

    def compute_bytes(self, rows: float) -> float:
        """Of memory, graph and vectors resident."""
        return rows * (self.graph_bytes + self.vector_bytes + self.own_bytes)


@dataclass(frozen=True)
class Fleet:
    """What is assumed about many machines."""

    replicas: int = 2
    utilisation: float = 0.5  # of the cores that search
    spread: float = 0.25  # sigma of the logarithm of a search's time
    straggling: float = 0.01  # share of searches that take ten times as long: pauses, neighbours, page faults
    straggle_factor: float = 10.0
    network: float = 0.0005  # seconds there and back
    failure_days: float = 30.0  # between two failures of a replica
    detect: float = (
        5.0  # seconds until a lost replica is asked no more; until then a request to it waits so long:
    )
    timeout: float = 0.5


@dataclass(frozen=True)
class Outcome:
    """What comes of a fleet.

    Attributes:
        shards, machines: machines with all replicas.
        seconds: float64 [queries].
        refused: share of queries that are refused.
        cores: seconds of processor time of one query, all shards together.
    """

    shards: int
    machines: int
    seconds: NDArray[np.float64]
    refused: float
    cores: float


def simulate(
    rows: float, shard: float, machine: Machine, fleet: Fleet, hedge: bool, queries: int, seed: int
) -> Outcome:
    """Queries of a gallery cut into shards of about ``shard`` rows; ``hedge``: a second request is sent."""
    shards = max(1, int(np.ceil(rows / shard)))
    rng = np.random.default_rng(seed)
    of_shard = machine.compute_bytes(rows / shards)
    machines = fleet.replicas * int(np.ceil(shards * of_shard / (0.8 * machine.memory)))
    usual = machine.compute_search_seconds(rows / shards)
    one = _draw(usual, fleet, SAMPLE, rng)
    extra = 0.0
    if hedge:
        after = np.quantile(one, 0.95)
        one = np.where(one > after, np.minimum(one, after + _draw(usual, fleet, SAMPLE, rng)), one)
        extra = 0.05
    # a replica that is gone and not known to be: the request waits in vain, and goes to another
    unnoticed = fleet.detect / (fleet.detect + fleet.failure_days * DAY)
    lost = rng.random(SAMPLE) < unnoticed
    one = np.sort(np.where(lost, fleet.timeout + _draw(usual, fleet, SAMPLE, rng), one))
    # the slowest of so many alike: its distribution is that of one to that power
    slowest = one[(SAMPLE * rng.random(queries) ** (1 / shards)).astype(np.int64)]
    repair = fleet.detect + of_shard / machine.disk_rate
    down = repair / (repair + fleet.failure_days * DAY)
    refused = -np.expm1(shards * np.log1p(-(down**fleet.replicas)))
    return Outcome(shards, machines, slowest, float(refused), shards * usual * (1 + extra))


def _draw(usual: float, fleet: Fleet, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Seconds of one shard's answers: queue, search, network."""
    time = usual * rng.lognormal(0.0, fleet.spread, n)
    time = np.where(rng.random(n) < fleet.straggling, fleet.straggle_factor * time, time)
    # M/G/1 (Pollaczek-Khinchine): who has to wait does so for this long on average; spread as an exponential
    variation = time.var() / time.mean() ** 2
    wait = time.mean() * (1 + variation) / 2 / (1 - fleet.utilisation)
    queued = np.where(rng.random(n) < fleet.utilisation, rng.exponential(wait, n), 0.0)
    return queued + time + fleet.network


def main() -> None:
    """Print a table for ten million, a hundred million, a billion and ten billion rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--shard", type=float, default=4e6, help="rows of a shard")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    machine = Machine()
    columns = ("rows", "shards", "replicas", "second request", "machines of 64 GiB", "p50", "p99", "p99.9")
    print(f"| {' | '.join((*columns, 'refused', 'core s a query', 'rebuild, core hours'))} |")
    print("| --- " * 11 + "|")
    for rows in (1e7, 1e8, 1e9, 1e10):
        for replicas, hedge in ((1, False), (2, False), (2, True), (3, True)):
            fleet = Fleet(replicas=replicas)
            out = simulate(rows, given.shard, machine, fleet, hedge, given.queries, given.seed)
            times = " | ".join(f"{1e3 * np.quantile(out.seconds, q):.0f} ms" for q in (0.5, 0.99, 0.999))
            hours = out.shards * machine.compute_build_seconds(rows / out.shards) / 3600
            print(
                f"| {rows:,.0f} | {out.shards} | {replicas} | {'at p95' if hedge else 'no'} "
                f"| {out.machines} | "
                f"{times} | {out.refused:.1g} | {out.cores:.2g} | {hours:,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
