"""The probability of an answer: fitted on some classes, true on others, in galleries of any size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from api_schemas.operating_point import Aggregate
from decision.answer_probability import AnswerModel
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.answers.draw_answers import FIRST, OF_NO_CLASS, OTHER, SECOND, draw_answers
from evaluation.calibration.answers.fit_answer_probability import (
    compute_outcomes,
    fit_answer_probability,
    fit_softmax_regression,
    judge_answers,
    measure_answers,
)
from evaluation.calibration.fpir_thresholds import SEARCH_RULES
from evaluation.calibration.trials import UNKNOWN, PlainCoordinate, Trials
from evaluation.pairs.pairs import arrange


def make_classes(n: int, seed: int, items: int = 8, d: int = 48) -> EmbeddingSet:
    """Classes of different spread, some of which look alike."""
    rng, world = np.random.default_rng(seed), np.random.default_rng(123)
    looks = world.normal(size=(20, d)) * 0.65
    centres = rng.normal(size=(n, d)) + looks[rng.integers(0, 20, n)]
    spread = 0.75 * np.exp(rng.normal(size=n) * 0.35)
    vectors = centres[:, None] + spread[:, None, None] * rng.normal(size=(n, items, d))
    return EmbeddingSet.from_arrays(vectors.reshape(-1, d), np.repeat(np.arange(n), items))


def score(items: EmbeddingSet, rule: Aggregate) -> Trials:
    return SEARCH_RULES[rule].score_trials(arrange(items), lambda steps, *_: steps)


@pytest.mark.parametrize("rule", ["nearest", "mean_of_class"])
def test_one_fit_holds_for_unseen_classes_in_larger_galleries_at_any_share(rule: Aggregate) -> None:
    fitted, unseen = score(make_classes(150, 1), rule), score(make_classes(520, 2), rule)
    calibration = fit_answer_probability(fitted)
    assert calibration is not None
    model = AnswerModel.read(calibration)
    threshold = float(np.quantile(fitted.best_other, 0.97))
    right_of_sure, sure = 0.0, 0.0
    for size in (50, 150, 500):
        answers = draw_answers(unseen, [size], 1)
        for share in (0.1, 0.5, 0.9):
            assert measure_answers(model, answers, threshold, share).ece <= 0.03, (size, share)
            accepted, right = judge_answers(answers, threshold)
            p = compute_outcomes(model, answers, share).get_right(accepted)
            weights = np.where((p >= 0.9) & (p < 0.99), answers.weigh(share), 0.0)
            right_of_sure, sure = right_of_sure + float(weights @ right), sure + float(weights.sum())
    assert 0.88 <= right_of_sure / sure <= 0.995
    assert sure > 1.0  # of nine cases: a good part of all answers


def test_the_pair_probability_of_before_would_not_have_held() -> None:
    """Of a model that ignores the gallery's size the error is large: the test above can fail."""
    fitted, unseen = score(make_classes(150, 1), "nearest"), score(make_classes(520, 2), "nearest")
    calibration = fit_answer_probability(fitted)
    assert calibration is not None
    threshold = float(np.quantile(fitted.best_other, 0.97))
    answers = draw_answers(unseen, [500], 1)
    blind = AnswerModel.read(calibration)
    as_if_small = replace(answers, n_classes=np.full(len(answers), 5))
    p = compute_outcomes(blind, as_if_small, 0.5).get_right(judge_answers(answers, threshold)[0])
    gap = abs(float(answers.weigh(0.5) @ (p - judge_answers(answers, threshold)[1])))
    assert gap > 0.05


def test_answers_are_those_of_galleries_drawn_by_hand() -> None:
    rng = np.random.default_rng(3)
    other = rng.normal(size=(40, 10)).astype(np.float32)
    codes = np.repeat(np.arange(10), 4)
    codes[:4] = UNKNOWN
    own = rng.normal(size=40).astype(np.float32) + 1
    own[:4] = -np.inf
    known = np.flatnonzero(codes >= 0)
    other[known, codes[known]] = -np.inf
    trials = Trials(other, own, codes, 40, PlainCoordinate())
    answers = draw_answers(trials, [10], 0)  # everything there is
    unknown = answers.select(answers.outcomes == OF_NO_CLASS)
    of_known = answers.select(answers.outcomes != OF_NO_CLASS)
    assert (len(unknown), len(of_known)) == (40, 36)
    for row in range(40):
        ranked = sorted(other[row], reverse=True)
        assert (unknown.best[row], unknown.second[row]) == (ranked[0], ranked[1])
        assert unknown.n_classes[row] == (10 if row < 4 else 9)
    for row, query in enumerate(known):
        gallery = {column: other[query, column] for column in range(10) if column != codes[query]}
        gallery[codes[query]] = own[query]
        ranked_classes = sorted(gallery, key=lambda column: -gallery[column])
        rank = ranked_classes.index(codes[query])
        assert of_known.outcomes[row] == (FIRST, SECOND, OTHER)[min(rank, 2)]
        assert of_known.best[row] == gallery[ranked_classes[0]]
        assert of_known.second[row] == gallery[ranked_classes[1]]
        assert of_known.n_classes[row] == 10
    alone = draw_answers(trials, [1], 0)
    assert not alone.has_second.any()
    assert set(alone.outcomes.tolist()) == {FIRST, OF_NO_CLASS}


def test_shares_are_those_of_known_and_unknown_in_every_size() -> None:
    answers = draw_answers(score(make_classes(30, 4), "nearest"), [3, 10, 20], 0)
    weights = answers.weigh(0.2)
    assert weights.sum() == pytest.approx(1)
    for size in (3, 10, 20):
        of_size = answers.n_classes == size
        assert weights[of_size].sum() == pytest.approx(1 / 3)
        assert weights[of_size & (answers.outcomes == OF_NO_CLASS)].sum() == pytest.approx(0.2 / 3)


def test_a_softmax_regression_finds_the_weights_that_made_the_outcomes() -> None:
    rng = np.random.default_rng(5)
    design = np.stack([np.ones(60_000), rng.normal(2, 3, 60_000), rng.normal(-1, 0.5, 60_000)])
    true = np.array([[0.5, 0.4, -1.0], [-0.5, 0.1, 0.8]])
    odds = np.exp(np.vstack([true @ design, np.zeros(60_000)]))
    edges = np.cumsum(odds / odds.sum(axis=0), axis=0)
    targets = (rng.random(60_000) > edges).sum(axis=0)
    found = fit_softmax_regression(design, targets, np.full(60_000, 1 / 60_000), 2)
    assert found == pytest.approx(true, abs=0.06)


def test_too_few_classes_give_no_probability() -> None:
    assert fit_answer_probability(score(make_classes(4, 6), "nearest")) is None
    assert fit_answer_probability(score(make_classes(20, 6, items=1), "nearest")) is None
