"""What an operating point does on data it was not fitted on: FPIR as a gallery grows, groups, and how true
its probability of an answer is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from api_schemas.operating_point import AnswerProbability, OperatingPoint
from api_schemas.report import AnswerFigures, AnswerReliability, FpirByGallery, Report
from common.array_types import Bools, Float64s, Int64s
from common.errors import CalibrationRefused
from common.progress import Track, silent
from decision.answer_probability import AnswerModel
from decision.scorers import Scorer
from decision.targets import get_endpoint
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_items
from evaluation.audit.group_rates import measure_groups
from evaluation.audit.threshold_rates import MeasuredThreshold
from evaluation.calibration.answers.draw_answers import draw_answers
from evaluation.calibration.answers.fit_answer_probability import (
    compute_outcomes,
    fit_answer_probability,
    judge_answers,
)
from evaluation.calibration.estimates.fpir_estimate import FpirEstimate
from evaluation.calibration.fit_probability import compute_reliability
from evaluation.calibration.fpir_thresholds import plan_gallery
from evaluation.calibration.sets.sources import sample_items
from evaluation.calibration.trials import UNKNOWN, Trials
from evaluation.pairs.exclusions import ExcludeSame

GALLERIES = (10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)  # classes
FURTHEST = 10.0  # times the classes measured, to which FPIR is extended
LEAST_CLASSES = 5


def add_decision_figures(
    report: Report,
    items: EmbeddingSet,
    point: OperatingPoint,
    scorer: Scorer,
    *,
    gallery: EmbeddingSet | None = None,
    unknown: EmbeddingSet | None = None,
    exclude_same: ExcludeSame = None,
    groups: Sequence[str] = (),
    may_be_fitted: bool = False,
    track: Track = silent,
) -> Report:
    """The report with what a point's threshold does on its items.

    A 1:N point gives ``fpir_by_gallery`` and, where it has a calibration of answers, ``answer``. A point of
    class evidence that was fitted on these classes gives nothing but a reason.

    Args:
        may_be_fitted: the items are of the run that the point was made from, which takes test classes to
            fit on where there are few.

    Raises InputError for a column that is not in the data, or is empty in many rows.
    """
    is_own_data = point.data_hash == hash_items(items)
    is_fitted = is_own_data or (may_be_fitted and _has_no_classes_to_spare(point))
    if point.target.aggregate == "evidence" and is_fitted:
        reason = (
            f"The class evidence of {point.name} was fitted on these classes, so that its decisions on them "
            "are better than on others: what it does with unseen ones is in its proof, and further figures "
            "need items of other classes."
        )
        return report.model_copy(update={"reasons": [*report.reasons, reason]})
    if gallery is None:
        items = sample_items(items, 0)
    measured = MeasuredThreshold.prepare(
        items,
        point.threshold,
        gallery=gallery,
        unknown=unknown,
        exclude_same=exclude_same,
        scorer=scorer,
        aggregate=point.target.aggregate,
        confidence=point.target.confidence,
        track=track,
    )
    update: dict[str, object] = {"groups": measure_groups(measured, items, groups, unknown)}
    if get_endpoint(point.target) == "match":
        update["answer"] = measure_point_answers(measured, point, is_own_data)
        if report.identification is not None:
            sizes = measure_fpir_by_gallery(measured)
            update["identification"] = report.identification.model_copy(update={"fpir_by_gallery": sizes})
    return report.model_copy(update=update)


def _has_no_classes_to_spare(point: OperatingPoint) -> bool:
    """Whether folds of the classes that a point was fitted on are its proof."""
    proof = point.proof
    return proof is None or not proof.classes_disjoint or "folds of the" in proof.method


def measure_fpir_by_gallery(measured: MeasuredThreshold) -> list[FpirByGallery]:
    """FPIR of a threshold in galleries of other sizes and of its own; empty where nothing supports it."""
    trials, unknown = measured.trials, measured.unknown_queries
    n_classes, items = trials.n_classes, trials.gallery_items
    if n_classes < LEAST_CLASSES or not len(unknown):
        return []
    pool = trials
    if unknown is not trials:
        pool = trials.select_queries(trials.codes != UNKNOWN)
    if not len(pool):
        return []
    rows = []
    for classes in sorted({*(size for size in GALLERIES if size <= FURTHEST * n_classes), n_classes}):
        wanted = round(classes * items / n_classes)
        plan = plan_gallery(items, n_classes, None)
        estimate = FpirEstimate(unknown, pool, plan.power * classes / n_classes)
        try:
            interval = estimate.compute_interval(measured.threshold, measured.confidence)
        except CalibrationRefused:
            return []
        upper = max(interval.upper_bound, interval.estimate)
        rows.append(
            FpirByGallery(classes=classes, items=wanted, fpir=interval.estimate, fpir_upper=min(upper, 1.0))
        )
    return rows


def measure_point_answers(
    measured: MeasuredThreshold, point: OperatingPoint, is_own_data: bool = False
) -> AnswerFigures | None:
    """Reliability of a point's answers in this gallery; None without a calibration or known queries.

    Where the calibration was fitted on the same items it is fitted again on each half of the classes and
    measured on the other.
    """
    trials = measured.trials
    if point.answer is None or trials.n_classes < 2 * LEAST_CLASSES or not trials.is_known.any():
        return None
    share = point.answer.unknown_share
    whole = [_judge(trials, point.answer, point, share)]
    judged = list(_judge_halves(trials, point, share)) if is_own_data else whole
    if not judged:
        return None
    p, right, weights, classes = (np.concatenate(column) for column in zip(*judged, strict=True))
    reliability = compute_reliability(p, right, weights / len(judged))
    used = reliability.weight > 0
    return AnswerFigures(
        operating_point=point.id,
        classes=int(classes.max()),
        unknown_share=share,
        ece=reliability.ece,
        log_loss=reliability.log_loss,
        reliability=AnswerReliability(
            predicted=reliability.predicted[used].tolist(),
            observed=reliability.observed[used].tolist(),
            share=reliability.weight[used].tolist(),
        ),
    )


def _judge(
    trials: Trials, calibration: AnswerProbability, point: OperatingPoint, share: float
) -> tuple[Float64s, Bools, Float64s, Int64s]:
    """Probability, outcome, weight and number of classes of answers in a gallery of nearly all classes."""
    answers = draw_answers(trials, [trials.n_classes - 1], 0)
    accepted, right = judge_answers(answers, point.threshold)
    p = compute_outcomes(AnswerModel.read(calibration), answers, share).get_right(accepted)
    return p, right, answers.weigh(share), answers.n_classes


def _judge_halves(
    trials: Trials, point: OperatingPoint, share: float
) -> Iterator[tuple[Float64s, Bools, Float64s, Int64s]]:
    """The same of each half of the classes, by a calibration of the other half."""
    first = np.random.default_rng(0).permutation(trials.n_classes) < trials.n_classes // 2
    for fitted, held_out in ((first, ~first), (~first, first)):
        calibration = fit_answer_probability(trials.select_classes(fitted))
        if calibration is not None:
            yield _judge(trials.select_classes(held_out), calibration, point, share)
