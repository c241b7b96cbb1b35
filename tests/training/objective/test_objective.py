"""The objective: the losses that a mixup wraps, and training of the network at every level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from common.errors import ConfigError
from tests.training.runs import MakeConfig, build_loop, read_latest_tensors, take_steps
from training.data.items import Splits
from training.data.load_data import load_data
from training.loop.train import train
from training.losses import LOSSES, ThresholdConsistentMargin
from training.objective.mixup import Metrix
from training.objective.objective import Objective

SUM = ["multi_similarity", {"name": "threshold_consistent_margin", "weight": 0.5}]
ONE_STEP = {"epochs": 1, "steps_per_epoch": 1, "shape": "constant", "warmup": 0.0, "patience": None}


def list_losses(objective: Objective) -> list[nn.Module]:
    return list(objective.loss.losses)


def test_in_a_sum_the_losses_that_fit_are_mixed(small: MakeConfig) -> None:
    mixed, plain = list_losses(Objective(small(loss=SUM, mixup="metrix"), 9))
    assert isinstance(mixed, Metrix)
    assert isinstance(plain, ThresholdConsistentMargin)


def test_a_mixup_that_fits_no_loss_is_refused(small: MakeConfig) -> None:
    config = small(loss=["icnn", "threshold_consistent_margin"], mixup="metrix")
    with pytest.raises(ConfigError, match=r"none of the losses \(icnn, threshold_consistent_margin\)"):
        Objective(config, 9)


@pytest.mark.parametrize("memory", [None, {"name": "cross_batch", "size": 20}], ids=["alone", "memory"])
@pytest.mark.parametrize("level", ["input", "feature", "embedding"])
def test_sums_are_mixed_at_each_level(
    small: MakeConfig, level: str, memory: dict[str, object] | None
) -> None:
    config = small(loss=SUM, mixup={"name": "metrix", "level": level}, memory=memory)
    objective = Objective(config, 9)
    calls: list[Tensor] = []
    network = nn.Linear(6, 8)

    def encode(mixed: Tensor) -> Tensor:
        calls.append(mixed)
        return network(mixed)

    inputs, labels = torch.randn(8, 6), torch.arange(8) // 2
    mixing: dict[str, Any] = {"mixable": inputs, "encode": encode} if level != "embedding" else {}
    for _ in range(2):
        value = objective(network(inputs), labels, **mixing)
        assert torch.isfinite(value)
    assert len(calls) == (0 if level == "embedding" else 2)


@pytest.fixture(scope="module")
def splits(small: MakeConfig) -> Splits:
    return load_data(small().data)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("loss", ["multi_similarity", "proxy_anchor"])
@pytest.mark.parametrize("level", ["input", "feature", "embedding"])
def test_mixed_items_move_the_network_at_every_level(
    small: MakeConfig, splits: Splits, tmp_path: Path, level: str, loss: str, precision: str
) -> None:
    def train_one_step(weight: float) -> dict[str, Tensor]:
        """The trained parameters of the network."""
        config = small(
            loss=[loss, "threshold_consistent_margin"],
            mixup={"name": "metrix", "level": level, "weight": weight, "kind": "positive_negative"},
            optimizer={"name": "sgd", "lr": 0.1, "clip_norm": None},
            schedule=ONE_STEP,
            precision=precision,
        )
        loop = build_loop(config, splits, tmp_path)
        take_steps(loop, 1)
        return {name: value.detach() for name, value in loop.state.network.named_parameters()}

    clean, once, twice = (train_one_step(weight) for weight in (0.0, 1.0, 2.0))
    for name, before in clean.items():
        # one step of gradient descent: what the weight adds is the mixed gradient, times the rate
        mixed = once[name] - before
        if "backbone" not in name or name.endswith("weight"):
            assert mixed.abs().max() > 1e-6, name
        if precision == "float32":
            torch.testing.assert_close(twice[name] - before, 2 * mixed, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("level", ["input", "feature"])
def test_a_whole_run_with_everything_on_ends_at_that_level(
    small: MakeConfig, tmp_path: Path, level: str
) -> None:
    config = small(
        loss=SUM,
        mixup={"name": "metrix", "level": level},
        memory={"name": "cross_batch", "size": 40},
        miner="multi_similarity",
        optimizer={"ema": 0.9, "accumulate": 2},
    )
    assert train(config, tmp_path / "run").load_embeddings("test") is not None


def test_weights_move_over_the_run(small: MakeConfig) -> None:
    ramp = {"start": 0.0, "end": 2.0, "begins": 0.25, "ends": 0.75}
    objective = Objective(small(loss=["triplet", {"name": "circle", "weight": ramp}]), 9)
    items, labels = nn.functional.normalize(torch.randn(8, 8)), torch.arange(8) // 2
    first, second = (part(items, labels) for part in list_losses(objective))
    for done, factor in ((0.0, 0.0), (0.25, 0.0), (0.5, 1.0), (1.0, 2.0)):
        torch.testing.assert_close(objective(items, labels, done), first + factor * second)


@pytest.mark.parametrize(
    ("ramp", "message"),
    [
        ({"start": 0.0, "end": 1.0, "begins": 0.5, "ends": 0.5}, "begins must be below ends"),
        ({"start": 0.0, "end": 1.0, "ends": 2.0}, "ends"),
        ({"start": 0.0}, "end"),
        ({"start": 0.0, "end": 1.0, "stop": 1}, "stop"),
    ],
)
def test_a_ramp_that_is_none_is_refused(small: MakeConfig, ramp: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        small(loss={"name": "circle", "weight": ramp})


@pytest.mark.parametrize(
    ("forms", "number"),
    [
        ((), 1),
        (("rotations_as_classes",), 4),
        (("mirrors_as_classes",), 2),
        (("rotations_as_classes", "mirrors_as_classes"), 8),
    ],
)
def test_class_vectors_start_at_the_class_means(
    small: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forms: tuple[str, ...], number: int
) -> None:
    given: list[tuple[Tensor, Tensor]] = []
    real = Objective.start_class_vectors

    def start_class_vectors(self: Objective, embeddings: Tensor, labels: Tensor) -> None:
        real(self, embeddings, labels)
        given.append((embeddings, labels))

    monkeypatch.setattr(Objective, "start_class_vectors", start_class_vectors)
    config = small(
        data={"path": small().data.path, "augmentation": dict.fromkeys(forms, True)},
        loss=[{"name": "proxy_anchor", "start_from_class_means": True}, "normalized_softmax"],
        optimizer={"lr": 1e-12, "ema": 0.9},
        schedule=ONE_STEP,
    )
    run = train(config, tmp_path / "run")
    ((embeddings, labels),) = given
    assert labels.bincount().tolist() == [6] * 9 * number
    proxies = read_latest_tensors(run.path)["objective/loss.losses.0.proxies"]
    for code in range(9 * number):
        mean = nn.functional.normalize(embeddings[labels == code].mean(0), dim=0)
        torch.testing.assert_close(proxies[code], mean, rtol=1e-5, atol=1e-5)
    for form in range(1, number):
        assert not torch.allclose(embeddings[0], embeddings[form], atol=1e-3)


def test_a_class_without_items_keeps_its_vector(small: MakeConfig) -> None:
    config = small(loss={"name": "proxy_anchor", "start_from_class_means": True})
    torch.manual_seed(0)
    objective = Objective(config, 3)
    embeddings, labels = torch.randn(9, 8), torch.arange(9) % 2
    before = objective.from_means[0].class_vectors.detach().clone()
    objective.start_class_vectors(embeddings, labels)
    after = objective.from_means[0].class_vectors.detach()
    torch.testing.assert_close(after[2], before[2])
    assert not torch.allclose(after[:2], before[:2])


def has_class_vectors(name: str) -> bool:
    return LOSSES[name].vectors is not None


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_only_losses_with_class_vectors_start_from_class_means(small: MakeConfig, name: str) -> None:
    config = small(loss={"name": name, "start_from_class_means": True})
    if not has_class_vectors(name):
        with pytest.raises(ConfigError, match="is for losses with one vector per class"):
            Objective(config, 9)
        return
    objective = Objective(config, 9)
    objective.start_class_vectors(torch.eye(8)[[0, 1, 1]], torch.tensor([2, 4, 4]))
    vectors = objective.from_means[0].class_vectors.detach()
    torch.testing.assert_close(vectors[[2, 4]], torch.eye(8)[[0, 1]])
