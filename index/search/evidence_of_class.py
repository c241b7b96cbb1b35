"""The 1:N rule ``evidence``: a class scores as a whole, by all that the gallery knows of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np

from common.array_types import Float32s, Int64s, RowIndices, UnitVectors
from decision.class_evidence import EvidenceScorer, PreparedClasses
from index.items.class_sums import ClassSums, concatenate_sums
from index.search.class_codes import ClassCodes, concatenate_prepared
from index.search.gallery_view import RankedItems, SearchHit
from index.search.generation import Generation
from index.search.match_rule import MatchRule, Members, find_best_of_classes, select_members


class Trials(NamedTuple):
    """Pairs of a query and a class among its candidates, by query.

    Attributes:
        query: int64 [m].
        codes: int64 [m], the class.
        rows, parts: int64 [m], the class's nearest item; all of the first part if None.
        similarities: float32 [m], its similarity.
    """

    query: Int64s
    codes: Int64s
    rows: Int64s
    parts: Int64s | None
    similarities: Float32s

    def select(self, at: Int64s) -> Trials:
        """The trials at these positions."""
        return Trials(*(None if column is None else column[at] for column in self))  # type: ignore[arg-type]


class EvidenceOfClass(MatchRule):
    """A class scores by ``EvidenceScorer``: its nearest item, and the sums over all of its items.

    Candidates are the classes of the k nearest items. Under a condition, or without the query's own item,
    only what counts is in the sums; these are computed then, from the rows of the candidates.
    """

    def propose(self, queries: UnitVectors, k: int) -> list[list[SearchHit]]:
        """For each of the best classes its nearest item, scored by the evidence of the class."""
        ranked = self.view.rank(queries, k, condition=self.condition, exclude_ids=self.exclude_ids)
        if not ranked.rows.size or ranked.rows.max() < 0:
            return [[] for _ in queries]
        trials = self._find_trials(ranked)
        scorer, codes = self._scorer, self._codes
        prepared, klass = self._prepare(trials.codes, trials.query)
        densities = None
        if scorer.has_densities:
            labels = codes.get_labels(trials.codes)
            densities = scorer.compute_trial_densities(queries, trials.query, labels)
        scores = scorer.score_trials(queries, trials.query, trials.similarities, prepared, klass, densities)
        keys: list[Float32s | Int64s] = [*codes.get_label_order(trials.codes), -scores]
        if len(queries) == 1:
            order = np.lexsort(keys)[: self.n_best]
        else:
            order = np.lexsort([*keys, trials.query])
            starts = np.searchsorted(trials.query, np.arange(len(queries)))
            order = order[np.arange(len(order)) - starts[trials.query] < self.n_best]
        return self._name(trials.select(order), scores[order], len(queries))

    def _name(self, trials: Trials, scores: Float32s, q: int) -> list[list[SearchHit]]:
        """Each query's classes by their nearest items."""
        hits = self.view.name_items(trials.rows, trials.parts, trials.similarities, scores.tolist())
        if q == 1:
            return [hits]
        named: list[list[SearchHit]] = [[] for _ in range(q)]
        for query, hit in zip(trials.query.tolist(), hits, strict=True):
            named[query].append(hit)
        return named

    def score_together(
        self, vectors: UnitVectors, labels: list[str], members: Members, excluded: str | None
    ) -> Float32s:
        """A point made for several vectors takes the means of what it weighs; others the mean score."""
        v, c = len(vectors), len(labels)
        scorer, codes = self._scorer, np.array([self._codes.get_code(label) for label in labels])
        best = find_best_of_classes(members.similarities, members.classes, c)
        query = np.repeat(np.arange(v), c)
        sums = self._sum_classes(codes, excluded)
        prepared, klass = scorer.prepare(sums.to_models(scorer.density_key)), np.tile(np.arange(c), v)
        densities = np.zeros((v, c), dtype=np.float32)
        if scorer.has_densities:
            densities = scorer.compute_trial_densities(vectors, query, labels * v).reshape(v, c)
        if self.decider.point.target.vectors == 1:
            scores = scorer.score_trials(vectors, query, best.ravel(), prepared, klass, densities.ravel())
            return np.asarray(scores.reshape(v, c).mean(axis=0, dtype=np.float64), dtype=np.float32)
        means = (values.mean(axis=0, dtype=np.float64) for values in (best, densities))
        best_mean, density_mean = means
        return scorer.score_trials(
            vectors.mean(axis=0, dtype=np.float64)[None],
            np.zeros(c, dtype=np.int64),
            best_mean,
            prepared,
            np.arange(c),
            density_mean,
            vectors=v,
        )

    def list_parts(
        self, vectors: UnitVectors, label: str, members: Members, excluded: str | None
    ) -> dict[str, tuple[float, float]]:
        """The weighed features, their means over the vectors where these are scored one by one."""
        v, scorer = len(vectors), self._scorer
        sums = self._sum_classes(np.array([self._codes.get_code(label)]), excluded)
        prepared = scorer.prepare(sums.to_models(scorer.density_key))
        best = find_best_of_classes(members.similarities, members.classes, 1).ravel()
        densities = scorer.compute_trial_densities(vectors, np.arange(v), [label] * v)
        if self.decider.point.target.vectors == 1:
            every, first = np.arange(v), np.zeros(v, dtype=np.int64)
            features = scorer.compute_features(vectors, every, best, prepared, first, densities)
        else:
            means = (values.mean(axis=0, dtype=np.float64)[None] for values in (vectors, best, densities))
            query, near, density = means
            first = np.zeros(1, dtype=np.int64)
            features = scorer.compute_features(query, first, near, prepared, first, density, vectors=v)
        weighed = {name: scorer.weigh(name, features[name]) for name in scorer.features}
        parts = {name: (float(np.mean(features[name])), float(np.mean(weighed[name]))) for name in weighed}
        plain = scorer.intercept + sum(weighed.values())
        raised = float(np.mean(scorer.raise_copies(plain, features["best"]) - plain))
        if raised:
            parts["copy"] = (float(np.mean(features["best"])), raised)
        return parts | {"intercept": (0.0, float(scorer.intercept))}

    @property
    def _scorer(self) -> EvidenceScorer:
        scorer = self.decider.scorer
        assert isinstance(scorer, EvidenceScorer)  # what a point of this rule has
        return scorer

    @property
    def _codes(self) -> ClassCodes:
        return self.view.class_codes

    def _find_trials(self, ranked: RankedItems) -> Trials:
        """The distinct classes among the ranked items of each query, each with its nearest item."""
        q, width = ranked.rows.shape
        rows, similarities = ranked.rows.ravel(), ranked.similarities.ravel()
        parts = None if ranked.parts is None else ranked.parts.ravel()
        query = np.zeros(width, dtype=np.int64) if q == 1 else np.repeat(np.arange(q), width)
        if rows.min() < 0:
            at = np.flatnonzero(rows >= 0)
            rows, similarities, query = rows[at], similarities[at], query[at]
            parts = None if parts is None else parts[at]
        codes = self._codes.get_codes_of_rows(rows, parts)
        pairs = codes if q == 1 else query * len(self._codes) + codes
        # rows go by falling similarity, so that the first of each class is its nearest
        order = pairs.argsort(kind="stable")
        ordered = pairs[order]
        is_first = np.empty(len(order), dtype=bool)
        is_first[0] = True
        np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
        return Trials(query, codes, rows, parts, similarities).select(order[is_first])

    def _prepare(self, codes: Int64s, query: Int64s) -> tuple[PreparedClasses, Int64s]:
        """Classes prepared for the score, and the position of each trial's class, int64 [m], among them."""
        scorer = self._scorer
        if self.condition is None:
            prepared, klass = self._codes.prepare(codes, scorer)
        else:
            distinct, klass = np.unique(codes, return_inverse=True)
            prepared = scorer.prepare(self._sum_classes(distinct, None).to_models(scorer.density_key))
        if self.exclude_ids is None:
            return prepared, klass
        # the trials of a query with the class of the item it leaves out
        own = np.array([self._get_code_of_item(item_id) for item_id in self.exclude_ids])
        at = np.flatnonzero(own[query] == codes)
        if not len(at):
            return prepared, klass
        without = concatenate_sums(
            [self._sum_classes(codes[[trial]], self.exclude_ids[query[trial]]) for trial in at]
        )
        adjusted = scorer.prepare(without.to_models(scorer.density_key))
        distinct, klass = np.unique(klass, return_inverse=True)
        klass[at] = len(distinct) + np.arange(len(at))
        return concatenate_prepared([prepared.select(distinct), adjusted]), klass

    def _get_code_of_item(self, item_id: str | None) -> int:
        """The class of an item; -1 without one."""
        located = None if item_id is None else self.view.locate(item_id)
        if located is None:
            return -1
        items = located[0].items
        return self._codes.get_code(items.classes[items.label_codes[located[1]]])

    def _sum_classes(self, codes: Int64s, excluded: str | None) -> ClassSums:
        """The sums of classes over the items that count, all but one of them."""
        key = self._scorer.density_key
        keys = [] if key is None else [key]
        if self.condition is not None:
            labels = self._codes.get_labels(codes)
            sums = []
            for part, counting in self.counting_rows:
                rows, classes = select_members(part, labels, counting, excluded)
                sums.append(_sum_rows(part, rows, classes, len(codes), keys))
            return reduce(ClassSums.add, sums)
        sums_of_all = self._codes.sum_classes(codes)
        located = None if excluded is None else self.view.locate(excluded)
        at = np.flatnonzero(codes == self._get_code_of_item(excluded))
        if located is None or not len(at):
            return sums_of_all
        part, row = located
        own = _sum_rows(part, np.array([row]), at, len(codes), list(sums_of_all.densities))
        return sums_of_all.add(own, sign=-1)


def _sum_rows(part: Generation, rows: RowIndices, classes: Int64s, n: int, keys: Sequence[str]) -> ClassSums:
    densities = {key: part.items.densities[key][rows] for key in keys}
    return ClassSums.from_rows(part.vectors[rows], classes, n, densities)
