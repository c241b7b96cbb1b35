"""Running the command line inside the test process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from embeddings.embedding_set import EmbeddingSet
from embeddings.files import save_embeddings


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


Limen = Callable[..., Outcome]


@pytest.fixture
def limen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Limen:
    """Run ``limen`` with these arguments; returns its exit code and what it printed."""
    from limen.cli.main import main

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["limen", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capsys.readouterr()
        return Outcome(int(stopped.value.code or 0), printed.out, printed.err)

    return run


def clustered(classes: int, each: int, dim: int = 32, spread: float = 0.4, seed: int = 0) -> EmbeddingSet:
    """Classes around random centres: float32 [classes * each, dim] unit rows."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, dim))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    labels = np.repeat(np.arange(classes), each)
    vectors = centres[labels] + spread / np.sqrt(dim) * rng.normal(size=(classes * each, dim))
    return EmbeddingSet.from_arrays(vectors, labels)


@pytest.fixture
def embeddings_file(tmp_path: Path) -> Path:
    """60 classes of 8 items, easy enough to calibrate on."""
    path = tmp_path / "embeddings.npz"
    save_embeddings(clustered(60, 8), path)
    return path
