"""Corners stay with their classes over versions of a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from api_schemas.class_corners import CLASS_CORNERS_FILE, ClassCorners
from common.errors import ConfigError, InputError
from limen.pipeline.make_bundle import export_run
from tests.training.losses.cases import make
from tests.training.runs import MakeConfig
from training.config_checks import check_config
from training.loop.train import train
from training.losses import TrainingClasses
from training.losses.d_simplex import DSimplex, assign_corners


def make_simplex(*names: str, corners_from: Path | None = None, dimension: int = 8) -> DSimplex:
    classes = TrainingClasses(names, (1,) * len(names), ((),) * len(names))
    parameters = {} if corners_from is None else {"corners_from": str(corners_from)}
    loss = make("d_simplex", classes=classes, dimension=dimension, **parameters)
    assert isinstance(loss, DSimplex)
    return loss


def test_a_class_that_is_added_or_leaves_moves_no_corner(tmp_path: Path) -> None:
    first = make_simplex("bear", "cat")
    first.class_corners.save(tmp_path / CLASS_CORNERS_FILE)
    second = make_simplex("ant", "bear", "dog", corners_from=tmp_path)  # ant comes first, cat is gone
    assert second.class_corners.corners == {"bear": 0, "cat": 1, "ant": 2, "dog": 3}
    bear = F.normalize(torch.randn(1, 8, dtype=torch.float64))
    torch.testing.assert_close(second(bear, torch.tensor([1])), first(bear, torch.tensor([0])))
    assert second.corner_of.tolist() == [2, 0, 3]


def test_free_corners_are_filled_and_never_given_twice() -> None:
    assert assign_corners(["c", "a"], 4, {"a": 3, "b": 0}).corners == {"a": 3, "b": 0, "c": 1}
    with pytest.raises(ValueError, match=r"fewer than the 4 classes \(2 of earlier versions\).*at least 3"):
        assign_corners(["c", "d"], 2, {"a": 1, "b": 0})
    with pytest.raises(ValueError, match="distinct"):
        ClassCorners(dimension=3, corners={"a": 1, "b": 1})


def test_what_cannot_be_continued_is_refused_before_training(small: MakeConfig, tmp_path: Path) -> None:
    make_simplex("a", "b").class_corners.save(tmp_path / CLASS_CORNERS_FILE)
    loss = {"name": "d_simplex", "corners_from": str(tmp_path)}
    with pytest.raises(ConfigError, match="has corners in 8 dimensions, embedding_dim is 16"):
        check_config(small(loss=loss, model={"embedding_dim": 16}))
    with pytest.raises(InputError, match=r"has no class_corners\.json: give a run that was trained with"):
        check_config(small(loss={**loss, "corners_from": str(tmp_path / "none")}))


def test_runs_and_bundles_hold_the_corners_and_the_next_version_takes_them(
    small: MakeConfig, tmp_path: Path
) -> None:
    model = {"backbone": "conv4", "widths": [8, 8], "embedding_dim": 40}
    run = train(small(loss="d_simplex", model=model), tmp_path / "first")
    corners = run.load_class_corners()
    assert corners is not None
    assert len(corners.corners) == 9
    export_run(run, tmp_path / "bundle")
    assert ClassCorners.load_from_model(tmp_path / "bundle") == corners
    for source in ("first", "bundle"):
        loss = {"name": "d_simplex", "corners_from": str(tmp_path / source)}
        other = small(loss=loss, model=model, data={**small().data.model_dump(), "split": {"seed": 1}})
        later = train(other, tmp_path / f"after-{source}").load_class_corners()
        assert later is not None
        assert later.corners.items() > corners.corners.items()
        assert len(later.corners) == len(set(later.corners.values()))
