"""Is the probability of an answer true? Fitted on some classes, judged on others in galleries of three sizes.

The calibration is the one that ``limen calibrate`` freezes with an FPIR point. Unseen classes make galleries
of 50, 150 and 500 classes (of an embeddings file: as many as are left), with 10, 50 and 90 % of the queries
unknown; one fit serves all nine cases. Prints one table in Markdown and ends with exit code 1 where a bar is
missed: a mean ECE of at most 0.03 in every case, and 88 to 99.5 % right of answers shown with 0.9 to 0.99.

    python -m benchmarks.answers --draws 5
    python -m benchmarks.answers --draws 10 --embeddings clinc150_minilm.npz
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from api_schemas.operating_point import Aggregate, Target
from common.progress import silent
from decision.answer_probability import AnswerModel
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import read_embeddings
from evaluation.calibration.answers.draw_answers import draw_answers
from evaluation.calibration.answers.fit_answer_probability import (
    compute_outcomes,
    judge_answers,
    measure_answers,
)
from evaluation.calibration.calibrate import Calibrator
from evaluation.calibration.sets.sources import CalibrationSources
from evaluation.pairs.pairs import arrange

FITTED, UNSEEN, EACH, DIMENSION = 150, 520, 8, 48
GALLERIES, SHARES = (50, 150, 500), (0.1, 0.5, 0.9)
RULES: tuple[Aggregate, ...] = ("nearest", "mean_of_class", "evidence")
TARGET = 0.03
ECE, RIGHT = 0.03, (0.88, 0.995)
LOOKS = 20  # kinds of classes that look alike


@dataclass(frozen=True)
class Case:
    """One gallery at one share of unknown queries: ECE, weight of sure answers, and of the right ones."""

    classes: int
    share: float
    ece: float
    sure: float
    right: float


def make_classes(n: int, seed: int) -> EmbeddingSet:
    """Classes of different spread around random centres, some kinds of which look alike."""
    rng, world = np.random.default_rng(seed), np.random.default_rng(123)
    looks = 0.65 * world.normal(size=(LOOKS, DIMENSION))
    centres = rng.normal(size=(n, DIMENSION)) + looks[rng.integers(0, LOOKS, n)]
    spread = 0.75 * np.exp(0.35 * rng.normal(size=n))
    vectors = centres[:, None] + spread[:, None, None] * rng.normal(size=(n, EACH, DIMENSION))
    return EmbeddingSet.from_arrays(vectors.reshape(-1, DIMENSION), np.repeat(np.arange(n), EACH))


def split_file(items: EmbeddingSet, seed: int) -> tuple[EmbeddingSet, EmbeddingSet]:
    """Two thirds of the classes to fit on, the others to judge on."""
    classes = np.random.default_rng(seed).permutation(items.classes)
    cut = 2 * len(classes) // 3
    return items.select_classes(classes[:cut]), items.select_classes(classes[cut:])


def judge(fit: EmbeddingSet, unseen: EmbeddingSet, rule: Aggregate) -> list[Case]:
    """The cases of one draw."""
    calibrator = Calibrator.prepare(CalibrationSources(fit), "cosine", rule, "benchmark")
    point = calibrator.calibrate(Target(kind="fpir", value=TARGET, aggregate=rule), "estimated").point
    assert point.answer is not None
    model = AnswerModel.read(point.answer)
    trials = calibrator.rule.score_trials(arrange(unseen, scorer=calibrator.chosen.scorer), silent)
    cases = []
    for classes in dict.fromkeys(min(size, trials.n_classes - 1) for size in GALLERIES):
        answers = draw_answers(trials, [classes], 1)
        accepted, right = judge_answers(answers, point.threshold)
        for share in SHARES:
            p = compute_outcomes(model, answers, share).get_right(accepted)
            weights = np.where((p >= 0.9) & (p < 0.99), answers.weigh(share), 0.0)
            ece = measure_answers(model, answers, point.threshold, share).ece
            cases.append(Case(classes, share, ece, float(weights.sum()), float(weights @ right)))
    return cases


def main() -> int:
    """Prints the table; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--embeddings", type=Path, help="real classes instead of simulated ones")
    parser.add_argument("--each", type=int, default=12, help="items of a class of the file")
    options = parser.parse_args()
    given = None if options.embeddings is None else read_embeddings(options.embeddings)
    if given is not None:
        rank = np.zeros(len(given), dtype=np.int64)
        for code in range(len(given.classes)):
            rows = np.flatnonzero(given.codes == code)
            rank[rows] = np.random.default_rng(code).permutation(len(rows))
        given = given.subset(rank < options.each)
    shares = ", ".join(f"{100 * share:g}" for share in SHARES)
    print(f"| rule | gallery | ECE at {shares} % unknown (largest draw) | right of those shown 0.9 to 0.99 |")
    print("| --- | --- | --- | --- |")
    missed = False
    for rule in RULES:
        cases: list[Case] = []
        for draw in range(options.draws):
            fit, unseen = (
                (make_classes(FITTED, 2 * draw), make_classes(UNSEEN, 2 * draw + 1))
                if given is None
                else split_file(given, draw)
            )
            cases += judge(fit, unseen, rule)
        for classes in dict.fromkeys(case.classes for case in cases):
            row = []
            for share in SHARES:
                errors = [case.ece for case in cases if (case.classes, case.share) == (classes, share)]
                missed |= float(np.mean(errors)) > ECE
                row.append(f"{np.mean(errors):.3f} ({max(errors):.3f})")
            of_size = [case for case in cases if case.classes == classes]
            sure = sum(case.sure for case in of_size)
            right = sum(case.right for case in of_size) / max(sure, 1e-12)
            missed |= sure > 0 and not RIGHT[0] <= right <= RIGHT[1]
            print(f"| {rule} | {classes} | {', '.join(row)} | {100 * right:.1f} % |", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
