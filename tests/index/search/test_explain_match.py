"""What a score is made of adds up to the score, whatever rule and score decide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api_schemas.operating_point import OperatingPoint, Score
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_cohort
from index.bundle import write_bundle
from index.gallery.gallery import Gallery
from tests.index import evidence
from tests.index.conftest import make_items, make_small_config, make_unit_rows, point

RNG = np.random.default_rng(5)
COHORT = make_items(make_unit_rows(RNG, 60), [f"k{row % 12}" for row in range(60)])
CENTRES = RNG.normal(size=(8, 16))
ROWS = CENTRES[np.arange(40) % 8] + 0.5 * RNG.normal(size=(40, 16))
GALLERY = make_items(ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True), [f"c{row % 8}" for row in range(40)])
QUERIES = make_unit_rows(RNG, 6)
DENSITY = Score(
    kind="density",
    form="logistic",
    parameters={"neighbours": [3, 7], "weights": [2.0, 1.0], "slope": 9.0, "intercept": -2.5, "pole": 1.01},
    cohort_sha256=hash_cohort(COHORT.vectors),
)


def build(decides: OperatingPoint, folder: Path, cohort: EmbeddingSet = COHORT, **others: Any) -> Gallery:
    write_bundle(
        folder / "bundle",
        name="test",
        items=GALLERY,
        model_hash=decides.model_hash,
        index_config=make_small_config("flat"),
        operating_points=[decides],
        active={"match": decides.id, "verify": None},
        cohort=cohort,
        **others,
    )
    return Gallery.open(folder / "bundle")


def make_point(aggregate: str, score: Score) -> OperatingPoint:
    plain = point("fpir", 0.3)
    return plain.with_changes(score=score, target=plain.target.model_copy(update={"aggregate": aggregate}))


def check(
    gallery: Gallery, queries: Any = QUERIES, sizes: Sequence[int] | None = None, **options: Any
) -> None:
    plain = gallery.match(queries, sizes=sizes, **options)
    explained = gallery.match(queries, sizes=sizes, explain=True, **options)
    assert [decision._replace(explanation=None) for decision in explained] == plain
    for decision in explained:
        why = decision.explanation
        assert why is not None
        assert why.label == decision.label
        assert decision.score is not None
        total = why.intercept + sum(part.contribution for part in why.parts)
        assert total == pytest.approx(decision.score, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("aggregate", ["nearest", "mean_of_class"])
@pytest.mark.parametrize("score", [Score(), DENSITY], ids=["cosine", "density"])
def test_rules_of_items(aggregate: str, score: Score, tmp_path: Path) -> None:
    with build(make_point(aggregate, score), tmp_path) as gallery:
        check(gallery)
        check(gallery, sizes=[1, 3, 2])
        check(gallery, filter={"label": {"$ne": "c0"}})
        vectors = gallery.view.sample(6)
        check(gallery, vectors)
        check(gallery, vectors, sizes=[1, 3, 2])
        check(gallery, vectors, exclude_ids=[f"i{row}" for row in range(6)])


@pytest.mark.parametrize("vectors", [1, 3])
@pytest.mark.parametrize("form", ["similarity", "similarity-density", "plda", "all"])
def test_class_evidence(form: str, vectors: int, tmp_path: Path) -> None:
    decides = evidence.make_evidence_point(form, vectors=vectors)
    arrays = evidence.make_arrays(form)
    needed = {"class_arrays": [arrays] if arrays.compute_hash() == decides.score.class_model_sha256 else []}
    with build(decides, tmp_path, cohort=evidence.COHORT, **needed) as gallery:
        check(gallery)
        check(gallery, sizes=[1, 3, 2])
        check(gallery, filter={"label": {"$ne": "c0"}})
        check(gallery, gallery.view.sample(6), exclude_ids=[f"i{row}" for row in range(6)])
        check(gallery, gallery.view.sample(6))
        named = gallery.match(gallery.view.sample(1), explain=True)[0].explanation.parts
        assert "copy" in {part.name for part in named}
        (decision,) = gallery.match(QUERIES[:1], explain=True)
        assert decision.explanation is not None
        assert [part.name for part in decision.explanation.parts] == list(evidence.FORMS[form])


def test_the_figures_are_those_of_the_items(tmp_path: Path) -> None:
    with build(make_point("nearest", Score()), tmp_path) as gallery:
        decision = gallery.match(QUERIES[:1], explain=True)[0]
    why = decision.explanation
    assert why is not None
    own = GALLERY.vectors[GALLERY.labels == decision.label].astype(np.float64)
    similarities = own @ QUERIES[0].astype(np.float64)
    among = own @ own.T
    assert why.items == len(own) == 5
    assert why.best == pytest.approx(similarities.max(), abs=1e-6)
    assert why.mean == pytest.approx(similarities.mean(), abs=1e-6)
    assert why.tightness == pytest.approx(among[np.triu_indices(5, 1)].mean(), abs=1e-6)
    assert [part.name for part in why.parts] == ["best"]


def test_no_candidate_has_no_explanation(tmp_path: Path) -> None:
    with build(make_point("nearest", Score()), tmp_path) as gallery:
        (decision,) = gallery.match(QUERIES[:1], filter={"label": "nobody"}, explain=True)
    assert (decision.label, decision.explanation) == (None, None)
