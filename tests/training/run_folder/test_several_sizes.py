"""Several sizes and exits from one training: the objective, the run folders, the exported encoders."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from common.errors import ConfigError
from encoder.encoder import Encoder
from tests.training.runs import MakeConfig
from training.data.load_data import load_data
from training.loop.train import train
from training.losses import Lesson, TrainingClasses
from training.models.network import Network, build_network
from training.objective.objective import Objective
from training.run_folder.layout import ENCODER_FOLDER
from training.run_folder.run_folder import Run
from training.run_folder.several_sizes import open_exit, open_size

MODEL = {"backbone": "conv4", "widths": [8, 8, 8], "embedding_dim": 8, "sizes": [4, 6], "exits": [1, 2]}
LOSSES = ["multi_similarity", {"name": "normalized_softmax", "weight": 0.5, "start_from_class_means": True}]


@pytest.fixture(scope="module")
def finished(small: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(small(model=MODEL, loss=LOSSES), tmp_path_factory.mktemp("sizes") / "run").path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(finished, tmp_path / "run"))


def test_the_objective_is_the_mean_over_sizes_and_exits(small: MakeConfig) -> None:
    torch.manual_seed(0)
    objective = Objective(small(model={**MODEL, "exit_distillation": 0.3}, loss=LOSSES), 5)
    generator = torch.Generator().manual_seed(1)
    items, labels = F.normalize(torch.randn(12, 8, generator=generator)), torch.arange(12) % 5
    exits = [torch.randn(12, 8, generator=generator) for _ in range(2)]
    value = objective(items, labels, exits=exits)
    parts = [
        objective.loss(items, labels),
        objective.further[0](F.normalize(items[:, :4]), labels),
        objective.further[1](F.normalize(items[:, :6]), labels),
    ]
    for number, outputs in enumerate(exits, 2):
        early = F.normalize(outputs)
        apart = 1 - F.cosine_similarity(early, items).mean()
        parts.append(objective.further[number](early, labels) + 0.3 * apart)
    torch.testing.assert_close(value, torch.stack(parts).mean())
    shapes = [part.losses[1].class_vectors.shape[1] for part in objective.further]  # type: ignore[union-attr]
    assert shapes == [4, 6, 8, 8]


def test_a_lesson_is_given_to_each_size(small: MakeConfig) -> None:
    config = small(model={**MODEL, "exits": []}, loss=["ckd"], teacher={"vectors": "x.npz"})
    classes = TrainingClasses(tuple("abcdef"), (1,) * 6, ((),) * 6, torch.zeros(6, 8))
    objective = Objective(config, classes).eval()
    outputs, features = torch.randn(6, 8), torch.randn(6, 8)
    items, labels = F.normalize(outputs), torch.arange(6)
    value = objective(items, labels, lesson=Lesson(outputs, features, labels))
    sums = [objective.loss, *objective.further]
    expected = [
        part.losses[0](outputs[:, :size], labels, None, features, labels)  # type: ignore[union-attr]
        for part, size in zip(sums, (8, 4, 6), strict=True)
    ]
    torch.testing.assert_close(value, torch.stack(expected).mean())


@pytest.mark.parametrize("size", [4, 6])
def test_a_size_is_the_first_numbers_of_the_embedding(run: Run, size: int) -> None:
    smaller = open_size(run, size)
    assert (smaller.config.model.embedding_dim, smaller.config.name) == (size, f"limen-{size}")
    for part in ("train", "validation", "test"):
        whole, cut = run.load_embeddings(part), smaller.load_embeddings(part)
        assert whole is not None
        assert cut is not None
        expected = whole.vectors[:, :size] / np.linalg.norm(whole.vectors[:, :size], axis=1, keepdims=True)
        np.testing.assert_allclose(cut.vectors, expected, atol=1e-6)
        assert cut.ids.tolist() == whole.ids.tolist()
    splits = load_data(run.config.data)
    assert splits.test is not None
    encoder = Encoder.open(smaller.path / ENCODER_FOLDER, threads=1)
    served = encoder.embed(encoder.preprocessing.normalise(splits.test.inputs))
    test = smaller.load_embeddings("test")
    assert test is not None
    np.testing.assert_allclose(served, test.vectors, atol=1e-5)
    assert open_size(run, 8) is run


@pytest.mark.parametrize("block", [1, 2])
def test_an_exit_is_the_network_up_to_its_block(run: Run, block: int) -> None:
    early = open_exit(run, block)
    network = run.load_network()
    splits = load_data(run.config.data)
    assert splits.test is not None
    inputs = torch.from_numpy(splits.preprocessing.normalise(splits.test.inputs))
    with torch.no_grad():
        outputs, features = network.run_exits(inputs)
        torch.testing.assert_close(network.project(features), network(inputs))
    test = early.load_embeddings("test")
    assert test is not None
    np.testing.assert_allclose(F.normalize(outputs[block - 1], dim=1).numpy(), test.vectors, atol=1e-5)


def test_sizes_and_exits_that_were_not_trained_are_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"--size 3: .* was trained for 4, 6, 8: name one, or"):
        open_size(run, 3)
    with pytest.raises(ConfigError, match=r"--exit 3: .* exits after these blocks: 1, 2"):
        open_exit(run, 3)


def test_a_head_without_weights_of_its_own_is_cut_too(run: Run) -> None:
    network = run.load_network()
    network.head = nn.Identity()
    head = run.load_network().head
    assert isinstance(head, nn.Linear)
    from training.run_folder.several_sizes import _cut_head

    rows = torch.randn(3, head.in_features)
    torch.testing.assert_close(_cut_head(head, 4)(rows), head(rows)[:, :4])
    assert _cut_head(nn.Identity(), 4)(rows).shape == (3, 4)


def test_what_cannot_have_several_is_refused(small: MakeConfig) -> None:
    for changes, message in (
        ({"sizes": [4, 2]}, "sizes must ascend"),
        ({"sizes": [8]}, "sizes must ascend from at least 2 to below embedding_dim"),
        ({"exits": [0]}, "exits must be ascending numbers of blocks from 1"),
        ({"views": 2}, "sizes and exits are of embeddings of one view"),
        ({"train": "head"}, "exits are trained with the whole network"),
    ):
        with pytest.raises(ValidationError, match=message):
            small(model={**MODEL, **changes})
    config = small(model={**MODEL, "exits": [3]})
    rule = load_data(config.data).preprocessing
    with pytest.raises(ConfigError, match="has 3 blocks: exits come before the last one, found 3"):
        build_network(config.model, rule)


def test_a_network_without_exits_has_none(small: MakeConfig) -> None:
    config = small()
    network: Network = build_network(config.model, load_data(config.data).preprocessing)
    outputs, _ = network.run_exits(torch.randn(2, 1, 12, 12))
    assert outputs == []
