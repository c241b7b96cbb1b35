"""Engines in company: other packages of the same process may change FAISS under them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from api_schemas.config import IndexConfig
from index.engines import beam_for, build_engine

SEARCH_BESIDE_TRAINING = """
import faiss.contrib.torch_utils  # what pytorch-metric-learning does when it finds FAISS
import numpy as np
from api_schemas.config import IndexConfig
from index.engines import build_engine

vectors = np.eye(8, dtype=np.float32)
for kind in ("flat", "hnsw", "hnsw_sq8"):
    engine = build_engine(vectors, np.arange(8), IndexConfig(kind=kind), kind)
    found = engine.search(vectors, 1)[1].ravel().tolist()
    few = engine.search(vectors[:1], 1, allowed=np.array([0b100], dtype=np.uint8))[1].tolist()
    print(kind, found == list(range(8)), few)
"""


def test_every_engine_searches_in_a_process_that_trains() -> None:
    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, "-c", SEARCH_BESIDE_TRAINING], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{kind} True [[2]]" for kind in ("flat", "hnsw", "hnsw_sq8")]


def test_the_beam_grows_with_the_set_unless_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.eye(64, dtype=np.float32)
    assert [beam_for(n) for n in (1, 200_000, 1_000_000, 5_000_000)] == [128, 128, 288, 640]
    monkeypatch.setattr("index.engines.BEAM_UP_TO", 16)
    for asked, beam in ((None, 256), (48, 48)):
        config = IndexConfig(kind="hnsw", ef_search=asked)
        assert build_engine(vectors, np.arange(64), config, "hnsw").parameters["ef_search"] == beam
