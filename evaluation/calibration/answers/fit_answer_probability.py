"""Fit the probability that an answer is right, and measure it on other classes.

Over galleries of several sizes, so that it holds when a gallery grows. The form, with or without squared
terms, is the one with the lower log loss on classes held out, in galleries larger than those fitted on.
docs/specification.md, Calibration, Probability of an answer.
"""

from __future__ import annotations

import numpy as np

from api_schemas.operating_point import AnswerProbability
from common.array_types import Bools, Float64s, Int64s
from decision.answer_probability import (
    ALONE,
    FEATURES,
    OUTCOMES,
    OUTCOMES_ALONE,
    AnswerModel,
    AnswerOutcomes,
    WeightMatrix,
    build_design,
    find_factors,
)
from decision.scorers import accepts
from evaluation.calibration.answers.draw_answers import FIRST, OF_NO_CLASS, Answers, draw_answers
from evaluation.calibration.fit_probability import Reliability, compute_reliability
from evaluation.calibration.trials import Trials

UNKNOWN_SHARE = 0.5
LEAST_CLASSES = 5
SIZES = 7  # of galleries, evenly spaced in their logarithm
FOLDS = 5
RIDGE = 1e-5  # of weights of standardised features, beside a mean log loss
STEPS = 50
FORMS: tuple[tuple[str, ...], ...] = (("constant", "score", "gap", "log_classes"), tuple(FEATURES))
FORM_ALONE = ("constant", "score", "log_classes", "score_squared", "score_log_classes")


def fit_answer_probability(trials: Trials, seed: int = 0) -> AnswerProbability | None:
    """From the trials of classes that a score was not fitted on; None for too few of them.

    Answers take part with their scores alone, so that the fit serves every threshold on the same score.
    """
    trials = trials.leave_copies_out()
    if trials.n_classes < LEAST_CLASSES or trials.is_known.sum() < LEAST_CLASSES:
        return None
    sizes = np.unique(np.round(np.geomspace(1, trials.n_classes - 1, SIZES)).astype(int)).tolist()
    answers = draw_answers(trials, sizes, seed)
    if not answers.has_second.any():
        return None
    form = _choose_form(answers, seed)
    return _fit(answers, form)


def _choose_form(answers: Answers, seed: int) -> tuple[str, ...]:
    """The form with the lower log loss on classes and in galleries that it was not fitted on."""
    classes = np.unique(answers.classes)
    folds = np.random.default_rng([seed, 29]).permutation(len(classes)) % FOLDS
    fold = folds[np.searchsorted(classes, answers.classes)]
    small = answers.n_classes < answers.n_classes.max() / 2
    losses = np.zeros(len(FORMS))
    for number in range(FOLDS):
        kept, held_out = answers.select((fold != number) & small), answers.select(fold == number)
        if not kept.has_second.any() or not len(held_out):
            continue
        for position, form in enumerate(FORMS):
            model = AnswerModel.read(_fit(kept, form))
            outcomes = np.stack(compute_outcomes(model, held_out, UNKNOWN_SHARE))
            p = outcomes[held_out.outcomes, np.arange(len(held_out))]
            weights = held_out.weigh(UNKNOWN_SHARE)
            losses[position] -= float(weights @ np.log(np.maximum(p, 1e-12)))
    return FORMS[int(np.argmin(losses))]


def _fit(answers: Answers, form: tuple[str, ...]) -> AnswerProbability:
    ranked = answers.select(answers.has_second)
    gap = ranked.best - ranked.second
    matrix = _fit_matrix(ranked, OUTCOMES, form, gap)
    alone = _fit_matrix(answers, OUTCOMES_ALONE, FORM_ALONE, np.zeros(len(answers)))
    return AnswerProbability(
        weights=matrix.write() | alone.write(f"{ALONE}."),
        ranges={
            "score": (float(answers.best.min()), float(answers.best.max())),
            "gap": (float(gap.min()), float(gap.max())),
        },
        unknown_share=UNKNOWN_SHARE,
    )


def _fit_matrix(
    answers: Answers, outcomes: tuple[str, ...], names: tuple[str, ...], gap: Float64s
) -> WeightMatrix:
    numbers = np.stack([np.ones(len(answers)), answers.best, gap, np.log(answers.n_classes)])
    design = build_design(find_factors(names), numbers)
    # outcomes that the matrix does not tell apart count as the last one that it names
    targets = np.minimum(answers.outcomes, len(outcomes) - 1)
    if len(outcomes) < len(OUTCOMES):
        targets = np.where(answers.outcomes == FIRST, 0, len(outcomes) - 1)
    targets = np.where(answers.outcomes == OF_NO_CLASS, len(outcomes), targets)
    values = fit_softmax_regression(design, targets, answers.weigh(UNKNOWN_SHARE), len(outcomes))
    return WeightMatrix(outcomes, names, values)


def fit_softmax_regression(design: Float64s, targets: Int64s, weights: Float64s, n_outcomes: int) -> Float64s:
    """Weights, float64 [outcomes, features], of log-odds against a last outcome, by damped Newton steps.

    Args:
        design: float64 [features, n], the first row constant.
        targets: int64 [n], the outcome; ``n_outcomes`` for the last one.
        weights: float64 [n] with the sum 1.
    """
    centre, spread = design.mean(axis=1, keepdims=True), np.maximum(design.std(axis=1, keepdims=True), 1e-9)
    centre[0], spread[0] = 0.0, 1.0
    scaled = (design - centre) / spread
    n_features, hit = len(design), np.eye(n_outcomes + 1)[:, targets]
    at = targets, np.arange(len(targets))

    def compute_probabilities(values: Float64s) -> Float64s:
        odds = np.vstack([values @ scaled, np.zeros(scaled.shape[1])])
        odds -= odds.max(axis=0)
        p = np.exp(odds)
        return np.asarray(p / p.sum(axis=0))

    def compute_loss(values: Float64s, p: Float64s) -> float:
        likelihood = np.maximum(p[at], 1e-300)
        return float(-(weights @ np.log(likelihood))) + RIDGE * float(np.square(values).sum())

    values = np.zeros((n_outcomes, n_features))
    p = compute_probabilities(values)
    current = compute_loss(values, p)
    for _ in range(STEPS):
        gradient = ((p - hit)[:n_outcomes] * weights) @ scaled.T + 2 * RIDGE * values
        curvature = np.empty((n_outcomes, n_features, n_outcomes, n_features))
        for a in range(n_outcomes):
            for b in range(n_outcomes):
                spread_of_p = weights * p[a] * ((a == b) - p[b])
                curvature[a, :, b] = (scaled * spread_of_p) @ scaled.T
        flat = curvature.reshape(values.size, values.size) + 2 * RIDGE * np.eye(values.size)
        step = np.linalg.solve(flat, gradient.ravel()).reshape(values.shape)
        while True:
            p = compute_probabilities(values - step)
            lower = compute_loss(values - step, p)
            if not (lower > current and float(np.abs(step).max()) > 1e-10):
                break
            step /= 2
        values, current = values - step, lower
        if float(np.abs(step).max()) < 1e-7:
            break
    unscaled = values / spread.T
    unscaled[:, 0] -= unscaled[:, 1:] @ centre[1:, 0]
    return np.asarray(unscaled)


# -- measured on other classes -------------------------------------------------------------------------
def compute_outcomes(model: AnswerModel, answers: Answers, unknown_share: float) -> AnswerOutcomes:
    """The probabilities that the model gives to answers."""
    return model.compute(answers.best, answers.second, answers.n_classes, unknown_share)


def judge_answers(answers: Answers, threshold: float) -> tuple[Bools, Bools]:
    """bool [n] each: which answers are a match, and which are right."""
    accepted = accepts(answers.best.astype(np.float32), threshold)
    right = np.where(accepted, answers.outcomes == FIRST, answers.outcomes == OF_NO_CLASS)
    return accepted, right


def measure_answers(
    model: AnswerModel, answers: Answers, threshold: float, unknown_share: float
) -> Reliability:
    """Reliability of the probability that answers at a threshold are right."""
    accepted, right = judge_answers(answers, threshold)
    p = compute_outcomes(model, answers, unknown_share).get_right(accepted)
    return compute_reliability(p, right, answers.weigh(unknown_share))
