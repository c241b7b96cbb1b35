"""Training that cannot begin or go on: one sentence each, and the last good checkpoint is kept."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from common.atomic_files import write_atomically
from common.errors import ConfigError, InputError
from embeddings.embedding_set import EmbeddingSet
from tests.training.runs import MakeConfig, assert_equal_bit_for_bit
from training.data import image_files
from training.loop import checkpoint, epoch_log, loop
from training.loop.failure_checks import detect_collapse
from training.loop.train import train
from training.loop.validation_metrics import ValidationMetrics
from training.run_folder.layout import CHECKPOINTS_FOLDER


def test_a_folder_with_a_run_is_not_overwritten(small: MakeConfig, finished: Path) -> None:
    with pytest.raises(InputError, match="already holds a run"):
        train(small(), finished)


def test_a_loss_that_is_no_number_stops_and_names_step_and_group(
    small: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0
    real = loop.compute_lr_factor

    def explode(*arguments: object) -> float:
        nonlocal steps
        steps += 1
        return 1e30 if steps > 3 else real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "compute_lr_factor", explode)
    with pytest.raises(InputError, match=r"(loss|gradient) is (nan|inf) at step \d.*'weights'.*is kept:"):
        train(small(), tmp_path / "run")
    assert (tmp_path / "run" / CHECKPOINTS_FOLDER / "step-00000003.safetensors").is_file()


@pytest.mark.parametrize("group", ["weights", "biases and norms", "loss"])
def test_a_gradient_that_is_no_number_names_its_group_alone(
    small: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    real = loop.Loop._clip

    def set_nan_gradient(run: loop.Loop, gradients: list[list[Tensor]]) -> Tensor:
        if run.state.progress.step == 4:
            groups = {group["name"]: group["params"] for group in run.state.optimizer.param_groups}
            groups[group][0].grad.view(-1)[0] = torch.nan
        return real(run, gradients)

    monkeypatch.setattr(loop.Loop, "_clip", set_nan_gradient)
    message = f"gradient of the parameter group '{group}' is nan at step 5. The last good checkpoint is kept"
    with pytest.raises(InputError, match=message):
        train(small(loss="proxy_anchor"), tmp_path / "run")
    assert (tmp_path / "run" / CHECKPOINTS_FOLDER / "step-00000003.safetensors").is_file()
    assert not (tmp_path / "run" / CHECKPOINTS_FOLDER / "step-00000005.safetensors").exists()


def test_before_the_first_checkpoint_none_is_promised(
    small: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.Loop, "_clip", lambda run, gradients: torch.full((3,), torch.nan))
    with pytest.raises(InputError, match=r"is nan at step 1\. No checkpoint was written yet: lower"):
        train(small(), tmp_path / "run")


def test_a_collapse_is_said(small: MakeConfig) -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(20), 5)
    nowhere = EmbeddingSet.from_arrays(random.normal(size=(100, 16)), labels)
    one_place = EmbeddingSet.from_arrays(1 + 0.01 * random.normal(size=(100, 16)), labels)
    poor, good = ValidationMetrics(0.04, 0.01, 0.5, None, None), ValidationMetrics(0.6, 0.3, 0.1, None, None)
    flat, falling = [2.0, 2.01], [2.0, 1.0]
    assert "collapsed: recall@1 0.040" in str(detect_collapse(nowhere, poor, flat, small()))
    assert "cosine 1.00 on average" in str(detect_collapse(one_place, poor, falling, small()))
    assert detect_collapse(nowhere, poor, falling, small()) is None
    assert detect_collapse(nowhere, poor, [2.0], small()) is None, "one epoch says nothing"
    assert detect_collapse(one_place, good, flat, small()) is None


@pytest.mark.parametrize("sense", [False, True], ids=["labels without sense", "labels that can be learned"])
def test_a_network_that_learns_nothing_is_noticed(small: MakeConfig, tmp_path: Path, sense: bool) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(400) % 100
    vectors = random.normal(size=(400, 12)) + 4 * sense * random.normal(size=(100, 12))[labels]
    np.savez(tmp_path / "v.npz", embeddings=vectors, labels=labels)
    messages: list[str] = []
    config = small(
        data={"kind": "embeddings", "path": str(tmp_path / "v.npz")},
        model={"backbone": "linear", "embedding_dim": 8},
        optimizer={"lr": 1e-6},
    )
    train(config, tmp_path / "run", say=messages.append)
    warned = [sentence for sentence in messages if sentence.startswith("The network seems to have collapsed")]
    assert bool(warned) != sense
    assert all("Lower optimizer.lr (now 1e-06)" in sentence for sentence in warned)


def test_a_figure_that_validation_cannot_give_is_refused_before_training(
    small: MakeConfig, drawings: Path, tmp_path: Path
) -> None:
    for source in sorted(drawings.rglob("[0-2].png")):  # three of each class
        target = tmp_path / "data" / source.relative_to(drawings)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    config = small(data={"path": str(tmp_path / "data")}, evaluation={"monitor": {"opis_debiased": 1.0}})
    message = (
        r"cannot give opis_debiased\. .*at least 4 items.* Monitor map_at_r or recall_at_1 or eer, or val"
    )
    with pytest.raises(InputError, match=message):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("module", [checkpoint, epoch_log], ids=["checkpoint", "metrics"])
def test_a_full_disk_is_one_sentence_and_the_run_can_go_on(
    small: MakeConfig, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType
) -> None:
    config = small()
    written = 0

    def raise_disk_full(path: Path, content: bytes) -> None:
        nonlocal written
        written += 1
        if written > 1:
            raise OSError(28, "No space left on device")
        write_atomically(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomically", raise_disk_full)
        with pytest.raises(InputError, match=r"run: no space left on its disk.*--resume"):
            train(config, tmp_path / "run")
    train(config, tmp_path / "run", resume=True)
    assert_equal_bit_for_bit(finished, tmp_path / "run")


def test_memory_that_runs_out_is_one_sentence(small: MakeConfig, tmp_path: Path) -> None:
    huge = {"backbone": "mlp", "hidden": [2**43 // 144]}  # tens of TiB of weights
    with pytest.raises(InputError, match=r"out of memory; .*intact\. Lower sampler\.batch_size"):
        train(small(model=huge), tmp_path / "run")


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ({"batch_size": 100_000}, "batch_size: 100000 items in a batch, but training has 54: set at most 54"),
        ({"batch_size": 200, "items_per_class": 50}, "batch_size: 200 items"),
        ({"batch_size": 100, "items_per_class": 50}, "items_per_class: 50, but the largest .* has 6 items"),
    ],
)
def test_batches_that_the_data_cannot_fill_are_refused_before_an_image_is_decoded(
    small: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: dict[str, int], message: str
) -> None:
    monkeypatch.setattr(image_files.ImageFile, "open", None)
    with pytest.raises(ConfigError, match=message):
        train(small(sampler=sampler), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "tripel"}, "unknown name 'tripel'"),
        ({"loss": {"name": "triplet", "margn": 1}}, "unknown parameter 'margn'"),
        ({"miner": "hard"}, "miner"),
        ({"mixup": "mixup"}, "mixup"),
        ({"mixup": {"name": "metrix", "level": "pixel"}}, "level: Input should be 'input', 'fea"),
        ({"memory": "bank"}, "memory"),
        ({"model": {"backbone": "resnet50"}}, "unknown name 'resnet50': did you mean 'resnet'"),
        ({"model": {"backbone": "conv4", "width": [8]}}, "unknown parameter 'width': did you mean 'widths'"),
    ],
)
def test_unknown_names_are_refused_before_the_data_is_read(
    small: MakeConfig, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    changes = {"data": {"path": str(tmp_path / "not there")}, **changes}
    with pytest.raises(ConfigError, match=message):
        train(small(**changes), tmp_path / "run")
