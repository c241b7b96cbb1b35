"""What every engine does; nothing here or in the engines of peers imports Limen."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks.peers.client_load import Load, measure_calls
from benchmarks.peers.dataset import FILTERS, Condition, Dataset, K
from benchmarks.peers.decision import Decision, decide

Hit = tuple[int, float, str]  # row, similarity, and the label where it was asked for
MATCH_HITS = 100  # candidates of a decision: five times the items of a class, as Limen's match takes
CONDITIONS = 100


class Engine(ABC):
    """A vector search engine, set up as its own documentation advises.

    Args:
        folder: where it keeps its files.
        data: what it holds.

    ``efforts`` are its search widths, smallest first; the first with recall@10 >= 0.95 is used.
    """

    efforts: ClassVar[Sequence[int]] = (10, 16, 24, 32, 40, 48, 64, 80, 100, 128, 160, 200, 256, 400, 512)
    in_process: ClassVar[bool] = False

    def __init__(self, folder: Path, data: Dataset) -> None:
        self.folder, self.data = folder, data

    @abstractmethod
    def read_version(self) -> str:
        """Its version."""

    @abstractmethod
    def build(self) -> None:
        """Hold all rows, durably, searched through the index; returns when that is so."""

    @abstractmethod
    def start(self) -> None:
        """Open what ``build`` wrote; returns when searches are answered."""

    def stop(self) -> None:  # noqa: B027
        """End it, as a restart does."""

    @abstractmethod
    def set_effort(self, effort: int) -> None:
        """Search this widely."""

    @abstractmethod
    def search(
        self, queries: np.ndarray, k: int, condition: Condition | None = None, *, labels: bool = False
    ) -> list[list[Hit]]:
        """The nearest rows of each query, by its own client, one call; labels only where asked for."""

    def upsert(self, rows: Sequence[int], vectors: np.ndarray) -> None:
        """Write rows anew, durably, with the label and value that they had."""
        raise NotImplementedError

    def list_processes(self) -> list[int]:
        """Whose memory it is."""
        return [os.getpid()]

    def decide(self, query: np.ndarray) -> Decision:
        """The same decision as Limen's, in the client's code."""
        return decide(self.search(query[None], MATCH_HITS, labels=True)[0])

    def measure_search(
        self, clients: int, batch: int, seconds: float, conditions: Sequence[Condition] = ()
    ) -> Load:
        """Searches of several clients at once; each condition with a query of its own."""
        queries = self.data.queries
        starts = range(0, len(queries) - batch + 1, batch)

        def call(number: int) -> None:
            start = starts[number % len(starts)]
            condition = conditions[number % len(conditions)] if conditions else None
            self.search(queries[start : start + batch], K, condition)

        return measure_calls(call, clients, seconds)

    def measure_match(self, seconds: float) -> Load:
        """Decisions of one client, one query each."""
        return measure_calls(
            lambda number: self.decide(self.data.queries[number % len(self.data.queries)]), 1, seconds
        )

    def tune(self) -> dict[str, float]:
        """Set the smallest effort that reaches the recall; both."""
        for effort in self.efforts:
            self.set_effort(effort)
            recall = self.measure_recall()
            if recall >= 0.95:
                break
        return {"effort": effort, "recall": recall}

    def measure_recall(self) -> float:
        """Recall@10 of all queries against exact search."""
        found: list[list[Hit]] = []
        for start in range(0, len(self.data.queries), 50):
            found += self.search(self.data.queries[start : start + 50], K)
        pairs = zip(found, self.data.neighbours.tolist(), strict=True)
        return float(np.mean([len({hit[0] for hit in hits} & set(true)) / K for hits, true in pairs]))

    def measure_filters(self, seconds: float) -> dict[str, dict[str, float]]:
        """By kind of filter: the load of one client, how full its answers are and how many are right."""
        figures: dict[str, dict[str, float]] = {}
        for name in FILTERS:
            conditions = self.data.draw_conditions(name, CONDITIONS)
            full = right = 0.0
            for condition, query in zip(conditions, self.data.queries, strict=False):
                found = {hit[0] for hit in self.search(query[None], K, condition)[0]}
                true = self.data.find_exact(query, condition)
                full += len(found) == len(true)
                right += len(found & true) / len(true)
            load = self.measure_search(1, 1, seconds, conditions)
            figures[name] = {**load, "full": full / CONDITIONS, "recall": right / CONDITIONS}
        return figures

    def first_answer(self) -> None:
        """Start and answer once."""
        self.start()
        assert len(self.search(self.data.queries[:1], K)[0]) == K


def list_hits(rows: Any, similarities: Any, labels: Any = None) -> list[Hit]:
    """The hits of one query."""
    names = labels if labels is not None else [""] * len(rows)
    return [
        (int(row), float(value), name) for row, value, name in zip(rows, similarities, names, strict=True)
    ]
