"""Running the command line inside the test process."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from embeddings.embedding_set import EmbeddingSet
from embeddings.files import save_embeddings


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


Limen = Callable[..., Outcome]


def run_limen(*arguments: object) -> Outcome:
    """Run ``limen`` with these arguments; returns its exit code and what it printed."""
    from limen.cli.main import main

    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(io.StringIO()) as out,
        redirect_stderr(io.StringIO()) as err,
    ):
        patch.setattr(sys, "argv", ["limen", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
    return Outcome(int(stopped.value.code or 0), out.getvalue(), err.getvalue())


@pytest.fixture
def limen() -> Limen:
    """`run_limen`, as a fixture."""
    return run_limen


def make_classes(classes: int, each: int, dim: int = 32, spread: float = 0.4, seed: int = 0) -> EmbeddingSet:
    """Classes around random centres: float32 [classes * each, dim] unit rows."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, dim))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    labels = np.repeat(np.arange(classes), each)
    vectors = centres[labels] + spread / np.sqrt(dim) * rng.normal(size=(classes * each, dim))
    return EmbeddingSet.from_arrays(vectors, labels)


@pytest.fixture(scope="session")
def embeddings_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 classes of 8 items, easy enough to calibrate on."""
    path = tmp_path_factory.mktemp("embeddings") / "embeddings.npz"
    save_embeddings(make_classes(60, 8), path)
    return path


@pytest.fixture(scope="session")
def bundle(embeddings_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the embeddings file; a test that changes it copies it."""
    out = tmp_path_factory.mktemp("bundles") / "bundle"
    outcome = run_limen("build", embeddings_file, "--out", out)
    assert outcome.code == 0, outcome.err
    return out


@pytest.fixture(scope="session")
def far_point(embeddings_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An operating point of FAR 5 % on the embeddings file, of a model called "a"."""
    out = tmp_path_factory.mktemp("points") / "op.json"
    outcome = run_limen("calibrate", embeddings_file, "--target-far", 0.05, "--model", "a", "--out", out)
    assert outcome.code == 0, outcome.err
    return out
