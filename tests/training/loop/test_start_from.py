"""Training from a run: its weights, class vectors by name or by mean, corners kept, the rest fresh."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from api_schemas.class_corners import ClassCorners
from api_schemas.config import Config
from common.errors import ConfigError, InputError
from tests.training.runs import EVERYTHING, MakeConfig, assert_equal_bit_for_bit, read_latest_tensors
from training.loop.train import train
from training.run_folder.layout import get_before_path
from training.run_folder.run_folder import Run

STILL = {"lr": 1e-12}  # nothing moves
ONE = {"epochs": 1, "steps_per_epoch": 1, "patience": None}


@pytest.fixture(scope="module")
def fewer(drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawings without the last classes of each alphabet."""
    folder = Path(shutil.copytree(drawings, tmp_path_factory.mktemp("fewer") / "drawings"))
    for label in ("letter12", "letter13", "letter14"):
        for path in folder.glob(f"*/{label}"):
            shutil.rmtree(path)
    return folder


@pytest.fixture(scope="module")
def first(small: MakeConfig, fewer: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with class vectors on fewer classes."""
    return train(
        small(data={"path": str(fewer), "split": EVERYTHING}, loss="proxy_anchor", schedule=ONE),
        tmp_path_factory.mktemp("first") / "run",
    )


def make_config(small: MakeConfig, drawings: Path, start: Path, **changes: object) -> Config:
    """Without a word on the model: it is that of the run."""
    config = small(
        **{
            "data": {"path": str(drawings), "split": EVERYTHING},
            "loss": "proxy_anchor",
            "schedule": ONE,
            "optimizer": STILL,
            "start_from": str(start),
            **changes,
        }
    )
    given = config.model_dump(exclude_unset=True)
    if "model" not in changes:
        given.pop("model")
    return Config.model_validate(given)


def test_weights_and_class_vectors_are_those_of_the_run(
    small: MakeConfig, drawings: Path, first: Run, tmp_path: Path
) -> None:
    said: list[str] = []
    run = train(make_config(small, drawings, first.path), tmp_path / "run", say=said.append)
    assert any("12 class vectors of" in sentence and "3 from the means" in sentence for sentence in said)
    assert run.config.model == first.config.model
    assert run.load_preprocessing() == first.load_preprocessing()
    before, after = first.load_network().state_dict(), run.load_network().state_dict()
    for name in ("head.weight", "backbone.layers.0.weight"):
        torch.testing.assert_close(after[name], before[name], atol=1e-6, rtol=0)
    old, new = read_latest_tensors(first.path), read_latest_tensors(run.path)
    key = next(name for name in new if name.startswith("objective/") and new[name].shape == (15, 8))
    known = [
        row for row, label in enumerate(np.unique(run.load_embeddings("train").labels)) if label[-2:] < "12"
    ]  # type: ignore[union-attr]
    torch.testing.assert_close(new[key][known], old[key], atol=1e-5, rtol=0)
    new_rows = np.setdiff1d(np.arange(15), known)
    items = first.load_network()
    assert items.dimension == 8
    embedded = run.load_embeddings("train")
    assert embedded is not None
    names = np.unique(embedded.labels)
    lengths = new[key][new_rows].norm(dim=1)
    torch.testing.assert_close(lengths, old[key].norm(dim=1).median().expand(3), atol=1e-4, rtol=0)
    for row in new_rows:
        mean = embedded.vectors[embedded.labels == names[row]].mean(0)
        cosine = float(mean @ new[key][row].numpy() / np.linalg.norm(mean) / lengths[0])
        assert cosine > 0.9, "the mean of its items, but for one step of running statistics"
    assert [name for name in new if name.startswith("optimizer/")], "an optimiser of its own"


def test_a_run_that_started_from_another_resumes_as_itself(
    small: MakeConfig, drawings: Path, first: Run, tmp_path: Path
) -> None:
    two = {"epochs": 2, "steps_per_epoch": 1, "patience": None}
    config = make_config(small, drawings, first.path, optimizer={"lr": 1e-3}, schedule=two)
    whole = train(config, tmp_path / "whole")
    again = Path(shutil.copytree(whole.path, tmp_path / "again"))
    (again / "run.json").unlink()
    train(config, again, resume=True)
    assert_equal_bit_for_bit(whole.path, again)


def test_what_is_measured_is_embedded_by_the_run_it_started_from(
    small: MakeConfig, drawings: Path, finished: Path, tmp_path: Path
) -> None:
    data = {"path": str(drawings), "hierarchy": "path"}
    config = make_config(small, drawings, finished, data=data, loss="multi_similarity")
    run = train(config, tmp_path / "run")
    from embeddings.files import read_embeddings

    before, old = read_embeddings(get_before_path(run.path)), Run.open(finished).load_embeddings("test")
    assert old is not None
    np.testing.assert_array_equal(before.ids, old.ids)
    np.testing.assert_allclose(before.vectors, old.vectors, atol=1e-5)


def test_corners_are_kept_and_new_classes_take_free_ones(
    small: MakeConfig, fewer: Path, drawings: Path, tmp_path: Path
) -> None:
    model = {"backbone": "conv4", "widths": [8, 8], "embedding_dim": 16}
    data = {"path": str(fewer), "split": EVERYTHING}
    first = train(small(data=data, model=model, loss="d_simplex", schedule=ONE), tmp_path / "first")
    run = train(make_config(small, drawings, first.path, loss="d_simplex"), tmp_path / "run")
    old, new = (ClassCorners.load(path / "class_corners.json").corners for path in (first.path, run.path))
    assert len(old) == 12
    assert len(new) == 15
    assert all(new[name] == corner for name, corner in old.items())


def test_the_configuration_says_how_the_run_is_trained_further(
    small: MakeConfig, drawings: Path, first: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMEN_CACHE", str(tmp_path / "cache"))
    config = make_config(small, drawings, first.path, model={"train": "head"}, optimizer={"lr": 0.1})
    run = train(config, tmp_path / "run")
    before, after = first.load_network().state_dict(), run.load_network().state_dict()
    changed = [name for name, value in after.items() if not torch.equal(before[name], value)]
    assert changed == ["head.weight", "head.bias"]


def test_what_cannot_be_started_from_is_one_sentence(
    small: MakeConfig, drawings: Path, first: Run, tmp_path: Path
) -> None:
    other = {"backbone": "conv4", "widths": [8, 9], "embedding_dim": 8}
    with pytest.raises(ConfigError, match=r"the network of .* is another, in .* leave model out"):
        train(make_config(small, drawings, first.path, model=other), tmp_path / "run")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="a bundle has the exported network alone"):
        train(make_config(small, drawings, tmp_path / "bundle"), tmp_path / "run")
    with pytest.raises(InputError, match="is not a run folder"):
        train(make_config(small, drawings, tmp_path / "nothing"), tmp_path / "run")
