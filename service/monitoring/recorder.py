"""What requests leave behind: counts since the last flush, and the latest queries. The hot path ends here."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from api_schemas.operating_point import OperatingPoint
from common.array_types import Float64s, UnitVectors
from decision.decider import MatchDecision, VerifyDecision
from embeddings.embedding_set import normalise_queries
from embeddings.similarity import is_copy
from service.monitoring.documents import MOST_KEYS, OTHERS, Document
from service.monitoring.score_bins import BINS, get_bin_finder

WINDOW = 512  # latest queries that are compared with the calibration
MATCHED = 256  # latest queries that were matched, whose vectors are compared
OF_REQUEST = 64  # of one request, so that a large batch does not displace all others
EVERY = 16  # once a window is full, one request in 16 is sampled until the window was looked at
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
ROUTES = frozenset({"/v1/match", "/v1/verify", "/v1/search", "/v1/embeddings", "/v1/items"})


@dataclass(frozen=True)
class QueryWindow:
    """The latest queries that a point decided.

    Attributes:
        scores: float64 [n], of the best candidate.
        unknown: how many were answered "unknown".
        vectors: float32 [m, d], the latest that were matched.
        labels: [m], the classes that they were matched with.
        seen: queries of the point that were sampled since it decides.
    """

    scores: Float64s
    unknown: int
    vectors: UnitVectors | None
    labels: list[str]
    seen: int


class PairWindow:
    """Scores of the latest pairs that a point decided."""

    def __init__(self) -> None:
        self._point = ""
        self._scores: deque[float] = deque(maxlen=WINDOW)
        self.unseen = 0

    def add(self, point: str, decisions: Sequence[VerifyDecision]) -> None:
        """Note a request's pairs, but for copies: an item beside itself is no comparison."""
        if point != self._point:
            self._point, self.unseen = point, 0
            self._scores.clear()
        step = -(-len(decisions) // OF_REQUEST) or 1
        scores = [one.score for one in decisions[::step] if not is_copy(one.similarity)]
        self._scores.extend(scores)
        self.unseen += len(scores)

    def read(self, point: str) -> Float64s:
        """The scores, float64 [n], none if another point decided the latest; they count as seen."""
        self.unseen = 0
        return np.array(self._scores if point == self._point else (), dtype=np.float64)


class Recorder:
    """Counts of this process; safe in many threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._decisions: dict[str, dict[str, Document]] = {}
        self._http: dict[str, Document] = {}
        self._clear_window("")

        self._pairs = PairWindow()

    def _clear_window(self, point: str) -> None:
        self._point = point
        self._outcomes: deque[tuple[float, bool]] = deque(maxlen=WINDOW)
        self._matched: deque[tuple[Any, str]] = deque(maxlen=MATCHED)
        self._sampled = self._looked_at = self._requests = 0

    def observe_match(
        self, point: OperatingPoint, decisions: Sequence[MatchDecision], vectors: UnitVectors | None
    ) -> None:
        """Count decisions on a request's queries.

        Args:
            point: what decided.
            vectors: float32 [q, d], for the comparison with the calibration; None for queries that it does
                not hold for: items of the gallery, a filtered gallery, a group, several vectors of a query.
        """
        find_bin = get_bin_finder(point.score)
        with self._lock:
            counts = self._get_counts("match", point.id)
            scores = counts["scores"]
            unknown = beyond = 0
            for decision in decisions:
                unknown += decision.decision == "unknown"
                beyond += decision.beyond_proof
                if decision.score is not None:
                    scores[find_bin(decision.score)] += 1
            counts["n"] += len(decisions)
            counts["unknown"] += unknown
            counts["beyond_proof"] += beyond
            if vectors is not None:
                self._sample(point.id, decisions, vectors)

    def observe_verify(self, point: OperatingPoint, decisions: Sequence[VerifyDecision]) -> None:
        """Count decisions on a request's pairs."""
        find_bin = get_bin_finder(point.score)
        with self._lock:
            counts = self._get_counts("verify", point.id)
            counts["n"] += len(decisions)
            for decision in decisions:
                counts["unknown"] += decision.decision == "no_match"
                counts["scores"][find_bin(decision.score)] += 1
            self._pairs.add(point.id, decisions)

    def observe_response(self, route: str, code: int, seconds: float, problem: str | None) -> None:
        """Count an answered request."""
        place = bisect_left(SECONDS, seconds)
        with self._lock:
            counts = self._http.get(route)
            if counts is None:
                if route not in ROUTES:
                    return
                nothing = {"n": 0, "failed": 0, "refused": 0, "write_failed": 0}
                counts = self._http[route] = {**nothing, "seconds": [0] * (len(SECONDS) + 1)}
            counts["n"] += 1
            counts["seconds"][place] += 1
            if code >= 400:
                counts["failed"] += code >= 500 and problem != "overloaded"
                counts["refused"] += code == 429
                counts["write_failed"] += problem == "write-failed"

    def take(self) -> dict[str, Document]:
        """The counts since the last call, by kind."""
        with self._lock:
            taken = {"decisions": self._decisions, "http": self._http}
            self._decisions, self._http = {}, {}
        return {kind: document for kind, document in taken.items() if document}

    def read_window(self, point: str) -> QueryWindow | None:
        """The latest queries that a point decided; None if it decided none of the latest."""
        with self._lock:
            if point != self._point or not self._outcomes:
                return None
            self._looked_at = self._sampled
            scores = np.array([score for score, _ in self._outcomes])
            unknown = sum(is_unknown for _, is_unknown in self._outcomes)
            matched, seen = list(self._matched), self._sampled
        vectors = None
        if matched and len({vector.shape for vector, _ in matched}) == 1:
            vectors = normalise_queries(np.stack([vector for vector, _ in matched]), len(matched[0][0]))
        return QueryWindow(scores, unknown, vectors, [label for _, label in matched], seen)

    def peek_outcomes(self, point: str) -> tuple[int, int]:
        """How many decisions of a point are in the window, and how many of them were "unknown"."""
        with self._lock:
            if point != self._point:
                return 0, 0
            return len(self._outcomes), sum(is_unknown for _, is_unknown in self._outcomes)

    def read_pairs(self, point: str) -> Float64s:
        """The scores of the latest pairs that a point decided, float64 [n]."""
        with self._lock:
            return self._pairs.read(point)

    @property
    def unseen_pairs(self) -> int:
        """Pairs noted since they were last read."""
        return self._pairs.unseen

    @property
    def unseen(self) -> int:
        """Queries sampled since the window was last read."""
        return self._sampled - self._looked_at

    def _sample(self, point: str, decisions: Sequence[MatchDecision], vectors: UnitVectors) -> None:
        if point != self._point:
            self._clear_window(point)
        self._requests += 1
        if self.unseen >= WINDOW and self._requests % EVERY:
            return
        n = len(decisions)
        rows = range(n) if n <= OF_REQUEST else range(0, n, -(-n // OF_REQUEST))
        for row in rows:
            decision = decisions[row]
            if decision.score is None or is_copy(decision.similarity or 0.0):
                continue
            self._sampled += 1
            self._outcomes.append((decision.score, decision.decision == "unknown"))
            if decision.decision == "match" and decision.label is not None:
                self._matched.append((vectors[row].copy(), decision.label))

    def _get_counts(self, endpoint: str, point: str) -> Document:
        points = self._decisions.setdefault(endpoint, {})
        if point not in points:
            point = point if len(points) < MOST_KEYS else OTHERS
            points.setdefault(point, {"n": 0, "unknown": 0, "beyond_proof": 0, "scores": [0] * BINS})
        return points[point]


def compute_quantile(counts: Sequence[int], share: float) -> float:
    """The time in seconds that this share of requests, counted in bins, stays below; linear within its bin.

    The last bin is open: its lower end is given, which is then too low.
    """
    wanted, below = share * sum(counts), 0.0
    edges = (0.0, *SECONDS)
    for place, count in enumerate(counts):
        if below + count >= wanted and count:
            if place == len(SECONDS):
                return SECONDS[-1]
            return edges[place] + (edges[place + 1] - edges[place]) * max(0.0, wanted - below) / count
        below += count
    return SECONDS[-1]
