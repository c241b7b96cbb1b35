"""Choose a threshold, freeze it, and prove what it does (contract, section 4)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from api_schemas.operating_point import (
    Evidence,
    GallerySize,
    OperatingPoint,
    OperatingPointConsistency,
    Probability,
    Target,
)
from common.errors import CalibrationRefused, InputError
from common.progress import Track, silent
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import data_hash
from evaluation.calibration.bootstrap_bounds import resampled_classes
from evaluation.calibration.class_mean_scores import labelled_means
from evaluation.calibration.density_score import ScoreChoice, choose_score, scored_pairs, split_for_density
from evaluation.calibration.fit_probability import LabelledScores, fit_probability
from evaluation.calibration.impostor_tail import sampled_rows
from evaluation.calibration.measure_threshold import measure
from evaluation.calibration.pair_thresholds import Genuine, genuine_pairs
from evaluation.calibration.select_threshold import choose
from evaluation.calibration.split_half_proof import proof_by_halvings
from evaluation.metrics.opis import Settings, consistency
from evaluation.pairs.pairs import Pairs
from evaluation.pairs.sweep import sweep

LEAST_CLASSES = 20
IMPOSTORS_FOR_PROBABILITY = 100_000


@dataclass(frozen=True)
class Calibration:
    """An operating point, and the cohort its score needs (None for cosine)."""

    point: OperatingPoint
    cohort: EmbeddingSet | None


def calibrate(
    fit: EmbeddingSet,
    target: Target,
    *,
    proof: EmbeddingSet | None = None,
    score: ScoreChoice = "cosine",
    cohort: EmbeddingSet | None = None,
    confidence: float | None = None,
    name: str,
    model_hash: str,
    gallery: GallerySize | None = None,
    track: Track = silent,
    seed: int = 0,
) -> Calibration:
    """Choose a threshold on one set of classes and prove it on another.

    Args:
        fit: items the threshold is chosen on, e.g. of the validation classes.
        target: what it must do; met by the one-sided upper bound from resampling classes.
        proof: items of other classes that it is measured on; without them 20 random halvings of the
            classes of ``fit`` are reported (fitted on one half, measured on the other).
        score: the kind of score; ``auto`` takes the more consistent one, see ``density.choose_score``.
        cohort: training items, of classes that are in neither ``fit`` nor ``proof``, for ``density``.
            Without them and without ``proof``, ``density`` splits the classes of ``fit`` in three.
        confidence: of the bound; the target's own unless given.
        name: of the operating point.
        model_hash: what the point is bound to.
        gallery: the size of gallery an ``fpir`` point must hold for; that of ``fit`` unless given.

    Raises:
        CalibrationRefused: the data cannot support the target; the sentence says what would.
        InputError: ``proof`` or ``cohort`` have another dimension or share classes with ``fit``.
    """
    if confidence is not None:
        target = target.model_copy(update={"confidence": confidence})
    if gallery is not None and target.kind == "fpir":
        target = target.model_copy(update={"gallery": gallery})
    _check(fit, proof)
    if score == "density" and cohort is None and proof is None:
        parts = split_for_density(fit, seed)
        if parts is not None:
            cohort, fit, proof = parts
    scoring = choose_score(fit, score, cohort, proof, seed=seed, track=track)
    pairs = scored_pairs(fit, scoring.scorer)
    weights = resampled_classes(len(pairs.classes), seed)
    genuine = genuine_pairs(pairs)
    chosen = choose(pairs, genuine, target, weights, seed=seed, track=track)
    fitted = measure(
        pairs,
        chosen.threshold,
        target.confidence,
        weights,
        identification=False,
        classes_disjoint=False,
        genuine=genuine,
        aggregate=target.aggregate,
        track=track,
    )
    evidence = fitted.evidence.model_copy(
        update={"method": f"{scoring.reason}; {chosen.method}; {fitted.evidence.method}"}
    )
    if chosen.fpir is not None:
        evidence = evidence.model_copy(update={"fpir": chosen.fpir.estimate, "fpir_upper": chosen.fpir.bound})
    per_class, shown = fitted.per_class, pairs
    proven: Evidence | None
    if proof is not None:
        proof_pairs = scored_pairs(proof, scoring.scorer)
        measured = measure(
            proof_pairs,
            chosen.threshold,
            target.confidence,
            resampled_classes(len(proof_pairs.classes), seed),
            identification=target.kind == "fpir",
            classes_disjoint=True,
            aggregate=target.aggregate,
            seed=seed,
            track=track,
        )
        per_class, proven, shown = measured.per_class, measured.evidence, proof_pairs
    else:
        proven = proof_by_halvings(fit, target, scoring.scorer, seed, track)
    digest = data_hash(fit)
    settled = chosen.target
    point = OperatingPoint(
        id=_identity(name, model_hash, digest, settled, chosen.threshold),
        name=name,
        created_at=datetime.now(UTC),
        model_hash=model_hash,
        data_hash=digest,
        score=scoring.scorer.score,
        threshold=chosen.threshold,
        target=settled,
        fit=evidence,
        proof=proven,
        per_class=per_class,
        probability=_probability(pairs, genuine, target, seed),
        # how evenly a threshold holds is measured over pairs, which means of classes do not threshold
        consistency=_consistency(shown, seed, track) if target.aggregate == "nearest" else None,
    )
    return Calibration(point, scoring.cohort)


def _check(fit: EmbeddingSet, proof: EmbeddingSet | None) -> None:
    n = len(fit.classes)
    if n < LEAST_CLASSES:
        raise CalibrationRefused(
            f"{n} class{'es are' if n != 1 else ' is'} too few to calibrate on: a bound over classes needs "
            f"at least {LEAST_CLASSES}; give more classes."
        )
    if proof is None:
        return
    if proof.dimension != fit.dimension:
        raise InputError(
            f"The proof's vectors have {proof.dimension} numbers, those to fit on {fit.dimension}."
        )
    shared = np.intersect1d(fit.classes, proof.classes)
    if len(shared):
        raise InputError(
            f"{len(shared)} classes, e.g. '{shared[0]}', are both in the fit and in the proof; a threshold "
            "is proven on classes it was not chosen on."
        )


def labelled_scores(pairs: Pairs, genuine: Genuine, seed: int) -> LabelledScores:
    """All genuine pairs and a random part of the impostor pairs, with the truth."""
    rows, scores = sampled_rows(pairs, seed)
    i, j = np.nonzero(np.isfinite(scores))
    drawn = np.random.default_rng([seed, 5]).permutation(len(i))[:IMPOSTORS_FOR_PROBABILITY]
    i, j = i[drawn], j[drawn]
    return LabelledScores(
        scores=np.concatenate([genuine.scores, scores[i, j]]).astype(np.float64),
        genuine=np.repeat([True, False], [len(genuine.scores), len(i)]),
        first=np.concatenate([genuine.codes, pairs.a.codes[rows[i]]]),
        second=np.concatenate([genuine.codes, pairs.a.codes[j]]),
    )


def _probability(pairs: Pairs, genuine: Genuine, target: Target, seed: int) -> Probability | None:
    if not len(genuine.scores):
        return None
    if target.aggregate == "mean_of_class":
        return fit_probability(labelled_means(pairs, seed), seed)
    return fit_probability(labelled_scores(pairs, genuine, seed), seed)


def _consistency(pairs: Pairs, seed: int, track: Track) -> OperatingPointConsistency | None:
    if not pairs.n_genuine:
        return None
    settings = Settings()
    found = sweep(pairs, deepest_far=settings.far[1], per_query=False, track=track)
    measured, _ = consistency(found, settings, seed, track=track)
    return OperatingPointConsistency(
        **{field: getattr(measured, field) for field in OperatingPointConsistency.model_fields}
    )


def _identity(name: str, model_hash: str, digest: str, target: Target, threshold: float) -> str:
    content = "\n".join([name, model_hash, digest, target.model_dump_json(), repr(threshold)])
    return "op-" + hashlib.sha256(content.encode()).hexdigest()[:16]
