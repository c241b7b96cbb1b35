"""Choose a threshold, freeze it, and prove what it does (docs/specification.md, Calibration)."""

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
    ScoreChoice,
    Target,
)
from common.errors import CalibrationRefused, InputError
from common.progress import Track, silent
from decision.scorers import Scorer
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_items
from evaluation.calibration.choose_score import FITTERS, choose_score, split_classes_in_three
from evaluation.calibration.fit_probability import fit_probability
from evaluation.calibration.fpir_thresholds import SEARCH_RULES
from evaluation.calibration.measure_threshold import measure_threshold
from evaluation.calibration.pair_thresholds import GenuineScores, score_genuine_pairs
from evaluation.calibration.select_threshold import select_threshold
from evaluation.metrics.class_bootstrap import draw_classes
from evaluation.metrics.opis import OpisSettings, measure_consistency
from evaluation.pairs.pairs import Pairs, arrange
from evaluation.pairs.sweep import sweep_pairs

LEAST_CLASSES = 20


@dataclass(frozen=True)
class Calibration:
    """An operating point, and the cohort its score needs (None for cosine)."""

    point: OperatingPoint
    cohort: EmbeddingSet | None


def calibrate_threshold(
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
        score: the kind of score; ``auto`` takes the more consistent one, see ``choose_score``.
        cohort: training items, of classes that are in neither ``fit`` nor ``proof``, for kinds that are
            fitted on a cohort. Without them and without ``proof``, such a kind splits the classes of
            ``fit`` in three.
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
    _check_classes(fit, proof)
    if score in FITTERS and cohort is None and proof is None:
        parts = split_classes_in_three(fit, seed)
        if parts is not None:
            cohort, fit, proof = parts
    chosen = choose_score(fit, score, cohort, proof, seed=seed, track=track)
    pairs = arrange(fit, scorer=chosen.scorer)
    weights = draw_classes(len(pairs.classes), seed)
    genuine = score_genuine_pairs(pairs)
    selected = select_threshold(pairs, genuine, target, weights, seed=seed, track=track)
    fitted = measure_threshold(
        pairs,
        selected.threshold,
        target.confidence,
        weights,
        identification=False,
        classes_disjoint=False,
        genuine=genuine,
        aggregate=target.aggregate,
        track=track,
    )
    method = f"{chosen.reason}; {selected.method}; {fitted.evidence.method}"
    evidence = fitted.evidence.model_copy(update={"method": method})
    if selected.fpir is not None:
        evidence = evidence.model_copy(
            update={"fpir": selected.fpir.estimate, "fpir_upper": selected.fpir.bound}
        )
    per_class, shown = fitted.per_class, pairs
    proven: Evidence | None
    if proof is None:
        proven = prove_by_halvings(fit, target, chosen.scorer, seed, track)
    else:
        shown = arrange(proof, scorer=chosen.scorer)
        measured = measure_threshold(
            shown,
            selected.threshold,
            target.confidence,
            draw_classes(len(shown.classes), seed),
            identification=target.kind == "fpir",
            classes_disjoint=True,
            aggregate=target.aggregate,
            seed=seed,
            track=track,
        )
        per_class, proven = measured.per_class, measured.evidence
    digest = hash_items(fit)
    is_of_pairs = SEARCH_RULES[target.aggregate].is_of_pairs
    point = OperatingPoint(
        id=_build_id(name, model_hash, digest, selected.target, selected.threshold),
        name=name,
        created_at=datetime.now(UTC),
        model_hash=model_hash,
        data_hash=digest,
        score=chosen.scorer.score,
        threshold=selected.threshold,
        target=selected.target,
        fit=evidence,
        proof=proven,
        per_class=per_class,
        probability=_fit_probability(pairs, genuine, target, seed),
        consistency=_measure_consistency(shown, seed, track) if is_of_pairs else None,
    )
    return Calibration(point, chosen.cohort)


def _check_classes(fit: EmbeddingSet, proof: EmbeddingSet | None) -> None:
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


def _fit_probability(pairs: Pairs, genuine: GenuineScores, target: Target, seed: int) -> Probability | None:
    if not len(genuine.scores):
        return None
    return fit_probability(SEARCH_RULES[target.aggregate].sample_labelled(pairs, genuine, seed), seed)


def _measure_consistency(pairs: Pairs, seed: int, track: Track) -> OperatingPointConsistency | None:
    if not pairs.n_genuine:
        return None
    settings = OpisSettings()
    sweep = sweep_pairs(pairs, deepest_far=settings.far[1], per_query=False, track=track)
    consistency, _ = measure_consistency(sweep, settings, seed, track=track)
    return OperatingPointConsistency(
        **{field: getattr(consistency, field) for field in OperatingPointConsistency.model_fields}
    )


def _build_id(name: str, model_hash: str, digest: str, target: Target, threshold: float) -> str:
    content = "\n".join([name, model_hash, digest, target.model_dump_json(), repr(threshold)])
    return "op-" + hashlib.sha256(content.encode()).hexdigest()[:16]


HALVINGS = 20


HALVING_REPLICATES = 300


def prove_by_halvings(
    fit: EmbeddingSet, target: Target, scorer: Scorer, seed: int, track: Track
) -> Evidence | None:
    """Fitted on a random half of the classes, measured on the other, 20 times; means over the halvings."""
    rng = np.random.default_rng([seed, 20])
    own_gallery = target.model_copy(update={"gallery": None})
    measured: list[Evidence] = []
    half = len(fit.classes) // 2
    weights = draw_classes(half, seed, HALVING_REPLICATES)
    for _ in track(range(HALVINGS), "proof by halvings", HALVINGS):
        classes = rng.permutation(fit.classes)
        first, second = (
            arrange(fit.select_classes(part), scorer=scorer)
            for part in (classes[:half], classes[half : 2 * half])
        )
        try:
            genuine = score_genuine_pairs(first)
            threshold = select_threshold(first, genuine, own_gallery, weights, seed=seed).threshold
        except CalibrationRefused:
            continue
        measurement = measure_threshold(
            second,
            threshold,
            target.confidence,
            weights,
            identification=False,
            classes_disjoint=True,
            aggregate=target.aggregate,
        )
        measured.append(measurement.evidence)
    if not measured:
        return None

    def collect(field: str) -> list[float]:
        values = (getattr(evidence, field) for evidence in measured)
        return [value for value in values if value is not None]

    def compute_mean(field: str) -> float | None:
        values = collect(field)
        return float(np.mean(values)) if values else None

    def compute_quantile(field: str) -> float | None:
        values = collect(field)
        return float(np.quantile(values, target.confidence)) if values else None

    return Evidence(
        n_items=round(compute_mean("n_items") or 0),
        n_classes=half,
        n_genuine_pairs=round(compute_mean("n_genuine_pairs") or 0),
        n_impostor_pairs=round(compute_mean("n_impostor_pairs") or 0),
        far=compute_mean("far"),
        far_upper=compute_quantile("far"),
        frr=compute_mean("frr"),
        frr_upper=compute_quantile("frr"),
        fpir=compute_mean("fpir"),
        fpir_upper=compute_quantile("fpir"),
        fnir=compute_mean("fnir"),
        method=(
            f"{len(measured)} of {HALVINGS} random halvings of the classes: fitted on one half, measured on "
            f"the other, each half its own gallery; means, upper values are the {target.confidence:g} "
            "quantile over halvings"
        ),
        classes_disjoint=True,
    )
