"""Losses that follow a teacher of any size: with its features, its queue, and in a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from api_schemas.config import Config
from api_schemas.yaml_config import NamedPart
from common.errors import ConfigError
from tests.training.losses.cases import DIMENSION, batch, make
from tests.training.losses.naive import ckd, margin_mse
from training.config_checks import check_config
from training.loop.train import train
from training.losses import TrainingClasses, build_loss

TEACHER = 13


def draw_teacher(n: int = 15) -> torch.Tensor:
    return torch.randn(n, TEACHER, dtype=torch.float64, generator=torch.Generator().manual_seed(8))


def test_a_teacher_of_another_size_is_followed_through_a_matrix() -> None:
    classes = TrainingClasses(tuple("abcde"), (3,) * 5, ((),) * 5, torch.zeros(5, TEACHER))
    loss = build_loss(NamedPart(name="ckd"), classes=classes, embedding_dim=DIMENSION).double()
    items, labels = batch()
    assert isinstance(loss.projection, nn.Linear)
    expected = ckd(loss, loss.projection(items), labels, draw_teacher())
    torch.testing.assert_close(loss(items, labels, None, draw_teacher(), labels), expected)
    with pytest.raises(ValueError, match="feature of each item, found 4 for 15 items"):
        loss(items, labels, None, draw_teacher(4), labels[:4])


def test_margins_are_those_of_the_teacher() -> None:
    items, labels = batch()
    loss = make("margin_mse")
    value = loss(items, labels, None, draw_teacher(), labels)
    torch.testing.assert_close(value, margin_mse(loss, items, labels, draw_teacher()))
    same = loss(items, labels, None, 3 * items.detach(), labels)
    torch.testing.assert_close(same, torch.zeros_like(same), atol=1e-12, rtol=0)


def test_earlier_features_of_the_teacher_are_negatives() -> None:
    loss = make("ckd", queue=20).train()
    (items, labels), seen = batch(), torch.empty(0, DIMENSION, dtype=torch.float64)
    for step in range(4):
        teacher = torch.randn(
            15, DIMENSION, dtype=torch.float64, generator=torch.Generator().manual_seed(step)
        )
        value = loss(items, labels, None, teacher, labels)
        s, t = nn.functional.normalize(items), nn.functional.normalize(teacher)
        logits = 20 * s @ torch.cat([t, seen]).T
        expected = nn.functional.cross_entropy(logits, torch.arange(15))
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-7)
        seen = torch.cat([seen, t])[-20:]
    loss.eval()(items, labels, None, teacher, labels)
    assert int(loss.count) == 60


def build_config(folder: Path, **sections: Any) -> Config:
    return Config.model_validate(
        {
            "data": {"kind": "embeddings", "path": str(folder / "items.npz")},
            "model": {"backbone": "linear", "embedding_dim": 8},
            "loss": ["ckd", "margin_mse"],
            "teacher": {"vectors": str(folder / "teacher.npz")},
            "schedule": {"epochs": 1, "steps_per_epoch": 3},
            **sections,
        }
    )


def test_a_run_follows_a_teacher_of_another_size(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(20), 5)
    vectors = random.normal(size=(20, 12))[labels] + 0.5 * random.normal(size=(100, 12))
    np.savez(tmp_path / "items.npz", embeddings=vectors.astype(np.float32), labels=labels)
    wide = np.concatenate([vectors, vectors**2], axis=1).astype(np.float32)
    np.savez(tmp_path / "teacher.npz", embeddings=wide, labels=labels)
    train(build_config(tmp_path), tmp_path / "run")
    with pytest.raises(ConfigError, match="24 numbers, an embedding, which nd compares, has 8"):
        train(build_config(tmp_path, loss=["ckd", "nd"]), tmp_path / "other")


@pytest.mark.parametrize("name", ["ckd", "margin_mse"])
def test_without_a_teacher_they_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"teacher: loss '{name}' follows a teacher: set teacher.vectors"):
        check_config(build_config(tmp_path, loss=[name], teacher=None))
