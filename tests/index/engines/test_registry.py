"""The registered engines, also where other packages of the same process change FAISS under them."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import numpy as np
import pytest

from api_schemas.build_config import IndexConfig
from api_schemas.manifest import IndexKind
from common.progress import silent
from index.engines.hnsw import choose_beam
from index.engines.ivf_pq import count_cells
from index.engines.registry import ENGINES
from tests.index.conftest import KINDS, make_unit_rows

SEARCH_BESIDE_TRAINING = """
import faiss.contrib.torch_utils  # what pytorch-metric-learning does when it finds FAISS
import numpy as np
from api_schemas.build_config import IndexConfig
from common.progress import silent
from index.engines.engine import AllowedNodes
from index.engines.registry import ENGINES

vectors = np.eye(8, dtype=np.float32)
for kind in ("flat", "hnsw", "hnsw_sq8", "ivf_pq"):
    engine = ENGINES[kind].build(vectors, np.arange(8), IndexConfig(kind=kind), silent)
    nearest = engine.search(vectors, 1)[1].ravel().tolist()
    query = vectors[:1] + vectors[2:3] / 2
    few = engine.search(query, 1, allowed=AllowedNodes(np.arange(8) == 2))[1].tolist()
    print(kind, nearest == list(range(8)), few)
"""


def test_every_engine_kind_is_registered() -> None:
    assert set(ENGINES) == set(get_args(IndexKind))
    assert {"auto", *ENGINES} == set(get_args(IndexConfig.model_fields["kind"].annotation))
    for kind, engine in ENGINES.items():
        assert engine.kind == kind
        assert engine.exact == (kind == "flat")
        vectors = make_unit_rows(np.random.default_rng(0), 40)
        built = engine.build(vectors, np.arange(40), IndexConfig(kind=kind), silent)
        assert engine.required_parameters <= built.parameters.keys()
        assert kind == "milvus" or isinstance(built._index, engine.faiss_type)


def test_every_engine_searches_in_a_process_that_trains() -> None:
    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, "-c", SEARCH_BESIDE_TRAINING], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{kind} True [[2]]" for kind in KINDS]


def test_the_beam_grows_with_the_set_unless_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.eye(64, dtype=np.float32)
    assert [choose_beam(n) for n in (1, 200_000, 1_000_000, 5_000_000)] == [128, 128, 288, 640]
    monkeypatch.setattr("index.engines.hnsw.BEAM_UP_TO", 16)
    for requested, beam in ((None, 256), (48, 48)):
        config = IndexConfig(kind="hnsw", ef_search=requested)
        assert ENGINES["hnsw"].build(vectors, np.arange(64), config, silent).parameters["ef_search"] == beam


def test_cells_are_looked_into_until_neighbours_are_found_or_as_many_as_asked() -> None:
    rng = np.random.default_rng(0)
    vectors = make_unit_rows(rng, 3_000, 24)
    rows = rng.permutation(3_000)
    recalls = {}
    for requested in (None, 1, 10_000):
        engine = ENGINES["ivf_pq"].build(vectors, rows, IndexConfig(kind="ivf_pq", nprobe=requested), silent)
        nodes = engine.search(vectors[rows], 200)[1]
        neighbours = np.argsort(-(vectors[rows] @ vectors[rows].T), axis=1)[:, 1:11]
        recalls[requested] = (neighbours[:, :, None] == nodes[:, None, :]).any(axis=2).mean()
        assert ("recall" in engine.parameters) == (requested is None)
        if requested is None:
            assert 1 < engine.parameters["nprobe"] < engine.parameters["cells"] == count_cells(3_000)
            assert engine.parameters["recall"] >= 0.96
        else:
            assert engine.parameters["nprobe"] == min(requested, count_cells(3_000))
    assert recalls[1] < 0.5 < 0.95 <= recalls[None] <= recalls[10_000]


@pytest.mark.parametrize("dim", [1, 2, 7, 16])
@pytest.mark.parametrize("n", [1, 15, 40])
def test_cells_hold_sets_of_any_size(n: int, dim: int) -> None:
    vectors = make_unit_rows(np.random.default_rng(n), n, dim)
    engine = ENGINES["ivf_pq"].build(vectors, np.arange(n), IndexConfig(kind="ivf_pq"), silent)
    assert len(engine) == n
    assert set(engine.search(vectors, n)[1].ravel().tolist()) <= {-1, *range(n)}
