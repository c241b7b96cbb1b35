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
from tests.training.losses.naive import (
    backward_compatible,
    ckd,
    higher_order_compatibility,
    margin_mse,
    prototype_relation,
)
from training.config_checks import check_config
from training.loop.train import train
from training.losses import Lesson, TrainingClasses, WeightedSum, build_loss

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


TWINS = {
    "ckd": ckd,
    "margin_mse": margin_mse,
    "higher_order_compatibility": higher_order_compatibility,
    "backward_compatible": backward_compatible,
    "prototype_relation": prototype_relation,
}


def draw_old(n: int = 15, dimension: int = DIMENSION) -> torch.Tensor:
    return torch.randn(n, dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(8))


@pytest.mark.parametrize("name", TWINS)
def test_each_follows_its_teacher_as_its_twin_does(name: str) -> None:
    loss, (items, labels) = make(name), batch()
    value = loss(items, labels, None, draw_old(), labels)
    torch.testing.assert_close(value, TWINS[name](loss, items, labels, draw_old()))


@pytest.mark.parametrize("name", TWINS)
def test_gradients_are_those_of_the_value(name: str) -> None:
    parameters = {"pull": 0.0} if name == "prototype_relation" else {}  # the pull stops it at the items
    loss, (items, labels) = make(name, **parameters), batch(n=9, seed=4)
    assert torch.autograd.gradcheck(
        lambda rows: loss(rows, labels, None, draw_old(9), labels), (items,), eps=1e-6, atol=1e-5, rtol=1e-4
    )


def test_relations_may_be_over_the_prototypes_and_to_a_teacher_of_another_size() -> None:
    loss, (items, labels) = make("prototype_relation", over="prototypes"), batch()
    value = loss(items, labels, None, draw_teacher(), labels)
    torch.testing.assert_close(
        value, prototype_relation(loss, items, labels, draw_teacher(), over="prototypes")
    )
    with pytest.raises(ConfigError, match="temperature must be above 0"):
        make("prototype_relation", temperature=0.0)


def test_items_without_a_label_have_a_relation_and_no_pull() -> None:
    loss, (items, labels) = make("prototype_relation"), batch()
    labels = torch.cat([labels[:10], torch.full((5,), -1)])
    value = loss(items, labels, None, draw_teacher(), labels)
    torch.testing.assert_close(value, prototype_relation(loss, items, labels, draw_teacher()))
    none = torch.full((15,), -1)
    directions = nn.functional.normalize(draw_teacher(5)).float()
    known = TrainingClasses(tuple("abcde"), (3,) * 5, ((),) * 5, directions)
    whole = build_loss(NamedPart(name="prototype_relation"), classes=known, embedding_dim=DIMENSION).double()
    assert torch.isfinite(whole(items, none, None, draw_teacher(), none))


def test_prototypes_follow_their_items_and_their_relation() -> None:
    loss, (items, labels) = make("prototype_relation"), batch()
    teacher = draw_teacher()
    optimizer = torch.optim.Adam([loss.prototypes], lr=0.05)
    values = []
    for _ in range(60):
        value = loss(items.detach(), labels, None, teacher, labels)
        values.append(float(value.detach()))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert values[-1] < 0.7 * values[0]


def test_old_centres_of_all_classes_are_what_new_items_are_told_from() -> None:
    directions = nn.functional.normalize(torch.randn(5, DIMENSION)).double()
    known = TrainingClasses(tuple("abcde"), (3,) * 5, ((),) * 5, directions)
    loss = build_loss(NamedPart(name="backward_compatible"), classes=known, embedding_dim=DIMENSION)
    items, labels = batch()
    logits = 20 * nn.functional.normalize(items) @ directions.T
    expected = nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(loss(items, labels, None, draw_old(), labels), expected)


def test_a_lesson_without_labels_goes_to_those_that_need_none() -> None:
    losses = [make("ckd", queue=0), make("margin_mse")]
    items, labels = batch()
    codes = torch.cat([labels, torch.full((4,), -1)])
    outputs, features = torch.cat([items, draw_old(4)]), draw_old(19)
    unit = nn.functional.normalize(items)
    value = WeightedSum(losses)(unit, labels, lesson=Lesson(outputs, features, codes))
    expected = ckd(losses[0], outputs, codes, features) + margin_mse(losses[1], items, labels, features[:15])
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("name", TWINS)
def test_without_a_teacher_they_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"teacher: loss '{name}' follows a teacher: set teacher.vectors"):
        check_config(build_config(tmp_path, loss=[name], teacher=None))
