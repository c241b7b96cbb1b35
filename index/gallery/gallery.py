"""A bundle opened for questions: what is near, who is this, are these two the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from api_schemas.manifest import Manifest
from api_schemas.operating_point import Aggregate, OperatingPoint
from common.array_types import UnitVectors
from common.errors import BundleError, InputError, LimenError
from decision.decider import COSINE, Decider, Match, NoOperatingPoint, OtherRule, Verification
from decision.scorers import Scorer
from embeddings.similarity import pair_similarities
from index.bundle import Bundle, read_bundle
from index.gallery.overlay import with_densities
from index.search.class_mean_search import mean_hits
from index.search.gallery_view import Hit, View
from index.search.generation import Generation
from index.search.query_vectors import query_rows
from index.store.item_store import StoredItem

__all__ = ["Closed", "Gallery", "Hit", "Match", "NoOperatingPoint", "OtherRule", "Probe", "Verification"]


class Closed(LimenError):
    """A gallery was asked or written to after it was closed."""


class Probe(NamedTuple):
    """How many rows were searched for by their own vector, and how many found it at the top."""

    rows: int
    found: int


class Gallery:
    """Reads one bundle; many threads may ask at once."""

    def __init__(self, bundle: Bundle, view: View) -> None:
        self._bundle = bundle
        self._shown: View | None = view  # replaced whole by whoever writes; a question reads it once
        self._match = self._decider(bundle.manifest.operating_points.match)
        self._verify = self._decider(bundle.manifest.operating_points.verify)

    @classmethod
    def open(cls, path: Path | str) -> Gallery:
        """Open a bundle, every file checked; raises BundleError naming the file that is off."""
        bundle = read_bundle(Path(path))
        return cls(bundle, View(bundle.generation()))

    def close(self) -> None:
        """Let go of the mapped files; answers already given stay valid, later questions are refused."""
        self._shown = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _view(self) -> View:
        view = self._shown
        if view is None:
            raise Closed(f"The gallery of {self._bundle.path} was closed: open it again.")
        return view

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self._bundle.manifest

    @property
    def n_items(self) -> int:
        """How many items can be found."""
        return len(self._view)

    @property
    def dim(self) -> int:
        """How many numbers a vector has."""
        return self.manifest.embedding_dim

    @property
    def operating_points(self) -> Mapping[str, OperatingPoint]:
        """The bundle's points by id."""
        return self._bundle.points

    @property
    def scorer(self) -> Scorer:
        """How the active 1:1 point scores, else the 1:N point; without either the similarity itself."""
        decider = self._verify or self._match
        return COSINE if decider is None else decider.scorer

    def stats(self) -> dict[str, int | str]:
        """Counts for monitoring."""
        return self._view.stats()

    def vector(self, item_id: str) -> UnitVectors | None:
        """A stored unit row, float32 [d], or None if no item has the id."""
        return self._view.vector(item_id)

    def get(self, item_id: str) -> StoredItem | None:
        """An item, or None."""
        found = self._view.row_of(item_id)
        return None if found is None else _stored(*found)

    def page(self, after: str | None = None, limit: int = 100) -> list[StoredItem]:
        """Items in the order of their ids, after one of them."""
        main = self._view.main
        return (
            [] if main is None else [_stored(main, row) for row in main.items.rows_after(after or "", limit)]
        )

    def decide_by(self, point: OperatingPoint) -> None:
        """Let a point of this model decide from now on: 1:N if it was made for FPIR, 1:1 otherwise.

        Raises:
            BundleError: a point of another model or cohort.
        """
        if point.model_hash != self.manifest.model_hash:
            raise BundleError(
                f"The operating point '{point.id}' was calibrated for model {point.model_hash[:12]}, this is "
                f"{self.manifest.model_hash[:12]}: calibrate again with this model."
            )
        decider = Decider(point, self._bundle.scorer(point))
        self._prepare(decider)
        if point.target.kind == "fpir":
            self._match = decider
        else:
            self._verify = decider

    def search(
        self,
        vectors: ArrayLike,
        k: int = 10,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  (the contract's name)
        exact: bool = False,
        min_score: float | None = None,
        exclude_ids: Sequence[str | None] | None = None,
    ) -> list[list[Hit]]:
        """The k most similar items of each query, by falling similarity, ties by id.

        Args:
            vectors: [q, d] real numbers; brought to length one.
            k: at least 1; fewer hits come only where fewer items match.
            filter: conditions over ``label`` and metadata, see ``index.filters``.
            exact: compare with every item instead of asking the engine.
            min_score: leave out hits whose score is below it (float32, ``>=`` stays).
            exclude_ids: for each query an id it leaves out, or None.

        Raises:
            InputError: vectors, k, filter or lengths that cannot be used.
        """
        queries = query_rows(vectors, self.dim)
        decider = self._match or self._verify
        hits = self._view.search(
            queries, k, decider=decider, condition=filter, exact=exact, exclude_ids=exclude_ids
        )
        if min_score is None:
            return hits
        least = float(np.float32(min_score))  # scores are float32 values, so this compares as float32 does
        return [[hit for hit in some if hit.score >= least] for some in hits]

    def match(
        self,
        vectors: ArrayLike,
        k: int = 100,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  (the contract's name)
        aggregate: Aggregate | None = None,
        exclude_ids: Sequence[str | None] | None = None,
    ) -> list[Match]:
        """Who each query is, or "unknown": decided by the active 1:N point on the best of k candidates.

        Args:
            aggregate: how several items of a class count, which is the point's own rule unless given:
                the nearest of them, or the mean of all (of the classes of the k nearest items).

        Raises:
            NoOperatingPoint: the bundle has none for 1:N.
            OtherRule: its point was calibrated for the other rule.
            InputError: as for ``search``.
        """
        if self._match is None:
            raise NoOperatingPoint("match", self.manifest.operating_points.reasons)
        queries = query_rows(vectors, self.dim)
        # in this order: a newer view has all densities that an older point needs, not the other way round
        decider, view = self._match, self._view
        decider.check_rule(aggregate)
        if decider.point.target.aggregate == "mean_of_class":
            found = mean_hits(view, queries, k, decider, filter, exclude_ids)
        else:
            found = view.search(queries, k, decider=decider, condition=filter, exclude_ids=exclude_ids)
        return _decided(found, decider, len(view))

    def verify(self, a: ArrayLike, b: ArrayLike) -> list[Verification]:
        """Whether rows of ``a`` and ``b``, both [m, d], are alike: decided by the active 1:1 point.

        Raises:
            NoOperatingPoint: the bundle has none for 1:1.
            InputError: vectors that cannot be used, or lengths that differ.
        """
        decider = self._verify
        if decider is None:
            raise NoOperatingPoint("verify", self.manifest.operating_points.reasons)
        first, second = query_rows(a, self.dim, "a"), query_rows(b, self.dim, "b")
        if len(first) != len(second):
            raise InputError(f"verify: a has {len(first)} rows and b has {len(second)}; give pairs.")
        similarities = pair_similarities(first, second)
        scorer = decider.scorer
        scores = scorer(similarities, scorer.densities(first), scorer.densities(second))
        point = decider.point
        return [
            Verification(
                "match" if accepted else "no_match", similarity, score, probability, point.threshold, point.id
            )
            for accepted, similarity, score, probability in zip(
                decider.accepts(scores).tolist(),
                similarities.tolist(),
                scores.tolist(),
                decider.probabilities(scores),
                strict=True,
            )
        ]

    def sample(self, n: int) -> UnitVectors:
        """Vectors of evenly spaced items of the index, float32 [<= n, d]."""
        return self._view.sample(n)

    def probe(self, n: int) -> Probe:
        """Search evenly spaced rows by their own vectors: each must find one as near as itself on top."""
        queries = self.sample(n)
        if not len(queries):
            return Probe(0, 0)
        found = self._view.search(queries, 1)
        itself = pair_similarities(queries, queries)
        return Probe(
            len(queries),
            sum(
                bool(hits) and hits[0].similarity >= own
                for hits, own in zip(found, itself.tolist(), strict=True)
            ),
        )

    def _prepare(self, decider: Decider) -> None:
        """Have the densities of all items that a point needs, before it decides."""
        view = self._view
        if view.main is not None:
            self._shown = replace(view, main=with_densities(view.main, [decider]))

    def _decider(self, point_id: str | None) -> Decider | None:
        if point_id is None:
            return None
        point = self._bundle.points[point_id]
        return Decider(point, self._bundle.scorer(point))


def _stored(generation: Generation, row: int) -> StoredItem:
    items = generation.items
    return StoredItem(
        items.ids[row],
        items.classes[items.label_codes[row]],
        np.array(generation.vectors[row]),
        items.metadata_of(row),
    )


def _decided(found: list[list[Hit]], decider: Decider, n_items: int) -> list[Match]:
    """The decision for each query's hits; accepted and turned into probabilities all at once."""
    point, beyond = decider.point, decider.beyond_proof(n_items)
    nobody = Match("unknown", None, None, None, None, None, point.threshold, None, point.id, beyond)
    bests = [_best(hits, decider) for hits in found if hits]
    scores = np.array([best.score for best, _ in bests], dtype=np.float32)
    matches = (
        Match(
            "match" if accepted else "unknown",
            best.label,
            best.id,
            best.similarity,
            best.score,
            probability,
            point.threshold,
            None if rival is None else best.score - rival,
            point.id,
            beyond,
        )
        for (best, rival), accepted, probability in zip(
            bests, decider.accepts(scores).tolist(), decider.probabilities(scores), strict=True
        )
    )
    return [next(matches) if hits else nobody for hits in found]


def _best(hits: list[Hit], decider: Decider) -> tuple[Hit, float | None]:
    """The best of at least one hit by score, ties by id, and the best score of another label."""
    if decider.scores_are_similarities:
        # hits come in the order of their similarities, ties by id
        best = hits[0]
        return best, next((hit.score for hit in hits if hit.label != best.label), None)
    best = min(hits, key=lambda hit: (-hit.score, hit.id))
    return best, max((hit.score for hit in hits if hit.label != best.label), default=None)
