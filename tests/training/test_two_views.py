"""Training without labels, from its configuration on: two views of every item, state of each, bad pairs."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from api_schemas.config import Config, SamplerConfig
from api_schemas.data_config import AugmentationConfig
from common.errors import ConfigError, InputError
from tests.training.runs import MakeConfig, Stop, assert_equal_bit_for_bit, load_made, read_latest_tensors
from training.batches.batch_inputs import DeviceInputs, TrainingInputs
from training.batches.samplers import draw_batches
from training.config_checks import check_config
from training.loop.train import train
from training.objective.training_classes import describe_classes

AUGMENTED = {"rotate_degrees": 10, "shift": 0.1, "noise": 0.1}


@pytest.fixture(scope="module")
def unlabelled(small: MakeConfig) -> Config:
    """State for every item: temperatures, clusters, losses so far."""
    return small(
        data={"path": small().data.path, "augmentation": {**AUGMENTED, "rotations_as_classes": True}},
        loss=[
            {"name": "isogclr", "rate": 0.5},
            {"name": "interclr", "start": 2, "every": 2, "clusters": 5},
            {"name": "nt_xent", "bad_pairs": {"warmup": 1, "low": 0.5, "high": 0.5}},
        ],
        sampler={"name": "two_views", "batch_size": 24},
        schedule={"epochs": 3, "steps_per_epoch": 4, "patience": None},
    )


def test_a_batch_holds_each_of_its_items_twice() -> None:
    sampler = SamplerConfig(name="two_views", batch_size=10)
    labels = np.repeat(np.arange(4), 5)
    batches = draw_batches(labels, sampler, 8, seed=0, epoch=0)
    for batch in batches:
        assert np.unique(batch, return_counts=True)[1].tolist() == [2] * 5
    assert sorted(np.concatenate(batches[:4]).tolist()) == sorted(np.repeat(np.arange(20), 2).tolist())
    assert len(draw_batches(labels[:3], sampler, 1, seed=0, epoch=0)[0]) == 6


def test_every_item_and_form_is_a_class_and_its_views_differ(drawings: Path) -> None:
    splits = load_made(drawings)
    augmentation = AugmentationConfig(**AUGMENTED, rotations_as_classes=True)  # type: ignore[arg-type]
    prepare = DeviceInputs(splits.preprocessing, torch.device("cpu"))
    inputs = TrainingInputs(splits.train, prepare, augmentation, ignores_labels=True)
    assert inputs.codes.tolist() == list(range(4 * len(splits.train)))
    first, second = inputs(np.array([5, 5]), torch.Generator().manual_seed(0))
    assert not torch.equal(first, second)
    config = Config.model_validate({"data": {"path": str(drawings)}})
    classes = describe_classes(splits.train, config.data, 4, ignores_labels=True)
    assert classes.count == 4 * len(splits.train)
    assert classes.names[4] == splits.train.ids[1]
    assert set(classes.sizes) == {1}


def test_labels_of_the_training_part_change_nothing(
    unlabelled: Config, drawings: Path, tmp_path: Path
) -> None:
    def train_on(kept: bool) -> dict[str, torch.Tensor]:
        rows = ["path,label,split"]
        for part, names in (("train", range(9)), ("val", range(9, 12)), ("test", range(12, 15))):
            for number in names:
                files = sorted(drawings.rglob(f"letter{number:02d}/*.png"))
                label = f"letter{number}" if kept or part != "train" else f"nobody{number % 2}"
                rows += [f"{file},{label},{part}" for file in files]
        (tmp_path / "list.csv").write_text("\n".join(rows))
        data = unlabelled.data.model_copy(
            update={
                "path": str(tmp_path / "list.csv"),
                "split": unlabelled.data.split.model_copy(update={"by": "column"}),
            }
        )
        config = unlabelled.model_copy(update={"data": data})
        run = train(config, tmp_path / f"run-{kept}")
        return read_latest_tensors(run.path)

    with_labels, without = train_on(True), train_on(False)
    assert with_labels.keys() == without.keys()
    assert all(torch.equal(with_labels[key], without[key]) for key in with_labels)


def test_the_state_of_every_item_survives_resuming(unlabelled: Config, tmp_path: Path) -> None:
    whole = train(unlabelled, tmp_path / "whole")
    with pytest.raises(InputError, match="Stopped"):
        train(unlabelled, tmp_path / "stopped", track=Stop(signal.SIGTERM, 6))
    train(unlabelled, tmp_path / "stopped", resume=True)
    assert_equal_bit_for_bit(whole.path, tmp_path / "stopped")
    tensors = read_latest_tensors(whole.path)
    temperatures = tensors["objective/loss.losses.0.temperatures"]
    assert len(temperatures.unique()) > 10
    assert int((tensors["objective/loss.losses.2.reducer.counts"] > 0).sum()) > 50
    assert (tensors["objective/loss.losses.1.assigned"] >= 0).any()
    line = (whole.path / "metrics.jsonl").read_text().splitlines()[-1]
    assert "isogclr_temperature" in line
    assert "faulty_pairs" in line


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"data": {}}, r"data\.augmentation: .*without augmentation they are equal"),
    ({"data": {"augmentation": {"rotations_as_classes": True}}}, "without augmentation they are equal"),
    ({"loss": "hierarchical_contrastive"}, "every item is a class of its own.*groups of classes"),
    (
        {"mixup": {"name": "metrix", "level": "feature"}, "loss": "multi_similarity"},
        "only embeddings are mixed",
    ),
    ({"loss": "interclr", "memory": "cross_batch"}, "memory: loss 'interclr' has a memory of its own"),
    (
        {"loss": {"name": "nt_xent", "bad_pairs": {}}, "memory": "cross_batch"},
        "memory: bad_pairs counts the loss of every item of a batch once",
    ),
    ({"loss": {"name": "triplet", "bad_pairs": {}}}, r"loss \(triplet\): bad_pairs weighs"),
]


@pytest.mark.parametrize(("changes", "sentence"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_work_is_refused_at_once(
    small: MakeConfig, changes: dict[str, Any], sentence: str
) -> None:
    path = small().data.path
    data = {"path": path, "hierarchy": "path", "augmentation": AUGMENTED}
    if "data" in changes:
        data = {"path": path, "hierarchy": "path", **changes["data"]}
    sections = {"loss": "nt_xent", "sampler": {"name": "two_views", "batch_size": 16}, **changes}
    with pytest.raises(ConfigError, match=sentence):
        check_config(small(**{**sections, "data": data}))


def test_vectors_have_no_second_view(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", embeddings=np.eye(8), labels=np.arange(8) // 2)
    sections = {
        "data": {"kind": "embeddings", "path": str(tmp_path / "v.npz")},
        "loss": "nt_xent",
        "sampler": {"name": "two_views", "batch_size": 4},
    }
    with pytest.raises(
        ConfigError, match=r"sampler\.name: 'two_views' needs views that differ.*dropout alone"
    ):
        check_config(Config.model_validate(sections))
    check_config(Config.model_validate({**sections, "model": {"backbone": "mlp", "dropout": 0.2}}))
    with pytest.raises(ValueError, match="batch_size must be even"):
        Config.model_validate({**sections, "sampler": {"name": "two_views", "batch_size": 5}})
    sampler = {"name": "two_views", "batch_size": 4, "items_per_class": 3}
    with pytest.raises(ValueError, match="leave items_per_class out"):
        Config.model_validate({**sections, "sampler": sampler})
