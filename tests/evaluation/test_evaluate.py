"""Every figure of a report against plain loops, with ties, duplicates and lone items."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from api_schemas.operating_point import Score
from api_schemas.report import Report
from common.errors import InputError
from decision.scorer_registry import open_scorer
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_cohort
from embeddings.similarity import compute_pair_similarities
from evaluation.pairs import pairs as pairs_module
from tests.evaluation.samples import evaluate, make_nine_points, make_sessions, make_ties


def compute_distances(similarities: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.sqrt(np.maximum(0.0, 2 - 2 * similarities.astype(np.float64)))


@dataclass
class Naive:
    """All pairs as lists; queries is what is searched with, references what is searched."""

    queries: EmbeddingSet
    references: EmbeddingSet
    symmetric: bool
    exclude: str | None

    def __post_init__(self) -> None:
        self.similarity = np.stack(
            [compute_pair_similarities(row[None], self.references.vectors) for row in self.queries.vectors]
        )
        self.allowed = np.ones(self.similarity.shape, dtype=bool)
        for i in range(len(self.queries)):
            for j in range(len(self.references)):
                if i == j if self.symmetric else self.similarity[i, j] > 1 - 1e-6:
                    self.allowed[i, j] = False  # an item and itself, also where it is in the gallery as well
                if self.exclude is not None:
                    a = self.queries.metadata[self.exclude][i]
                    b = self.references.metadata[self.exclude][j]
                    self.allowed[i, j] &= a != b
        once = np.triu(self.allowed) if self.symmetric else self.allowed
        same = self.queries.labels[:, None] == self.references.labels[None, :]
        self.same = same
        self.genuine = np.sort(self.similarity[once & same])
        self.impostor = np.sort(self.similarity[once & ~same])
        self.once = once
        self.classes = sorted(set(self.queries.labels) | set(self.references.labels))

    def class_scores(self, label: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        own_q, own_r = self.queries.labels == label, self.references.labels == label
        both = own_q[:, None] & own_r[None, :]
        either = own_q[:, None] ^ own_r[None, :]
        return self.similarity[self.once & both], self.similarity[self.once & either]

    def utility(self, label: str, thresholds: list[float], distance: bool) -> list[float] | None:
        genuine, impostor = self.class_scores(label)
        if not len(genuine) or not len(impostor):
            return None
        values = []
        for threshold in thresholds:
            if distance:
                psi = np.mean(compute_distances(genuine) <= threshold)
                phi = np.mean(compute_distances(impostor) > threshold)
            else:
                psi = np.mean(genuine >= threshold)
                phi = np.mean(impostor < threshold)
            values.append(2 * phi * psi / (phi + psi) if phi + psi > 0 else 0.0)
        return [float(v) for v in values]

    def distances(self) -> list[float]:
        impostor = compute_distances(self.impostor)
        low, high = np.quantile(impostor, 0.01), np.quantile(impostor, 0.10)
        return [float(d) for d in np.linspace(low, high, 101)]

    def log_thresholds(self) -> list[float]:
        descending = self.impostor[::-1]
        n = len(descending)
        fars = [10 ** (-2 + k / 100) for k in range(101)]
        return [float(descending[min(n, max(1, math.ceil(far * n - 1e-9))) - 1]) for far in fars]

    def utilities(self, log: bool) -> NDArray[np.float64]:
        thresholds = self.log_thresholds() if log else self.distances()
        rows = [self.utility(c, thresholds, not log) for c in self.classes]
        return np.array([row for row in rows if row is not None])

    def ranking(self, i: int) -> list[int]:
        others = [j for j in range(len(self.references)) if self.allowed[i, j]]
        return sorted(others, key=lambda j: (-self.similarity[i, j], self.references.labels[j]))


CASES = {
    "ties": (make_ties(0), None, None),
    "ties-excluded": (make_ties(1), None, "session"),
    "ties-gallery": (make_ties(2), make_ties(3, 50, 6), None),
    "smooth": (make_sessions(0, 9, 7), None, None),
    "smooth-gallery-excluded": (make_sessions(1, 9, 7), make_sessions(2, 9, 7), "session"),
    "two-classes": (make_sessions(3, 2, 9), None, None),
    "many-rows": (make_sessions(4, 30, 10), None, None),
}
Measured = tuple[Report, Naive]


@pytest.fixture(params=list(CASES), scope="module")
def measured(request: pytest.FixtureRequest) -> Measured:
    items, gallery, exclude = CASES[request.param]
    report = evaluate(items, gallery=gallery, exclude_same=exclude)
    return report, Naive(items, items if gallery is None else gallery, gallery is None, exclude)


def test_counts(measured: Measured) -> None:
    report, naive = measured
    assert report.counts.genuine_pairs == len(naive.genuine)
    assert report.counts.impostor_pairs == len(naive.impostor)
    assert report.counts.items == len(naive.queries)
    assert report.counts.classes_scored == len(naive.utilities(log=False))


def test_opis_and_its_forms(measured: Measured) -> None:
    report, naive = measured
    consistency = report.consistency
    linear, log = naive.utilities(log=False), naive.utilities(log=True)
    assert consistency.opis == pytest.approx(np.mean(np.var(linear, axis=0)), abs=1e-9)
    assert consistency.opis_logfar == pytest.approx(np.mean(np.var(log, axis=0)), abs=1e-9)
    np.testing.assert_allclose(consistency.mean_utility, linear.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(consistency.band.p05, np.quantile(linear, 0.05, axis=0), atol=1e-12)
    m = max(1, round(0.1 * len(linear)))
    ordered = np.sort(linear, axis=0)
    gap = ordered[-m:].mean(axis=0) - ordered[:m].mean(axis=0)
    assert consistency.epsilon_opis["0.1"] == pytest.approx(np.mean(gap**2), abs=1e-9)
    assert consistency.calibration_range.distance == pytest.approx(
        (naive.distances()[0], naive.distances()[-1])
    )
    contributions = [row.contribution for row in consistency.per_class if row.contribution is not None]
    assert np.mean(contributions) == pytest.approx(consistency.opis)


def test_classes(measured: Measured) -> None:
    report, naive = measured
    assert [row.label for row in report.consistency.per_class] == naive.classes
    distances = np.array(naive.distances())
    for row in report.consistency.per_class:
        genuine, impostor = (compute_distances(scores)[:, None] for scores in naive.class_scores(row.label))
        assert row.far == (pytest.approx(np.mean(impostor <= distances)) if len(impostor) else None)
        assert row.frr == (pytest.approx(np.mean(genuine > distances)) if len(genuine) else None)


def test_verification(measured: Measured) -> None:
    report, naive = measured
    genuine, impostor, verification = naive.genuine, naive.impostor, report.verification
    greater = (genuine[:, None] > impostor[None, :]).mean()
    equal = (genuine[:, None] == impostor[None, :]).mean()
    assert verification.auc == pytest.approx(greater + equal / 2, abs=1e-12)
    thresholds = [*np.unique(np.concatenate([genuine, impostor])), np.inf]
    fars = np.array([np.mean(impostor >= t) for t in thresholds])
    frrs = np.array([np.mean(genuine < t) for t in thresholds])
    k = int(np.flatnonzero(fars >= frrs)[-1])
    t = (fars[k] - frrs[k]) / ((fars[k] - frrs[k]) + (frrs[k + 1] - fars[k + 1]))
    assert verification.eer == pytest.approx(fars[k] + t * (fars[k + 1] - fars[k]), abs=1e-12)
    assert verification.eer_threshold in (thresholds[k], thresholds[k + 1])
    for key, tar in verification.tar_at_far.items():
        best = max(1 - frr for far, frr in zip(fars, frrs, strict=True) if far <= float(key))
        assert tar == pytest.approx(best, abs=1e-12)
    assert verification.curve.threshold == sorted(verification.curve.threshold, reverse=True)
    for threshold, far, frr in zip(
        verification.curve.threshold, verification.curve.far, verification.curve.frr, strict=True
    ):
        assert far == pytest.approx(np.mean(impostor >= np.float32(threshold)), abs=1e-12)
        assert frr == pytest.approx(np.mean(genuine < np.float32(threshold)), abs=1e-12)


def test_retrieval(measured: Measured) -> None:
    report, naive = measured
    recalls: dict[int, list[float]] = {k: [] for k in (1, 2, 4, 8, 10)}
    precisions, maps, lonely = [], [], 0
    for i in range(len(naive.queries)):
        right = [bool(naive.same[i, j]) for j in naive.ranking(i)]
        R = sum(right)
        if R == 0:
            lonely += 1
            continue
        for k, values in recalls.items():
            values.append(any(right[:k]))
        precisions.append(sum(right[:R]) / R)
        maps.append(sum(sum(right[:r]) / r for r in range(1, R + 1) if right[r - 1]) / R)
    assert report.counts.queries_without_partner == lonely
    for k, values in recalls.items():
        assert getattr(report.retrieval, f"recall_at_{k}") == pytest.approx(np.mean(values))
    assert report.retrieval.r_precision == pytest.approx(np.mean(precisions))
    assert report.retrieval.map_at_r == pytest.approx(np.mean(maps))


@pytest.mark.parametrize(
    ("right", "recall", "r_precision", "map_at_r"),
    [([1], 1, 0.1, 0.1), ([1, 10], 1, 0.2, 0.12), ([1, 2], 1, 0.2, 0.2), (range(1, 11), 1, 1, 1)],
)
def test_ten_partners_of_the_worked_example(
    right: list[int], recall: float, r_precision: float, map_at_r: float
) -> None:
    """One query, ten references of its class at the given ranks, the rest after all others."""
    angles = np.deg2rad(np.arange(1, 31))
    others = set(range(1, 11)) - set(right)
    labels = ["own" if k in right or (k > 10 and k <= 10 + len(others)) else "other" for k in range(1, 31)]
    gallery = EmbeddingSet.from_arrays(np.stack([np.cos(angles), np.sin(angles)], axis=1), labels)
    retrieval = evaluate(EmbeddingSet.from_arrays([[1.0, 0.0]], ["own"]), gallery=gallery).retrieval
    assert labels.count("own") == 10
    assert retrieval.recall_at_1 == recall
    assert retrieval.r_precision == pytest.approx(r_precision)
    assert retrieval.map_at_r == pytest.approx(map_at_r)


def identify_naively(
    naive: Naive, best_of_unknown: list[float] | None
) -> tuple[dict[str, float], float, int]:
    known, right, left_out = [], [], []
    for i in range(len(naive.queries)):
        order = naive.ranking(i)
        others = [j for j in order if not naive.same[i, j]]
        if any(naive.same[i, j] for j in order):
            known.append(naive.similarity[i, order[0]])
            right.append(bool(naive.same[i, order[0]]))
            if others:
                left_out.append((True, naive.similarity[i, others[0]]))
        elif others:
            left_out.append((False, naive.similarity[i, others[0]]))
    if best_of_unknown is None:
        absent = [s for was_known, s in left_out if not was_known]
        best_of_unknown = absent if absent and not naive.symmetric else [s for _, s in left_out]
    unknown = np.array(best_of_unknown)
    thresholds = [*np.unique(np.concatenate([known, unknown])), np.inf]
    fnir = {}
    for key in ("0.1", "0.01"):
        allowed = [t for t in thresholds if np.mean(unknown >= t) <= float(key)]
        fnir[key] = min(
            np.mean([not (r and s >= t) for s, r in zip(known, right, strict=True)]) for t in allowed
        )
    above = np.mean(np.array(known)[:, None] > unknown[None, :])
    equal = np.mean(np.array(known)[:, None] == unknown[None, :])
    return fnir, float(above + equal / 2), len(unknown)


def test_identification(measured: Measured) -> None:
    report, naive = measured
    fnir, auroc, n = identify_naively(naive, None)
    identification = report.identification
    assert identification.unknown_queries == n
    assert identification.fnir_at_fpir == pytest.approx(fnir)
    assert identification.auroc == pytest.approx(auroc)
    assert (identification.gallery.items, identification.gallery.classes) == (
        len(naive.references),
        len(naive.references.classes),
    )


def test_identification_with_given_unknown_queries() -> None:
    items = make_sessions(5, 9, 7)
    draw = np.random.default_rng(1)
    unknown = EmbeddingSet.from_arrays(draw.normal(size=(40, 8)), ["unknown"] * 40)
    report = evaluate(items, unknown=unknown)
    best_of_unknown = [
        float(compute_pair_similarities(row[None], items.vectors).max()) for row in unknown.vectors
    ]
    fnir, auroc, n = identify_naively(Naive(items, items, True, None), best_of_unknown)
    assert report.identification.unknown_queries == n == 40
    assert report.identification.fnir_at_fpir == pytest.approx(fnir)
    assert report.identification.auroc == pytest.approx(auroc)


def test_geometry(measured: Measured) -> None:
    report, naive = measured
    genuine = naive.genuine.astype(float)
    everything = np.concatenate([genuine, naive.impostor.astype(float)])
    assert report.geometry.alignment == pytest.approx(np.mean(2 - 2 * genuine), abs=1e-9)
    assert report.geometry.tolerance == pytest.approx(genuine.mean(), abs=1e-9)
    assert report.geometry.uniformity == pytest.approx(
        np.log(np.mean(np.exp(-2 * (2 - 2 * everything)))), abs=1e-9
    )


def test_nine_points_of_the_worked_example() -> None:
    consistency = evaluate(make_nine_points()).consistency
    assert consistency.opis == pytest.approx(0.115063, abs=1e-6)
    assert consistency.calibration_range.distance == pytest.approx((0.369548, 0.617479), abs=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_blocks_types_and_lengths_do_not_change_a_figure(
    dtype: type[np.floating], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(7)
    vectors = draw.normal(size=(150, 5)).astype(np.float16)
    labels = draw.integers(0, 12, 150)
    unblocked = evaluate(EmbeddingSet.from_arrays(vectors, labels))
    monkeypatch.setattr(pairs_module, "BLOCK_ROWS", 32)
    monkeypatch.setattr(pairs_module, "BLOCK_COLUMNS", 48)
    longer = vectors.astype(dtype) * dtype(4)
    blocked = evaluate(EmbeddingSet.from_arrays(longer, labels.astype(str)))
    for section in ("counts", "retrieval", "verification", "identification", "consistency"):
        assert getattr(blocked, section) == getattr(unblocked, section)
    assert blocked.geometry.uniformity == pytest.approx(unblocked.geometry.uniformity)


def test_float32_blocks_of_large_sets_agree_with_exact_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    items = make_sessions(6, 40, 8)
    exact = evaluate(items)
    monkeypatch.setattr(pairs_module, "EXACT_PRODUCT", 0)
    fast = evaluate(items)
    assert fast.consistency.opis == pytest.approx(exact.consistency.opis, abs=1e-6)
    assert fast.verification.auc == pytest.approx(exact.verification.auc, abs=1e-6)
    assert fast.verification.eer == pytest.approx(exact.verification.eer, abs=1e-6)
    assert fast.retrieval.map_at_r == pytest.approx(exact.retrieval.map_at_r, abs=1e-6)


def test_what_cannot_be_measured_is_refused_by_name() -> None:
    rows = np.eye(4)
    with pytest.raises(InputError, match=r"one class \('7'\)"):
        evaluate(EmbeddingSet.from_arrays(rows, [7] * 4))
    with pytest.raises(InputError, match="every class has one item"):
        evaluate(EmbeddingSet.from_arrays(rows, [1, 2, 3, 4]))
    one_session = EmbeddingSet.from_arrays(rows, [1, 1, 2, 2], metadata={"session": [5] * 4})
    with pytest.raises(InputError, match="no impostor pair once pairs that share 'session'"):
        evaluate(one_session, exclude_same="session")
    known = EmbeddingSet.from_arrays(rows, [1, 1, 2, 2])
    with pytest.raises(InputError, match="unknown queries hold the class '2'"):
        evaluate(known, unknown=known.subset([3]))


def test_a_figure_that_cannot_be_given_is_null_with_a_reason() -> None:
    items = EmbeddingSet.from_arrays([[1, 0], [1, 0.1], [0, 1]], ["a", "a", "b"])
    report = evaluate(items)
    assert report.consistency.opis is None
    assert report.consistency.opis_debiased is None
    assert report.consistency.opis_ci is None
    assert any("needs two" in reason for reason in report.reasons)
    assert Report.model_validate_json(report.to_json()) == report


def test_a_density_score_is_what_thresholds_see_and_similarity_what_ranks() -> None:
    items, draw = make_sessions(8, 9, 7), np.random.default_rng(0)
    cohort = EmbeddingSet.from_arrays(draw.normal(size=(50, 8)), ["cohort"] * 50).vectors
    parameters = {"neighbours": [5], "weights": [1.0], "slope": 1.0, "intercept": 0.0}
    score = Score(kind="density", form="csls", parameters=parameters, cohort_sha256=hash_cohort(cohort))
    scorer = open_scorer(score, cohort)
    plain = evaluate(items)
    report = evaluate(items, scorer=scorer)
    assert report.score == score
    assert report.retrieval == plain.retrieval
    assert report.geometry == plain.geometry
    densities = scorer.compute_densities(items.vectors)
    i, j = np.triu_indices(len(items), 1)
    similarities = compute_pair_similarities(items.vectors[i], items.vectors[j])
    scores, same = scorer(similarities, densities[i], densities[j]), items.labels[i] == items.labels[j]
    greater = (scores[same][:, None] > scores[~same][None, :]).mean()
    equal = (scores[same][:, None] == scores[~same][None, :]).mean()
    assert report.verification.auc == pytest.approx(greater + equal / 2, abs=1e-12)
    low, high = np.quantile(scores[~same].astype(float), [0.9, 0.99])
    reach = report.consistency.calibration_range
    assert reach.distance is None
    assert reach.score == pytest.approx((low, high), abs=1e-6)
    assert report.consistency.thresholds == sorted(report.consistency.thresholds, reverse=True)
    utilities = []
    for label in items.classes:
        either = (items.labels[i] == label) ^ (items.labels[j] == label)
        own = same & (items.labels[i] == label)
        psi = np.array([np.mean(scores[own] >= t) for t in report.consistency.thresholds])
        phi = np.array([np.mean(scores[either] < t) for t in report.consistency.thresholds])
        utilities.append(2 * phi * psi / np.maximum(phi + psi, 1e-300))
    assert report.consistency.opis == pytest.approx(np.mean(np.var(utilities, axis=0)), abs=1e-9)
