"""Choose a threshold, freeze it, and show what it does (docs/specification.md, Calibration)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

import numpy as np

from api_schemas.operating_point import (
    Aggregate,
    AggregateChoice,
    AnswerProbability,
    ClassRates,
    Evidence,
    OperatingPoint,
    OperatingPointConsistency,
    Probability,
    Proof,
    ScoreChoice,
    Status,
    Target,
)
from common.array_types import Bools
from common.errors import CalibrationRefused
from common.progress import Track, silent
from decision.class_arrays import ClassArrays
from decision.class_evidence import EvidenceScorer
from decision.targets import name_target
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_items
from evaluation.calibration.answers.fit_answer_probability import fit_answer_probability
from evaluation.calibration.choose_score import FITTERS, ChosenScore, choose_score, split_classes_in_three
from evaluation.calibration.class_evidence.choose_evidence import choose_evidence
from evaluation.calibration.fit_probability import fit_probability
from evaluation.calibration.fpir_thresholds import SEARCH_RULES
from evaluation.calibration.measure_threshold import get_ends, measure_threshold, measure_unknown
from evaluation.calibration.pair_thresholds import CalibrationSet
from evaluation.calibration.select_threshold import SelectedThreshold, select_threshold
from evaluation.calibration.sets.cross_fit import CrossFit
from evaluation.calibration.sets.search_trials import SearchTrials, split_search
from evaluation.calibration.sets.sources import (
    POOLED_BELOW,
    CalibrationSources,
    pool_sets,
    prepare_sources,
)
from evaluation.calibration.sets.tracks import arrange_queries, combine_vectors, select_tracks
from evaluation.calibration.sets.two_models import find_queries
from evaluation.calibration.trials import SearchRule, Trials
from evaluation.metrics.opis import OpisSettings, measure_consistency
from evaluation.pairs.sweep import sweep_pairs

StatusChoice = Literal["auto", "proven", "estimated"]
RATES = [name for name in Evidence.model_fields if name.partition("_")[0] in ("far", "frr", "fpir", "fnir")]
NOT_MEASURED = "not measured on classes it was not chosen on: without any fold of them too few are left"


@dataclass(frozen=True)
class Calibration:
    """An operating point, and what its score needs: a cohort, the arrays of a class model (or None)."""

    point: OperatingPoint
    cohort: EmbeddingSet | None
    class_arrays: ClassArrays | None = None


def calibrate_threshold(
    sources: CalibrationSources,
    target: Target,
    *,
    score: ScoreChoice = "cosine",
    aggregate: AggregateChoice | None = None,
    status: StatusChoice = "auto",
    confidence: float | None = None,
    name: str | None = None,
    model_hash: str,
    track: Track = silent,
    seed: int = 0,
) -> Calibration:
    """Choose a threshold on one set of classes and measure it on another.

    Args:
        sources: the sets; of how many vectors a query is, the target says.
        target: what it must do.
        score: the kind of score; ``auto`` takes the more consistent one, see ``choose_score``.
        aggregate: the rule of a 1:N search, the target's own unless given; ``auto`` takes class evidence
            where it is not worse than the nearest item.
        status: ``proven`` if the one-sided upper bound must meet the target, ``estimated`` for the best
            estimate, ``auto`` for the first where the data supports it and else the second.

    Raises:
        CalibrationRefused: the data cannot support the target; the sentence says what would.
        InputError: sets have another dimension or share classes.
    """
    if confidence is not None:
        target = target.model_copy(update={"confidence": confidence})
    sources = replace(sources, vectors=target.vectors if target.kind == "fpir" else 1)
    rule: AggregateChoice = aggregate or target.aggregate
    calibrator = Calibrator.prepare_pairs(sources, score, model_hash, seed=seed, track=track)
    if target.kind == "fpir":
        calibrator = calibrator.search_by(rule)
    return calibrator.calibrate(calibrator.complete(target), status, name)


@dataclass(frozen=True, eq=False)
class Calibrator:
    """Sets scored once, on which thresholds for any target of one score and 1:N rule are chosen.

    Attributes:
        sources: checked, sampled and pooled.
        data: the set that thresholds are chosen on: ``fit``, and a cohort's classes with it.
        proof_data: the set that they are measured on; None where folds are left out.
        vectors: of a query of a search.
    """

    sources: CalibrationSources
    chosen: ChosenScore
    aggregate: Aggregate
    vectors: int
    model_hash: str
    data_hash: str
    data: CalibrationSet
    proof_data: CalibrationSet | None

    @classmethod
    def prepare(
        cls,
        sources: CalibrationSources,
        score: ScoreChoice,
        aggregate: AggregateChoice,
        model_hash: str,
        *,
        seed: int = 0,
        track: Track = silent,
    ) -> Calibrator:
        """For pairs and for searches by a rule; raises as ``prepare_pairs`` and ``search_by`` do."""
        return cls.prepare_pairs(sources, score, model_hash, seed=seed, track=track).search_by(aggregate)

    @classmethod
    def prepare_pairs(
        cls,
        sources: CalibrationSources,
        score: ScoreChoice,
        model_hash: str,
        *,
        seed: int = 0,
        track: Track = silent,
    ) -> Calibrator:
        """Check the sets, choose the score of pairs, and arrange them.

        Raises:
            CalibrationRefused: too few classes.
            InputError: sets have another dimension or share classes.
        """
        data_hash = hash_items(sources.fit)
        if score in FITTERS and sources.training is None and sources.proof is None:
            parts = split_classes_in_three(sources.fit, seed)
            if parts is not None:
                training, fit, proof = parts
                sources = replace(sources, training=training, fit=fit, proof=proof)
                data_hash = hash_items(fit)
        sources = prepare_sources(sources, seed)
        chosen = choose_score(sources.fit, score, sources.training, sources.proof, seed=seed, track=track)
        if chosen.scorer.is_similarity and len(sources.fit.classes) < POOLED_BELOW:
            sources = pool_sets(sources)
        return cls._arrange(sources, chosen, "nearest", 1, model_hash, data_hash, seed, track)

    @classmethod
    def _arrange(
        cls,
        sources: CalibrationSources,
        chosen: ChosenScore,
        aggregate: Aggregate,
        vectors: int,
        model_hash: str,
        data_hash: str,
        seed: int,
        track: Track,
    ) -> Calibrator:
        def order(items: EmbeddingSet) -> CalibrationSet:
            pairs = arrange_queries(items, None, vectors, sources.exclude_same, chosen.scorer)
            queries = find_queries(items, sources.exclude_same)
            return CalibrationSet(pairs, Target(kind="eer"), seed, track, queries=queries)

        proof_data = None if sources.proof is None else order(sources.proof)
        return cls(
            sources, chosen, aggregate, vectors, model_hash, data_hash, order(sources.pool), proof_data
        )

    def search_by(self, aggregate: AggregateChoice) -> Calibrator:
        """What chooses thresholds of a search by another rule, for queries of as many vectors as the sources
        say; ``auto``: by class evidence where that is not worse than the nearest item.

        Raises:
            CalibrationRefused: class evidence cannot be fitted.
        """
        sources, size = self.sources, self.sources.gallery
        if aggregate in ("nearest", "mean_of_class"):
            return self._search(sources, self.chosen, aggregate)
        evidence = choose_evidence(
            sources.pool,
            sources.training,
            sources.proof,
            references=None if size is None else max(1, round(size.items / size.classes)),
            required=aggregate == "evidence",
            vectors=sources.vectors,
            exclude_same=sources.exclude_same,
            seed=self.data.seed,
            track=self.data.track,
        )
        if evidence.scorer is None:
            if aggregate == "evidence":
                raise CalibrationRefused(
                    f"A search by class evidence cannot be calibrated: {evidence.reason.partition(': ')[2]}; "
                    "give more classes, or another aggregate."
                )
            return self._search(sources.note(evidence.reason), self.chosen, "nearest")
        chosen = ChosenScore(evidence.scorer, evidence.cohort, evidence.reason)
        return self._search(sources, chosen, "evidence")

    def _search(self, sources: CalibrationSources, chosen: ChosenScore, aggregate: Aggregate) -> Calibrator:
        """For another rule: arranged anew where the score or the number of vectors is another."""
        if chosen is self.chosen and sources.vectors == self.vectors:
            is_same = sources is self.sources and aggregate == self.aggregate
            return self if is_same else replace(self, sources=sources, aggregate=aggregate)
        return self._arrange(
            sources,
            chosen,
            aggregate,
            sources.vectors,
            self.model_hash,
            self.data_hash,
            self.data.seed,
            self.data.track,
        )

    def restrict(self, sources: CalibrationSources) -> Calibrator:
        """The same score and rule on other items, such as those of a group.

        Raises CalibrationRefused for too few classes.
        """
        data_hash, seed = hash_items(sources.fit), self.data.seed
        sources = prepare_sources(sources, seed)
        if self.chosen.scorer.is_similarity and len(sources.fit.classes) < POOLED_BELOW:
            sources = pool_sets(sources)
        return self._arrange(
            sources,
            self.chosen,
            self.aggregate,
            self.vectors,
            self.model_hash,
            data_hash,
            seed,
            self.data.track,
        )

    @property
    def rule(self) -> SearchRule:
        """How the items of a class make one score."""
        return combine_vectors(SEARCH_RULES[self.aggregate], self.vectors)

    # -- what is scored once -----------------------------------------------------------------------------
    @cached_property
    def in_gallery(self) -> Bools | None:
        """bool [classes] of ``data``: False for a cohort's; None where there is none."""
        if self.sources.cohort is None:
            return None
        return np.isin(self.data.pairs.classes, self.sources.fit.classes)

    @cached_property
    def search(self) -> SearchTrials:
        """The trials that 1:N thresholds are chosen on."""
        return split_search(self.data.scored.score_trials(self.rule), self.in_gallery, self.strangers)

    @cached_property
    def strangers(self) -> Trials | None:
        """Trials of the real unknown queries to fit on, with the gallery."""
        return self._score_strangers(self.sources.unknown)

    @cached_property
    def strangers_to_prove(self) -> Trials | None:
        """Those of the other half."""
        return self._score_strangers(self.sources.unknown_proof)

    def _score_strangers(self, unknown: EmbeddingSet | None) -> Trials | None:
        if unknown is None:
            return None
        n, sources = self.vectors, self.sources
        pairs = arrange_queries(unknown, sources.fit, n, sources.exclude_same, self.chosen.scorer)
        trials = self.rule.score_trials(pairs, self.data.track)
        # of one label, e.g. "oos", nothing is known of who belongs together: each query for itself
        codes = (pairs if n == 1 else select_tracks(pairs, n)).a.codes[::n]
        groups = codes if len(unknown.classes) > 1 else np.arange(len(codes))
        return replace(trials, of_unknown=groups)

    @cached_property
    def probability(self) -> Probability | None:
        """The probability of a match, of a pair or of a query with a class."""
        if not self.data.pairs.n_genuine:
            return None
        trials = self.data.scored.score_trials(self.rule)
        is_plain = self.chosen.scorer.is_similarity and self.rule.is_of_pairs
        return fit_probability(
            self.rule.sample_labelled(self.data.pairs, trials, self.data.seed),
            self.data.seed,
            self.sources.learned if is_plain else None,
        )

    @cached_property
    def answer(self) -> AnswerProbability | None:
        """The probability that a 1:N answer is right."""
        return fit_answer_probability(self.data.scored.score_trials(self.rule), self.data.seed)

    @cached_property
    def consistency(self) -> OperatingPointConsistency | None:
        """OPIS of the classes that points are shown on."""
        shown = self.proof_data or self.data
        if not self.rule.is_of_pairs or not shown.pairs.n_genuine:
            return None
        sweep = sweep_pairs(shown.pairs, track=shown.track)
        consistency, _ = measure_consistency(sweep, OpisSettings(), shown.seed, track=shown.track)
        return OperatingPointConsistency(
            **{field: getattr(consistency, field) for field in OperatingPointConsistency.model_fields}
        )

    @cached_property
    def folds(self) -> CrossFit:
        """Folds of the classes, for thresholds without classes to prove them on."""
        return CrossFit(self.data, self.in_gallery)

    def prepare_tail(self, targets: Sequence[Target]) -> None:
        """Collect the pairs of the highest FAR at once, which hold those of the others."""
        rates = [target.value for target in targets if target.kind == "far" and target.value is not None]
        if rates:
            self.data.scored.collect_tail(max(rates))

    def complete(self, target: Target) -> Target:
        """A target with the rule and the number of vectors of a search by this calibrator."""
        if target.kind != "fpir":
            return target.model_copy(update={"aggregate": "nearest", "vectors": 1})
        return target.model_copy(update={"aggregate": self.aggregate, "vectors": self.vectors})

    # -- points ------------------------------------------------------------------------------------------
    def calibrate(
        self, target: Target, status: StatusChoice = "auto", name: str | None = None
    ) -> Calibration:
        """The point of a target; see ``calibrate_threshold``."""
        if target.kind == "fpir" and target.gallery is None:
            target = target.model_copy(update={"gallery": self.sources.gallery})
        data = self.data.with_target(target)
        selected, why = self._select(data, status)
        data = self.data.with_target(selected.target)
        search = self.search if target.kind == "fpir" else self._pair_search
        evidence, per_class = measure_threshold(data, selected.threshold, search=search)
        notes = [self.chosen.reason, *self.sources.notes, *why, selected.method, evidence.method]
        update: dict[str, Any] = {"method": "; ".join(notes)}
        if selected.reached is not None:
            kind = selected.target.kind
            update |= {
                kind: selected.reached.estimate,
                f"{kind}_upper": selected.reached.upper_bound,
                f"{kind}_ci": get_ends(selected.reached),
            }
        proven, proven_classes = self._prove(data, selected, search)
        if proven is None:
            proven = evidence.model_copy(update=dict.fromkeys(RATES) | {"method": NOT_MEASURED})
        unknown = None
        if self.strangers_to_prove is not None and target.kind == "fpir":
            unknown = measure_unknown(self.strangers_to_prove, selected.threshold, target.confidence)
        method = "; ".join([*self.sources.notes, proven.method])
        content = proven.model_copy(update={"unknown": unknown, "method": method})
        proof = Proof(**content.model_dump(), status=selected.status)
        point = OperatingPoint.freeze(
            name=name or name_target(selected.target, selected.status),
            created_at=datetime.now(UTC),
            model_hash=self.model_hash,
            data_hash=self.data_hash,
            score=self.chosen.scorer.score,
            threshold=selected.threshold,
            target=selected.target,
            fit=evidence.model_copy(update=update),
            proof=proof,
            per_class=proven_classes if proven_classes is not None else per_class,
            probability=self.probability,
            answer=self.answer if target.kind == "fpir" else None,
            consistency=self.consistency,
        )
        scorer = self.chosen.scorer
        arrays = (
            scorer.arrays if isinstance(scorer, EvidenceScorer) and point.score.class_model_sha256 else None
        )
        return Calibration(point, self.chosen.cohort, arrays)

    @cached_property
    def _pair_search(self) -> SearchTrials:
        """The trials that FPIR and FNIR of a 1:1 threshold are counted on."""
        return split_search(self.data.scored.score_trials(self.rule), self.in_gallery, None)

    def _select(self, data: CalibrationSet, status: StatusChoice) -> tuple[SelectedThreshold, list[str]]:
        """The threshold, and why it is an estimate where a proof was tried."""
        search = self.search if data.target.kind == "fpir" else None
        if status != "auto":
            return select_threshold(data, status, search), []
        try:
            return select_threshold(data, "proven", search), []
        except CalibrationRefused as refusal:
            try:
                return select_threshold(data, "estimated", search), [f"estimated, not proven: {refusal}"]
            except CalibrationRefused:
                raise refusal from None

    def _prove(
        self, data: CalibrationSet, selected: SelectedThreshold, search: SearchTrials
    ) -> tuple[Evidence | None, list[ClassRates] | None]:
        """What the threshold does on classes it was not chosen on; their own rates, where they are a set."""
        if self.proof_data is not None:
            return measure_threshold(
                self.proof_data.with_target(selected.target),
                selected.threshold,
                identification=selected.target.kind == "fpir",
                classes_disjoint=True,
            )
        status: Status = selected.status
        is_search = selected.target.kind == "fpir"
        crossed = self.folds.measure(data, status, self.strangers if is_search else None, selected.threshold)
        return crossed, None
