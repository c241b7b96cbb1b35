"""What will not fit is refused before it is begun, with what would."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from api_schemas.build_config import IndexConfig
from common.errors import InputError
from common.progress import silent
from index.engines.memory_estimate import measure_free_memory, select_kind
from index.engines.registry import ENGINES
from tests.index.conftest import KINDS, MakeBundle, make_items, make_small_config, make_unit_rows

GIB = 2**30


@pytest.mark.parametrize(
    ("nodes", "free", "kind", "says"),
    [
        (20_000, GIB, "flat", "20,000 distinct vectors"),
        (20_001, GIB, "hnsw", "more than the 20,000"),
        (1_000_000, 2 * GIB, "hnsw", "more than"),
        (1_000_000, GIB // 2, "hnsw_sq8", "hnsw would need 748 MiB"),
        (1_000_000, GIB // 4, "ivf_pq", "hnsw_sq8 would need 381 MiB"),
    ],
)
def test_auto_chooses_by_size_and_memory_and_says_why(nodes: int, free: int, kind: str, says: str) -> None:
    chosen, reason = select_kind(IndexConfig(), nodes, 128, free)
    assert chosen == kind
    assert reason is not None
    assert says in reason


def test_what_does_not_fit_is_refused_with_what_does() -> None:
    with pytest.raises(InputError, match=r"index\.kind=hnsw_sq8 \(3\.7 GiB\) fits"):
        select_kind(IndexConfig(kind="hnsw"), 10_000_000, 128, 6 * GIB)
    with pytest.raises(InputError, match="no kind fits here"):
        select_kind(IndexConfig(kind="auto"), 100_000_000, 512, 6 * GIB)
    with pytest.raises(InputError, match=r"index\.kind=ivf_pq \(.* GiB\) fits"):
        select_kind(IndexConfig(kind="hnsw_sq8"), 100_000_000, 128, 10 * GIB)
    assert select_kind(IndexConfig(kind="hnsw_sq8"), 10_000_000, 128, 6 * GIB) == ("hnsw_sq8", None)


def test_a_build_that_does_not_fit_leaves_nothing(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.search.generation.measure_free_memory", lambda: 1_000)
    with pytest.raises(InputError, match="larger machine"):
        make_bundle(make_items(make_unit_rows(np.random.default_rng(0), 100)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_estimate_is_near_what_the_index_takes(kind: str) -> None:
    vectors = make_unit_rows(np.random.default_rng(0), 5_000, 64)
    engine = ENGINES[kind].build(vectors, np.arange(5_000), make_small_config(kind), silent)  # type: ignore[index]
    takes = len(faiss.serialize_index(engine._index))  # type: ignore[attr-defined]
    assert ENGINES[kind].estimate_held_bytes(5_000, 64, make_small_config(kind)) == pytest.approx(
        takes, rel=0.1
    )  # type: ignore[index]


def test_there_is_memory_here() -> None:
    assert 0 < measure_free_memory() < 2**50
