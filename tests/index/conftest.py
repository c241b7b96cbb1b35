"""Small galleries, operating points and bundles for the index's tests."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from api_schemas.build_config import IndexConfig
from api_schemas.operating_point import Evidence, GallerySize, OperatingPoint, Probability, Score, Target
from decision.targets import select_active
from embeddings.embedding_set import EmbeddingSet
from index.bundle import write_bundle
from index.engines.registry import ENGINES
from index.gallery.live_gallery import RebuildLimits

MODEL = "a" * 64
KINDS = tuple(kind for kind, engine in ENGINES.items() if not engine.is_remote)  # others: tests/engines
NEVER = RebuildLimits(buffer_rows=10**9, deleted_fraction=1.0)
MakeBundle = Callable[..., Path]


def make_unit_rows(rng: np.random.Generator, n: int, d: int = 16) -> NDArray[np.float32]:
    """Random unit rows."""
    rows = rng.normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_items(vectors: ArrayLike, labels: ArrayLike | None = None, **metadata: ArrayLike) -> EmbeddingSet:
    """A labelled set whose ids are i0, i1, ..."""
    n = len(np.asarray(vectors))
    chosen = [f"c{row % 10}" for row in range(n)] if labels is None else labels
    return EmbeddingSet.from_arrays(vectors, chosen, [f"i{row}" for row in range(n)], metadata)


def make_small_config(kind: str, **changes: int) -> IndexConfig:
    """A quick engine."""
    return IndexConfig.model_validate(
        {"kind": kind, "m": 16, "ef_construction": 80, "ef_search": 64, **changes}
    )


def point(target: str, threshold: float, model_hash: str = MODEL, items: int = 1000) -> OperatingPoint:
    """An operating point with made-up evidence."""
    evidence = Evidence(
        n_items=items,
        n_classes=50,
        n_genuine_pairs=100,
        n_impostor_pairs=1000,
        far=0.01,
        far_upper=0.012,
        frr=0.1,
        frr_upper=0.12,
        fpir=None,
        fpir_upper=None,
        fnir=None,
        method="made up for a test",
        classes_disjoint=True,
    )
    return OperatingPoint.freeze(
        name=f"{target} 1 %",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        model_hash=model_hash,
        data_hash="b" * 64,
        score=Score(),
        threshold=threshold,
        target=Target(
            kind=target,  # type: ignore[arg-type]
            value=0.01,
            gallery=GallerySize(items=items, classes=50) if target == "fpir" else None,
        ),
        fit=evidence,
        proof=None,
        per_class=[],
        probability=Probability(kind="platt", parameters={"slope": 10.0, "intercept": -5.0}, prior=0.5),
        consistency=None,
    )


def read_vectors(path: Path, dtype: type[np.generic]) -> NDArray[Any]:
    """Rows [n, d] of an fvecs (float32) or ivecs (int32) file: each is its int32 length, then its numbers."""
    raw = np.fromfile(path, dtype="<i4")
    return raw.reshape(-1, raw[0] + 1)[:, 1:].copy().view(dtype)


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """Writes bundles into the test's folder."""

    def make(
        items: EmbeddingSet,
        config: IndexConfig | None = None,
        match: float | None = None,
        verify: float | None = None,
        name: str = "bundle",
        **others: Any,
    ) -> Path:
        points = [] if match is None else [point("fpir", match, items=len(items))]
        points += [] if verify is None else [point("far", verify)]
        active = select_active(points)
        arguments: dict[str, Any] = {
            "name": "test",
            "items": items,
            "model_hash": MODEL,
            "index_config": config or make_small_config("flat"),
            "operating_points": points,
            "active": active,
            "reasons": ["only 3 classes."] if match is None else [],
            "config_yaml": "index: {}\n",
            **others,
        }
        write_bundle(tmp_path / name, **arguments)
        return tmp_path / name

    return make
