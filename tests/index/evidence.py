"""Operating points that score a query with a whole class, for the index's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from api_schemas.operating_point import OperatingPoint, Score
from decision.class_arrays import ClassArrays, Plda
from decision.class_evidence import FORMS, ClassModels, EvidenceScorer, from_fixed, to_fixed
from decision.scorer_registry import open_scorer
from embeddings.hashes import hash_cohort
from embeddings.similarity import compute_pair_similarities
from index.items.stored_item import StoredItem
from index.search.gallery_view import GalleryView
from tests.index.conftest import make_items, make_unit_rows, point

RNG = np.random.default_rng(5)
DIM, AXES = 16, 6
# the cohort shares the classes c0, c1 and c2 with the galleries of the tests
COHORT = make_items(
    make_unit_rows(RNG, 60, DIM), [f"c{row % 3}" if row < 30 else f"o{row}" for row in range(60)]
)
PLDA = Plda(0.1 * RNG.normal(size=DIM), RNG.normal(size=(DIM, AXES)), RNG.uniform(0.2, 3, AXES))
PARAMETERS = {
    "best": 2.0,
    "mean": 3.0,
    "tightness": -1.5,
    "query_density": -0.7,
    "class_density": -0.4,
    "plda": 0.25,
    "intercept": -0.5,
    "usual_tightness": 0.6,
    "neighbours": 5.0,
    "copy": 12.0,
}


def make_arrays(form: str) -> ClassArrays:
    features = FORMS[form]
    return ClassArrays(
        PLDA if "plda" in features else None, COHORT.labels if "query_density" in features else None
    )


def make_score(form: str) -> Score:
    features, arrays = FORMS[form], make_arrays(form)
    return Score(
        kind="evidence",
        form=form,
        parameters=PARAMETERS,
        cohort_sha256=hash_cohort(COHORT.vectors) if "query_density" in features else None,
        class_model_sha256=arrays.compute_hash() if {"plda", "query_density"} & {*features} else None,
    )


def make_scorer(form: str) -> EvidenceScorer:
    scorer = open_scorer(make_score(form), COHORT.vectors, make_arrays(form))
    assert isinstance(scorer, EvidenceScorer)
    return scorer


def make_evidence_point(form: str, threshold: float = 0.3, vectors: int = 1) -> OperatingPoint:
    made = point("fpir", threshold, items=300)
    target = made.target.model_copy(update={"aggregate": "evidence", "vectors": vectors})
    return made.with_changes(target=target, score=make_score(form))


def score_each(
    items: Iterable[StoredItem],
    query: np.ndarray,
    scorer: EvidenceScorer,
    counts: Callable[[StoredItem], bool] = lambda _: True,
) -> dict[str, tuple[float, str, float]]:
    """Of every class its score with one query, computed afresh, its nearest item and its similarity."""
    classes: dict[str, list[StoredItem]] = {}
    for item in items:
        if counts(item):
            classes.setdefault(item.label, []).append(item)
    scores = {}
    for label, members in classes.items():
        rows = np.stack([item.vector for item in members])
        similarities = compute_pair_similarities(query[None], rows)
        nearest = min(range(len(rows)), key=lambda row: (-similarities[row], members[row].id))
        density = scorer.compute_densities(rows, np.array([label] * len(rows)))
        models = ClassModels(
            from_fixed(to_fixed(rows).sum(axis=0))[None],
            np.array([len(rows)]),
            np.array([from_fixed(to_fixed(density).sum()) / len(rows)]),
        )
        only = np.zeros(1, dtype=np.int64)
        score = scorer.score_trials(
            query[None],
            only,
            similarities[[nearest]],
            scorer.prepare(models),
            only,
            scorer.compute_trial_densities(query[None], only, [label]),
        )
        scores[label] = (float(score[0]), members[nearest].id, float(similarities[nearest]))
    return scores


def check_class_sums(view: GalleryView, items: Iterable[StoredItem], scorer: EvidenceScorer) -> None:
    """The sums that a view holds are those of its items, computed afresh, to the last bit."""
    classes: dict[str, list[StoredItem]] = {}
    for item in items:
        classes.setdefault(item.label, []).append(item)
    codes, labels = view.class_codes, sorted(classes)
    numbers = np.array([codes.get_code(label) for label in labels], dtype=np.int64)
    assert (numbers >= 0).all()
    assert sum(sums.counts[0] > 0 for label, sums in view.changed.items() if label not in classes) == 0
    if not labels:
        return
    held = codes.sum_classes(numbers)
    for number, label in enumerate(labels):
        rows = np.stack([item.vector for item in classes[label]])
        np.testing.assert_array_equal(held.vectors[number], to_fixed(rows).sum(axis=0))
        assert held.counts[number] == len(rows)
        if scorer.density_key is not None:
            densities = scorer.compute_densities(rows, np.array([label] * len(rows)))
            assert held.densities[scorer.density_key][number] == to_fixed(densities).sum()
