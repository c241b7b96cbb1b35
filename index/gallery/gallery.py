"""A gallery under operating points: search, 1:N match and 1:1 verification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from api_schemas.manifest import IndexDescription
from api_schemas.operating_point import Aggregate, OperatingPoint
from common.array_types import UnitVectors
from common.errors import InputError
from common.progress import Track, silent
from common.spans import add_span
from decision.answer_probability import check_unknown_share
from decision.decider import Decider, MatchCandidate, MatchDecision, VerifyDecision
from decision.errors import NoOperatingPoint
from decision.group_points import check_point_of_all, select_point_of_group
from decision.scorers import CosineScorer, Scorer
from decision.targets import get_endpoint
from embeddings.embedding_set import normalise_queries
from embeddings.similarity import compute_pair_similarities, is_copy
from index.bundle import Bundle, read_bundle
from index.gallery.data_folder import HASHES_FILE, DataFolder, open_item_store
from index.gallery.gallery_items import BundleItems, GalleryItems
from index.items.stored_item import StoredItem
from index.search.class_comparison import ClassComparison, compare_class, page_class
from index.search.gallery_view import GalleryView, SearchHit
from index.search.grouped_search import rank_groups
from index.search.joint_match import choose_jointly, sum_members, take_proof_away
from index.search.match_rule import MatchRule
from index.search.match_rules import MATCH_RULES
from index.verified_files import HashCache


class ProbeCount(NamedTuple):
    """Number of rows searched for by their own vector, and of those that found it at the top."""

    rows: int
    n_found: int


class Gallery(AbstractContextManager["Gallery"]):
    """Items under the operating points of one bundle; many threads may query it at once."""

    def __init__(self, bundle: Bundle, items: GalleryItems) -> None:
        self.manifest = bundle.manifest
        self.dim = bundle.manifest.embedding_dim
        self.operating_points = bundle.points
        self._bundle = bundle
        self._items = items
        self._match = self._build_decider(bundle.manifest.operating_points.match)
        self._verify = self._build_decider(bundle.manifest.operating_points.verify)
        self._of_groups: dict[str, Decider] = {}
        for decider in (self._match, self._verify):
            if decider is not None:
                items.prepare(decider)

    @classmethod
    def open(cls, path: Path | str, track: Track = silent) -> Self:
        """Open a bundle, every file checked; raises BundleError naming the file that is off."""
        bundle = read_bundle(Path(path))
        return cls(bundle, BundleItems(bundle, track))

    @classmethod
    def follow(cls, path: Path | str, data: Path | str, database: str | None = None) -> Self:
        """Open a bundle with a data folder that another process may be writing; this one never does.

        Every query sees all writes that were acknowledged before it.

        Args:
            database: where the items are if not in the folder, see ``data_folder.open_item_store``.

        Raises:
            BundleError: damaged files, a folder that belongs to another model, or one no writer has opened.
        """
        folder = Path(data)
        hashes = HashCache(folder / HASHES_FILE)
        bundle = read_bundle(Path(path), hashes)
        store = open_item_store(folder, bundle.manifest.model_hash, database, read_only=True)
        try:
            items = DataFolder(bundle, folder, store, follows=True)
            items.check_owner()
            items.catch_up(hashes)
            return cls(bundle, items)
        except BaseException:
            store.close()
            raise

    def close(self) -> None:
        """Release all files; answers already given stay valid, later queries raise Closed."""
        self._items.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def view(self) -> GalleryView:
        """The snapshot that a query sees, from its beginning to its end; raises Closed."""
        return self._items.view

    @property
    def n_items(self) -> int:
        return len(self.view)

    @property
    def scorer(self) -> Scorer:
        """How pairs are scored: by the active 1:1 point, else the 1:N point; without either by similarity.

        A point that scores whole classes scores pairs by similarity.
        """
        decider = self._verify or self._match
        return CosineScorer() if decider is None or decider.scorer.is_similarity else decider.scorer

    @property
    def is_remote(self) -> bool:
        """Whether searches go to a server."""
        main = self.view.main
        return main is not None and main.engine.is_remote

    def describe_index(self) -> IndexDescription:
        """The engine that searches now, as it is set; that of the bundle while there are no items."""
        main = self.view.main
        return self.manifest.index if main is None else main.description

    def check_engine(self) -> None:
        """Raises EngineUnavailable unless the engine answers."""
        main = self.view.main
        if main is not None:
            main.engine.check()

    def compute_stats(self) -> dict[str, int | str]:
        return self._items.compute_stats()

    def get(self, item_id: str) -> StoredItem | None:
        return self._items.get(item_id)

    def read_thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        """The thumbnails, by id, of those of the items that have one."""
        return self._items.read_thumbnails(ids)

    def page(self, after: str | None = None, limit: int = 100) -> list[StoredItem]:
        return self._items.page(after, limit)

    def page_class(self, label: str, after: str | None = None, limit: int = 100) -> list[StoredItem]:
        """Items of a class in the order of their ids, after one of them."""
        found = (self.get(item_id) for item_id in page_class(self.view, label, after, limit))
        return [item for item in found if item is not None]

    def compare_class(self, label: str, sample: int, others: int) -> ClassComparison | None:
        """A class as the active 1:1 point scores pairs; see ``class_comparison.compare_class``."""
        decider = self._verify or self._match
        return compare_class(self.view, label, decider, sample, others)

    def prepare(self, point: OperatingPoint) -> Decider:
        """Compute what a point needs before it may decide; raises BundleError for another model or cohort."""
        decider = self._bundle.build_decider(point)
        self._items.prepare(decider)
        return decider

    def check_point(self, point: OperatingPoint) -> None:
        """Raises BundleError for a point of another model, or of a cohort or class model that is not here."""
        self._bundle.build_decider(point)

    def decide_by(self, point: OperatingPoint) -> None:
        """Let a point of this model decide its endpoint; raises BundleError for another model or cohort."""
        decider = self.prepare(point)
        if get_endpoint(point.target) == "match":
            self._match = decider
        else:
            self._verify = decider

    def search(
        self,
        vectors: ArrayLike,
        k: int = 10,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  (as in the HTTP body)
        exact: bool = False,
        min_score: float | None = None,
        exclude_ids: Sequence[str | None] | None = None,
        group_by: Literal["label"] | None = None,
        group_size: int = 1,
    ) -> list[list[SearchHit]]:
        """The k most similar items of each query, by falling similarity, ties by id.

        Grouped by label, they are of the k classes whose nearest items are the most similar: hits of one
        class stand together, the nearest class first.

        Args:
            vectors: [q, d] real numbers; brought to length one.
            k: at least 1; fewer hits come only where fewer items match.
            filter: conditions over ``label`` and metadata, see ``index.items.filters``.
            exact: compare with every item, without the engine.
            min_score: leave out hits whose score is below it (float32, ``>=`` stays).
            exclude_ids: for each query an id it leaves out, or None.
            group_by: "label" for k classes instead of k items.
            group_size: how many items of each class, at most; with ``group_by``.

        Raises:
            InputError: vectors, k, filter or lengths that cannot be used.
        """
        queries = normalise_queries(vectors, self.dim)
        decider, view = self._match or self._verify, self.view
        if group_by is None:
            results = view.search(
                queries, k, decider=decider, condition=filter, exact=exact, exclude_ids=exclude_ids
            )
        else:
            items = rank_groups(
                view, queries, k, group_size, condition=filter, exact=exact, exclude_ids=exclude_ids
            )
            results = view.build_scored_hits(queries, items, decider)
        if min_score is None:
            return results
        least = float(np.float32(min_score))  # scores are float32 values, so this compares as float32 does
        return [[hit for hit in hits if hit.score >= least] for hits in results]

    def match(
        self,
        vectors: ArrayLike,
        k: int = 100,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  (as in the HTTP body)
        aggregate: Aggregate | None = None,
        exclude_ids: Sequence[str | None] | None = None,
        candidates: int = 1,
        sizes: Sequence[int] | None = None,
        unknown_share: float | None = None,
        group: str | None = None,
        explain: bool = False,
        joint: bool = False,
    ) -> list[MatchDecision]:
        """The class of each query, or "unknown": decided by the active 1:N point on the best of k candidates.

        Args:
            aggregate: how several items of a class count, which is the point's own rule unless given:
                the nearest of them, the mean of all, or the evidence of the class as a whole (of the
                classes of the k nearest items).
            exclude_ids: for each query an id it leaves out, or None.
            candidates: how many of the best classes to name.
            sizes: how many consecutive rows of ``vectors`` each query has: several vectors of one object,
                such as the frames of a track, are decided together. One each unless given.
            unknown_share: share of queries that are of no class in the gallery, above 0 and below 1, which
                the probability of an answer depends on; that of its calibration (0.5) unless given.
            group: decide by the point that is for this group of queries, see ``select_point_of_group``.
            explain: say of each answer what the score of its class is made of.
            joint: choose the classes of all queries together, see ``joint_match``. The point decides on the
                score of the class chosen, but proves nothing of such answers: they are ``beyond_proof`` and
                have no probability.

        Raises:
            NoOperatingPoint: the bundle has none for 1:N.
            OtherRule: its point was calibrated for another rule.
            OtherGroup: no point is for the group, or the active one is for one group and none is named.
            InputError: as for ``search``.
        """
        chosen = self._select_match_decider(group)
        if unknown_share is not None:
            check_unknown_share(unknown_share)
        if isinstance(candidates, bool) or candidates < 1:
            raise InputError(f"candidates must be a whole number from 1, found {candidates!r}.")
        queries = normalise_queries(vectors, self.dim)
        if sizes is not None and (sum(sizes) != len(queries) or min(sizes, default=1) < 1):
            raise InputError(f"sizes must be whole numbers from 1 with the sum {len(queries)}.")
        # in this order: a newer view has all densities that an older point needs, not the other way round
        decider, view = chosen, self.view
        decider.check_rule(aggregate)
        build_rule = MATCH_RULES[decider.point.target.aggregate]
        rule = build_rule(view, decider, filter, exclude_ids, max(2, candidates))
        if joint:
            if max(sizes or [1]) > 1 or any(exclude_ids or ()):
                raise InputError("joint: queries are one vector each, and no item of the gallery.")
            chosen_hits = choose_jointly(rule.propose(queries, k), queries, partial(sum_members, rule))
            decisions = take_proof_away(_decide(chosen_hits, decider, view, candidates, unknown_share))
        elif sizes is None or max(sizes, default=1) == 1:
            decisions = _decide(rule.propose(queries, k), decider, view, candidates, unknown_share)
        else:
            results = rule.propose_together(queries, sizes, k)
            decisions = _decide(results, decider, view, candidates, unknown_share, sizes)
        return _explain(decisions, rule, queries, sizes) if explain else decisions

    def verify(self, a: ArrayLike, b: ArrayLike) -> list[VerifyDecision]:
        """1:1 decisions on rows of ``a`` and ``b``, both [m, d], by the active 1:1 point.

        Raises NoOperatingPoint where there is none, and InputError for vectors that cannot be used.
        """
        decider = self._verify
        if decider is None:
            raise NoOperatingPoint("verify", self.manifest.operating_points.reasons)
        first, second = normalise_queries(a, self.dim, "a"), normalise_queries(b, self.dim, "b")
        if len(first) != len(second):
            raise InputError(f"verify: a has {len(first)} rows and b has {len(second)}; give pairs.")
        begun = perf_counter()
        similarities = compute_pair_similarities(first, second)
        add_span("rescore", begun)
        begun = perf_counter()
        scorer = decider.scorer
        scores = scorer(similarities, scorer.compute_densities(first), scorer.compute_densities(second))
        point = decider.point
        answers = zip(
            decider.accepts(scores).tolist(),
            similarities.tolist(),
            scores.tolist(),
            decider.compute_probabilities(scores),
            strict=True,
        )
        decisions = [
            VerifyDecision(
                "match" if accepted else "no_match", similarity, score, probability, point.threshold, point.id
            )
            for accepted, similarity, score, probability in answers
        ]
        add_span("decide", begun)
        return decisions

    def probe(self, n: int) -> ProbeCount:
        """Search evenly spaced rows by their own vectors: each must find one as near as itself on top."""
        view = self.view
        queries = view.sample(n)
        if not len(queries):
            return ProbeCount(0, 0)
        own = compute_pair_similarities(queries, queries).tolist()
        results = zip(view.search(queries, 1), own, strict=True)
        return ProbeCount(
            len(queries), sum(bool(hits) and hits[0].similarity >= near for hits, near in results)
        )

    def _select_match_decider(self, group: str | None) -> Decider:
        """The decider of the active 1:N point, or of that for a group; raises as ``match`` does."""
        active = None if self._match is None else self._match.point
        if group is None and self._match is not None:
            check_point_of_all(self._match.point)
            return self._match
        if group is None:
            raise NoOperatingPoint("match", self.manifest.operating_points.reasons)
        point = select_point_of_group(self.operating_points.values(), active, group)
        if self._match is not None and point is active:
            return self._match
        decider = self._of_groups.get(point.id)
        if decider is None:
            decider = self._of_groups[point.id] = self.prepare(point)
        return decider

    def _build_decider(self, point_id: str | None) -> Decider | None:
        return None if point_id is None else self._bundle.build_decider(self._bundle.points[point_id])


def _decide(
    results: list[list[SearchHit]],
    decider: Decider,
    view: GalleryView,
    n_candidates: int,
    unknown_share: float | None,
    sizes: Sequence[int] | None = None,
) -> list[MatchDecision]:
    """The decision on each query's hits, best first; accepted and turned into probabilities all at once."""
    begun = perf_counter()
    point = decider.point
    bests = [_take_best_of_labels(hits, max(2, n_candidates)) for hits in results]
    given = [hits for hits in bests if hits]
    scores = np.array([hits[0].score for hits in given], dtype=np.float32)
    accepted = decider.accepts(scores)
    rivals = np.array([hits[1].score if len(hits) > 1 else np.nan for hits in given], dtype=np.float64)
    outcomes = decider.compute_answers(scores.astype(np.float64), rivals, view.n_classes, unknown_share)
    nothing: list[None] = [None] * len(given)
    answers = zip(
        accepted.tolist(),
        nothing if outcomes is None else outcomes.get_right(accepted).tolist(),
        nothing if outcomes is None else outcomes.first.tolist(),
        nothing if outcomes is None else outcomes.second.tolist(),
        strict=True,
    )
    beyond = {size: decider.is_beyond_proof(len(view), size) for size in set(sizes or [1])}
    decisions = []
    for hits, size in zip(bests, sizes or repeat(1), strict=False):
        if not hits:
            nothing_left = (None, None, None, None, None, point.threshold, None, point.id, beyond[size])
            decisions.append(MatchDecision("unknown", *nothing_left))
            continue
        best, (is_match, right, *of_hits) = hits[0], next(answers)
        probabilities = chain(of_hits, repeat(None))
        decisions.append(
            MatchDecision(
                "match" if is_match else "unknown",
                best.label,
                best.id,
                best.similarity,
                best.score,
                right,
                point.threshold,
                None if len(hits) == 1 else best.score - hits[1].score,
                point.id,
                beyond[size],
                tuple(
                    MatchCandidate(hit.label, hit.id, hit.score, probability)
                    for hit, probability in zip(hits[:n_candidates], probabilities, strict=False)
                ),
                reason="copy" if is_match and size == 1 and is_copy(best.similarity) else None,
            )
        )
    add_span("decide", begun)
    return decisions


def _explain(
    decisions: list[MatchDecision], rule: MatchRule, queries: UnitVectors, sizes: Sequence[int] | None
) -> list[MatchDecision]:
    """The decisions with what the scores of their classes are made of."""
    ends = np.cumsum(sizes or [1] * len(queries)).tolist()
    excluded = rule.exclude_ids or [None] * len(ends)
    explained = []
    for decision, start, end, item_id in zip(decisions, [0, *ends], ends, excluded, strict=False):
        why = None if decision.label is None else rule.explain(queries[start:end], decision.label, item_id)
        explained.append(decision._replace(explanation=why))
    return explained


def _take_best_of_labels(hits: list[SearchHit], n: int) -> list[SearchHit]:
    """The first hit of each of the first ``n`` labels."""
    best: dict[str, SearchHit] = {}
    for hit in hits:
        if hit.label not in best:
            best[hit.label] = hit
            if len(best) == n:
                break
    return list(best.values())
