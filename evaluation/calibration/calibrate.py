"""Choose a threshold, freeze it, and prove what it does (docs/specification.md, Calibration)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from api_schemas.operating_point import (
    Evidence,
    GallerySize,
    OperatingPoint,
    OperatingPointConsistency,
    Proof,
    ScoreChoice,
    Target,
)
from common.errors import CalibrationRefused, InputError
from common.progress import Track, silent
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_items
from evaluation.calibration.choose_score import FITTERS, choose_score, split_classes_in_three
from evaluation.calibration.fit_probability import fit_probability
from evaluation.calibration.fpir_thresholds import SEARCH_RULES
from evaluation.calibration.measure_threshold import measure_threshold
from evaluation.calibration.pair_thresholds import CalibrationSet
from evaluation.calibration.select_threshold import select_threshold
from evaluation.metrics.opis import OpisSettings, measure_consistency
from evaluation.pairs.pairs import Pairs, arrange
from evaluation.pairs.sweep import sweep_pairs

LEAST_CLASSES = 20
HALVINGS = 20
HALVING_REPLICATES = 300


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
    data = CalibrationSet(arrange(fit, scorer=chosen.scorer), target, seed, track)
    selected = select_threshold(data)
    evidence, per_class = measure_threshold(data, selected.threshold)
    update: dict[str, Any] = {"method": f"{chosen.reason}; {selected.method}; {evidence.method}"}
    if selected.fpir is not None:
        update |= {"fpir": selected.fpir.estimate, "fpir_upper": selected.fpir.upper_bound}
    proven: Evidence | None
    if proof is None:
        shown, proven = data.pairs, _prove_by_halvings(fit, data)
    else:
        shown = arrange(proof, scorer=chosen.scorer)
        proven, per_class = measure_threshold(
            CalibrationSet(shown, target, seed, track),
            selected.threshold,
            identification=target.kind == "fpir",
            classes_disjoint=True,
        )
    rule = SEARCH_RULES[target.aggregate]
    probability = None
    if data.pairs.n_genuine:
        probability = fit_probability(
            rule.sample_labelled(data.pairs, data.scored.score_trials(rule), seed), seed
        )
    point = OperatingPoint.freeze(
        name=name,
        created_at=datetime.now(UTC),
        model_hash=model_hash,
        data_hash=hash_items(fit),
        score=chosen.scorer.score,
        threshold=selected.threshold,
        target=selected.target,
        fit=evidence.model_copy(update=update),
        proof=None if proven is None else Proof(**proven.model_dump()),
        per_class=per_class,
        probability=probability,
        consistency=_measure_consistency(shown, seed, track) if rule.is_of_pairs else None,
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


def _measure_consistency(pairs: Pairs, seed: int, track: Track) -> OperatingPointConsistency | None:
    if not pairs.n_genuine:
        return None
    consistency, _ = measure_consistency(sweep_pairs(pairs, track=track), OpisSettings(), seed, track=track)
    return OperatingPointConsistency(
        **{field: getattr(consistency, field) for field in OperatingPointConsistency.model_fields}
    )


def _prove_by_halvings(fit: EmbeddingSet, data: CalibrationSet) -> Evidence | None:
    """Fitted on a random half of the classes, measured on the other, 20 times; means over the halvings.

    Reported where all classes were fitted on, never a gate (docs/specification.md, Calibration, Proof).
    """
    rng, scorer = np.random.default_rng([data.seed, 20]), data.pairs.scorer
    target = data.target.model_copy(update={"gallery": None})
    measured: list[Evidence] = []
    half = len(fit.classes) // 2
    for _ in data.track(range(HALVINGS), "proof by halvings", HALVINGS):
        classes = rng.permutation(fit.classes)
        first, second = (
            CalibrationSet(
                arrange(fit.select_classes(part), scorer=scorer), target, data.seed, draws=HALVING_REPLICATES
            )
            for part in (classes[:half], classes[half : 2 * half])
        )
        try:
            threshold = select_threshold(first).threshold
        except CalibrationRefused:
            continue
        measured.append(measure_threshold(second, threshold, classes_disjoint=True)[0])
    if not measured:
        return None

    columns: dict[str, list[float]] = {
        field: [value for evidence in measured if (value := getattr(evidence, field)) is not None]
        for field in ("n_items", "n_genuine_pairs", "n_impostor_pairs", "far", "frr", "fpir", "fnir")
    }
    fields: dict[str, Any] = dict.fromkeys(Evidence.model_fields.keys() - {"n_classes", "classes_disjoint"})
    fields |= {name: float(np.mean(column)) for name, column in columns.items() if column}
    for name in ("far", "frr", "fpir"):
        if columns[name]:
            fields[f"{name}_upper"] = float(np.quantile(columns[name], target.confidence))
    fields |= {name: round(fields[name]) for name in ("n_items", "n_genuine_pairs", "n_impostor_pairs")}
    fields["method"] = (
        f"{len(measured)} of {HALVINGS} random halvings of the classes: fitted on one half, measured on "
        f"the other, each half its own gallery; means, upper values are the {target.confidence:g} "
        "quantile over halvings"
    )
    return Evidence(**fields, n_classes=half, classes_disjoint=True)
