"""What losses know of the training classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from api_schemas.config import Config
from training.data.items import Items
from training.loop.train import train
from training.objective.training_classes import describe_classes
from training.run_folder.layout import METRICS_FILE


def build_items(labels: list[str], **columns: list[str]) -> Items:
    n = len(labels)
    metadata = {name: np.array(values) for name, values in columns.items()}
    return Items(np.zeros((n, 2)), np.array(labels), np.arange(n).astype(np.str_), metadata)


def test_sizes_are_those_of_the_training_set_in_the_order_of_the_codes() -> None:
    classes = describe_classes(build_items(["b", "a", "b", "c", "b"]))
    assert classes.names == ("a", "b", "c")
    assert classes.sizes == (1, 3, 1)
    forms = describe_classes(build_items(["b", "a", "b"]), forms=2)
    assert forms.names == ("a", "a (form 1)", "b", "b (form 1)")
    assert forms.sizes == (1, 1, 2, 2)


@pytest.fixture(scope="module")
def long_tail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embeddings file of 14 classes of 60 items down to 2."""
    random = np.random.default_rng(0)
    sizes = np.geomspace(60, 2, 14).round().astype(int)
    labels = np.repeat(np.arange(14), sizes)
    path = tmp_path_factory.mktemp("tail") / "tail.npz"
    np.savez(path, embeddings=random.normal(size=(len(labels), 6)).astype(np.float32), labels=labels)
    return path


def test_a_run_says_which_classes_sbcl_cuts(long_tail: Path, tmp_path: Path) -> None:
    config = Config.model_validate(
        {
            "data": {"kind": "embeddings", "path": str(long_tail), "split": {"validation": 0, "test": 0}},
            "model": {"embedding_dim": 4},
            "loss": {"name": "sbcl", "every": 8},
            "sampler": {"batch_size": 32},
            "schedule": {"epochs": 2, "steps_per_epoch": 20, "patience": None},
        }
    )
    said: list[str] = []
    train(config, tmp_path / "run", say=said.append)
    assert any(line.startswith("sbcl cuts 5 of 14 classes into subclasses") for line in said)
    lines = [json.loads(line) for line in (tmp_path / "run" / METRICS_FILE).read_text().splitlines()]
    assert lines[-1]["sbcl_cut_classes"] == 5
    assert lines[-1]["sbcl_subclasses"] > 14
