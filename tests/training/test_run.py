"""Whole runs in small: what a run leaves behind, resuming, stopping, and everything that can go wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import numpy as np
import pytest
import safetensors.torch
import torch
from tensorboardX.proto.event_pb2 import Event
from torch import Tensor

from api_schemas.config import Config
from common.atomic_files import write_atomically
from common.errors import ConfigError, InputError
from embeddings.embedding_set import EmbeddingSet
from training.data import image_files
from training.loop import checkpoint, epoch_log, loop
from training.loop.checkpoint import Checkpoint, find_latest_checkpoint, load_checkpoint, check_same_run
from training.loop.failure_checks import detect_collapse
from training.loop.train import train
from training.loop.train_state import Progress
from training.loop.validation_metrics import ValidationMetrics
from training.run_folder.run_folder import Run
from training.run_folder.run_layout import BEST_WEIGHTS_FILE, CHECKPOINTS_FOLDER, TENSORBOARD_FOLDER

T = TypeVar("T")
MakeConfig = Callable[..., Config]


def weights_of(run: Path) -> dict[str, Tensor]:
    latest = find_latest_checkpoint(run / CHECKPOINTS_FOLDER)
    assert latest is not None
    return load_checkpoint(latest).tensors


def assert_equal_bit_for_bit(run: Path, other: Path) -> None:
    first, second = weights_of(run), weights_of(other)
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def scalars(run: Path, name: str) -> list[float]:
    """What TensorBoard would draw, read back from the event files."""
    values: dict[int, float] = {}
    for path in sorted((run / TENSORBOARD_FOLDER).iterdir()):
        content, start = path.read_bytes(), 0
        while start < len(content):  # records of length, checksum, event, checksum
            size = int.from_bytes(content[start : start + 8], "little")
            event = Event.FromString(content[start + 12 : start + 12 + size])
            for value in event.summary.value:
                if value.tag == name:
                    values[event.step] = value.simple_value
            start += size + 16
    return [values[step] for step in sorted(values)]


@pytest.fixture
def finished(small: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs of three steps."""
    return train(small(), tmp_path_factory.mktemp("finished") / "run").path


def test_a_run_leaves_what_the_commands_after_it_need(small: MakeConfig, tmp_path: Path) -> None:
    said: list[str] = []
    config = small()
    run = train(config, tmp_path / "run", say=said.append)
    opened = Run.open(tmp_path / "run")
    assert opened == run
    assert opened.config == config
    assert opened.train_seconds > 0
    for split, classes in (("train", 9), ("validation", 3), ("test", 3)):
        items = opened.embeddings(split)
        assert items is not None
        assert len(items.classes) == classes
        assert len(items) == 6 * classes
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in metrics] == [1, 2]
    assert {"loss", "recall_at_1", "map_at_r", "opis", "lr", "seconds"} <= metrics[0].keys()
    assert scalars(tmp_path / "run", "recall_at_1") == pytest.approx(
        [entry["recall_at_1"] for entry in metrics]
    )
    assert any("recall@1" in sentence and "OPIS" in sentence for sentence in said)
    assert (tmp_path / "run" / "preprocessing.json").is_file()


def test_embeddings_are_those_of_the_best_network(small: MakeConfig, tmp_path: Path) -> None:
    run = train(small(), tmp_path / "run")
    from training.batches.batch_inputs import DeviceInputs
    from training.data.load_data import load_data
    from training.loop.embed_split import embed_items

    test = load_data(run.config.data).test
    assert test is not None
    again = embed_items(run.network(), test, DeviceInputs(run.preprocessing(), torch.device("cpu")), 7)
    stored = run.embeddings("test")
    assert stored is not None
    np.testing.assert_allclose(stored.vectors, again.vectors, atol=1e-5)


def test_a_network_learns_what_can_be_learned(small: MakeConfig, tmp_path: Path) -> None:
    config = small(schedule={"epochs": 2, "steps_per_epoch": 20}, optimizer={"lr": 0.003})
    run = train(config, tmp_path / "run")
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["recall_at_1"] > 0.9


def test_class_vectors_start_where_one_view_of_each_class_lies(small: MakeConfig, tmp_path: Path) -> None:
    model = {"backbone": "conv4", "widths": [8, 8], "embedding_dim": 16}
    starts = []
    for views in (1, 4):
        config = small(
            model={**model, "embedding_dim": 4 * views, "views": views},
            loss={"name": "proxy_anchor", "start_from_class_means": True},
            schedule={"epochs": 1, "steps_per_epoch": 1, "patience": None},
            optimizer={"lr": 1e-12},
        )
        run = train(config, tmp_path / str(views))
        found = load_checkpoint(find_latest_checkpoint(run.path / "checkpoints")).tensors
        starts.append(next(value for name, value in found.items() if name.startswith("objective/")))
    torch.testing.assert_close(starts[0], starts[1])


def test_neighbours_come_when_their_share_of_the_run_is_done(small: MakeConfig, tmp_path: Path) -> None:
    finals = {}
    for share in (0.0, 0.5, 0.9):
        config = small(
            sampler={"batch_size": 16, "items_per_class": 2, "neighbours": 1, "neighbours_from": share},
            schedule={"epochs": 4, "steps_per_epoch": 3, "patience": None, "keep": 9},
        )
        train(config, tmp_path / str(share))
        found = [
            load_checkpoint(path).tensors for path in (tmp_path / str(share)).rglob("step-*.safetensors")
        ]
        assert len(found) == 4
        begun = sorted(bool(tensors["neighbours/at_start"].any()) for tensors in found)
        finals[share] = begun
    assert finals == {0.0: [False, True, True, True], 0.5: [False, False, True, True], 0.9: [False] * 4}


def test_the_same_seed_gives_the_same_run_and_another_seed_another(small: MakeConfig, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(small(seed=seed), tmp_path / name)
    assert_equal_bit_for_bit(tmp_path / "a", tmp_path / "b")
    with pytest.raises(AssertionError):
        assert_equal_bit_for_bit(tmp_path / "a", tmp_path / "c")


def full_of_state(small: MakeConfig) -> Config:
    """Everything that a checkpoint must carry is on."""
    return small(
        data={
            "path": small().data.path,
            "augmentation": {"rotate_degrees": 10, "shift": 0.1, "rotations_as_classes": True},
        },
        loss=[
            {"name": "proxy_anchor", "start_from_class_means": True},
            {"name": "multi_similarity", "weight": {"start": 0.5, "end": 1.0}},
        ],
        model={"backbone": "conv4", "widths": [8, 8], "embedding_dim": 16, "views": 4},
        mixup="metrix",
        memory={"name": "cross_batch", "size": 40},
        sampler={"batch_size": 16, "items_per_class": 2, "neighbours": 1, "neighbours_from": 0.3},
        optimizer={"name": "muon", "ema": 0.9, "accumulate": 2},
        schedule={"epochs": 3, "steps_per_epoch": 4, "patience": None, "shape": "one_cycle"},
    )


class Stop:
    """A track that sends this process a signal when a step begins."""

    def __init__(self, number: signal.Signals, at: int) -> None:
        self.number, self.left = number, at

    def __call__(self, steps: Iterable[T], name: str, total: int | None = None) -> Iterable[T]:
        for step in steps:
            if name.startswith("epoch"):
                self.left -= 1
                if self.left == 0:
                    os.kill(os.getpid(), self.number)
            yield step


@pytest.mark.parametrize(
    ("number", "step"),
    [(signal.SIGTERM, 6), (signal.SIGINT, 8)],
    ids=["within an epoch", "at the end of an epoch"],
)
def test_a_signal_saves_and_resuming_is_the_same_run_bit_for_bit(
    small: MakeConfig, tmp_path: Path, number: signal.Signals, step: int
) -> None:
    config = full_of_state(small)
    train(config, tmp_path / "whole")
    with pytest.raises(InputError, match=f"Stopped by {number.name} after step {step}.*--resume"):
        train(config, tmp_path / "stopped", track=Stop(number, step))
    with pytest.raises(InputError, match="did not finish"):
        Run.open(tmp_path / "stopped")
    train(config, tmp_path / "stopped", resume=True)
    assert_equal_bit_for_bit(tmp_path / "whole", tmp_path / "stopped")
    whole, stopped = Run.open(tmp_path / "whole"), Run.open(tmp_path / "stopped")
    first, second = whole.embeddings("test"), stopped.embeddings("test")
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.vectors, second.vectors)
    epochs = [json.loads(line)["epoch"] for line in (stopped.path / "metrics.jsonl").read_text().splitlines()]
    assert epochs == [1, 2, 3]


KILLED = """
import os, signal, sys
from pathlib import Path
from api_schemas.config import Config
from training.loop.train import train

left = int(sys.argv[3])

def track(steps, name, total=None):
    global left
    for step in steps:
        left -= name.startswith("epoch")
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        yield step

train(Config.load(Path(sys.argv[1])), Path(sys.argv[2]), track=track)
"""


def test_a_signal_in_the_last_step_does_not_matter(small: MakeConfig, tmp_path: Path) -> None:
    run = train(small(), tmp_path / "run", track=Stop(signal.SIGTERM, 6))
    assert run.embeddings("test") is not None


def test_kill_9_loses_at_most_an_epoch_and_nothing_of_the_result(small: MakeConfig, tmp_path: Path) -> None:
    config = full_of_state(small)
    train(config, tmp_path / "whole")
    config.save(tmp_path / "config.yaml")
    step = str(np.random.default_rng().integers(1, 13))  # of 12; the first 4 are before any checkpoint
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "config.yaml"), str(tmp_path / "killed"), step]
    killed = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    train(config, tmp_path / "killed", resume=True)
    assert_equal_bit_for_bit(tmp_path / "whole", tmp_path / "killed")


def test_a_checkpoint_of_a_version_with_fewer_options_names_their_section(
    small: MakeConfig, tmp_path: Path
) -> None:
    config = small()
    then = config.model_dump(mode="json")
    del then["optimizer"]["ema"]  # which is null now
    found = Checkpoint({}, Progress(), then, "")
    with pytest.raises(ConfigError, match="was written with another 'optimizer': resume"):
        check_same_run(found, config, "", tmp_path / "step")


def test_resuming_refuses_another_configuration_and_other_data(
    small: MakeConfig, tmp_path: Path, drawings: Path
) -> None:
    with pytest.raises(InputError, match="Stopped"):
        train(small(), tmp_path / "run", track=Stop(signal.SIGTERM, 2))
    with pytest.raises(ConfigError, match=r"another 'optimizer\.lr'"):
        train(small(optimizer={"lr": 0.5}), tmp_path / "run", resume=True)
    image = sorted(drawings.rglob("*.png"))[0]
    before = image.read_bytes()
    try:
        image.write_bytes(sorted(drawings.rglob("*.png"))[-1].read_bytes())
        with pytest.raises(InputError, match="training data changed"):
            train(small(), tmp_path / "run", resume=True)
    finally:
        image.write_bytes(before)


def test_a_folder_with_a_run_is_not_overwritten(small: MakeConfig, tmp_path: Path) -> None:
    train(small(), tmp_path / "run")
    with pytest.raises(InputError, match="already holds a run"):
        train(small(), tmp_path / "run")


def test_only_the_last_checkpoints_and_the_best_are_kept(small: MakeConfig, tmp_path: Path) -> None:
    train(small(schedule={"epochs": 4, "steps_per_epoch": 1, "keep": 2}), tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run" / CHECKPOINTS_FOLDER).iterdir())
    assert names == [BEST_WEIGHTS_FILE, "step-00000003.safetensors", "step-00000004.safetensors"]


def test_patience_ends_a_run_that_does_not_get_better(small: MakeConfig, tmp_path: Path) -> None:
    said: list[str] = []
    config = small(schedule={"epochs": 50, "steps_per_epoch": 1, "patience": 1}, optimizer={"lr": 1e-12})
    run = train(config, tmp_path / "run", say=said.append)
    assert any("Stopping early" in sentence for sentence in said)
    assert len((run.path / "metrics.jsonl").read_text().splitlines()) < 20


def test_a_short_budget_ends_the_run_with_a_result(small: MakeConfig, tmp_path: Path) -> None:
    said: list[str] = []
    config = small(schedule={"epochs": 10_000, "minutes": 0.03, "patience": None})
    run = train(config, tmp_path / "run", say=said.append)
    assert run.train_seconds < 30
    assert any("planning" in sentence or "are over" in sentence for sentence in said)
    assert run.embeddings("test") is not None


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

    def break_one(run: loop.Loop, gradients: list[list[Tensor]]) -> Tensor:
        if run.state.progress.step == 4:
            groups = {one["name"]: one["params"] for one in run.state.optimizer.param_groups}
            groups[group][0].grad.view(-1)[0] = torch.nan
        return real(run, gradients)

    monkeypatch.setattr(loop.Loop, "_clip", break_one)
    said = f"gradient of the parameter group '{group}' is nan at step 5. The last good checkpoint is kept"
    with pytest.raises(InputError, match=said):
        train(small(loss="proxy_anchor"), tmp_path / "run")
    assert (tmp_path / "run" / CHECKPOINTS_FOLDER / "step-00000003.safetensors").is_file()
    assert not (tmp_path / "run" / CHECKPOINTS_FOLDER / "step-00000005.safetensors").exists()


def test_before_the_first_checkpoint_none_is_promised(
    small: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.Loop, "_clip", lambda run, gradients: torch.full((3,), torch.nan))
    with pytest.raises(InputError, match=r"is nan at step 1\. No checkpoint was written yet: lower"):
        train(small(), tmp_path / "run")


def test_a_term_that_has_not_begun_leaves_the_network_as_it_is(small: MakeConfig, tmp_path: Path) -> None:
    ramp = {"name": "multi_similarity", "weight": {"start": 0.0, "end": 1.0, "begins": 0.5}}
    schedule = {"epochs": 4, "steps_per_epoch": 2, "patience": None}
    run = train(small(loss=ramp, schedule=schedule), tmp_path / "run")
    losses = [json.loads(line)["loss"] for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert losses[:2] == [0, 0]
    assert losses[3] > 0


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
    said: list[str] = []
    config = small(
        data={"kind": "embeddings", "path": str(tmp_path / "v.npz")},
        model={"backbone": "linear", "embedding_dim": 8},
        optimizer={"lr": 1e-6},
    )
    train(config, tmp_path / "run", say=said.append)
    warned = [sentence for sentence in said if sentence.startswith("The network seems to have collapsed")]
    assert bool(warned) != sense
    assert all("Lower optimizer.lr (now 1e-06)" in sentence for sentence in warned)


def test_several_figures_can_choose_the_best_epoch_together(small: MakeConfig, tmp_path: Path) -> None:
    figures = ValidationMetrics(recall_at_1=0.9, map_at_r=0.5, eer=0.1, opis=0.002, opis_debiased=None)
    assert figures.compute_monitored_value("map_at_r") == 0.5
    assert figures.compute_monitored_value("eer") == -0.1
    assert figures.compute_monitored_value({"map_at_r": 1.0, "eer": 2.0}) == pytest.approx(0.5 - 0.2)
    with pytest.raises(InputError, match="validation gave no opis_debiased: monitor another figure"):
        figures.compute_monitored_value({"map_at_r": 1.0, "opis_debiased": 1.0})
    run = train(small(evaluation={"monitor": {"recall_at_1": 1.0, "eer": 0.5}}), tmp_path / "run")
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    heights = [line["recall_at_1"] - 0.5 * line["eer"] for line in lines]
    assert run.best_epoch == 1 + int(np.argmax(heights))
    with pytest.raises(ValueError, match="a weight above 0"):
        small(evaluation={"monitor": {"eer": 0.0}})


def test_a_figure_that_validation_cannot_give_is_refused_before_training(
    small: MakeConfig, drawings: Path, tmp_path: Path
) -> None:
    for source in sorted(drawings.rglob("[0-2].png")):  # three of each class
        target = tmp_path / "data" / source.relative_to(drawings)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    config = small(data={"path": str(tmp_path / "data")}, evaluation={"monitor": {"opis_debiased": 1.0}})
    said = r"cannot give opis_debiased\. .*at least 4 items.* Monitor map_at_r or recall_at_1 or eer, or val"
    with pytest.raises(InputError, match=said):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_resumed_epoch_counts_its_own_items_alone(small: MakeConfig, tmp_path: Path) -> None:
    config = small(schedule={"epochs": 1, "steps_per_epoch": 8, "patience": None})
    with pytest.raises(InputError, match="after step 7"):
        train(config, tmp_path / "run", track=Stop(signal.SIGTERM, 7))
    notes: list[str] = []

    class Bar(list[object]):
        def set_postfix_str(self, note: str, refresh: bool = True) -> None:
            notes.append(note)

    train(config, tmp_path / "run", resume=True, track=lambda steps, name, total=None: Bar(steps))
    assert len(notes) == 1, "one step was left"
    assert notes[0].startswith("loss ")
    assert notes[0].endswith(" items/s")


@pytest.mark.parametrize("module", [checkpoint, epoch_log], ids=["checkpoint", "metrics"])
def test_a_full_disk_is_one_sentence_and_the_run_can_go_on(
    small: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType
) -> None:
    config = small()
    train(config, tmp_path / "whole")
    written = 0

    def full(path: Path, content: bytes) -> None:
        nonlocal written
        written += 1
        if written > 1:
            raise OSError(28, "No space left on device")
        write_atomically(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomically", full)
        with pytest.raises(InputError, match=r"run: no space left on its disk.*--resume"):
            train(config, tmp_path / "run")
    train(config, tmp_path / "run", resume=True)
    assert_equal_bit_for_bit(tmp_path / "whole", tmp_path / "run")


def test_memory_that_runs_out_is_one_sentence(small: MakeConfig, tmp_path: Path) -> None:
    huge = {"backbone": "mlp", "hidden": [2**43 // 144]}  # tens of TiB of weights
    with pytest.raises(InputError, match=r"out of memory; .*intact\. Lower sampler\.batch_size"):
        train(small(model=huge), tmp_path / "run")


def test_resuming_where_no_run_is_would_start_anew_and_is_refused(small: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run to go on with: leave --resume out"):
        train(small(), tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        ({"batch_size": 100_000}, "batch_size: 100000 items in a batch, but training has 54: set at most 54"),
        ({"batch_size": 200, "items_per_class": 50}, "batch_size: 200 items"),
        ({"batch_size": 100, "items_per_class": 50}, "items_per_class: 50, but the largest .* has 6 items"),
    ],
)
def test_batches_that_the_data_cannot_fill_are_refused_before_an_image_is_decoded(
    small: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: dict[str, int], said: str
) -> None:
    monkeypatch.setattr(image_files.ImageFile, "open", None)
    with pytest.raises(ConfigError, match=said):
        train(small(sampler=sampler), tmp_path / "run")


def test_data_that_changes_after_it_was_read_changes_nothing(
    small: MakeConfig, drawings: Path, tmp_path: Path
) -> None:
    shutil.copytree(drawings, tmp_path / "data")
    config = small(data={"path": str(tmp_path / "data")})

    def remove(steps: Iterable[T], name: str, total: int | None = None) -> Iterable[T]:
        if name.startswith("epoch"):
            shutil.rmtree(tmp_path / "data", ignore_errors=True)
        return steps

    train(config, tmp_path / "run", track=remove)
    assert not (tmp_path / "data").exists()
    train(small(), tmp_path / "whole")
    assert_equal_bit_for_bit(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "said"),
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
    small: MakeConfig, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    changes = {"data": {"path": str(tmp_path / "not there")}, **changes}
    with pytest.raises(ConfigError, match=said):
        train(small(**changes), tmp_path / "run")


def test_a_column_may_be_called_file(small: MakeConfig, drawings: Path, tmp_path: Path) -> None:
    lines = [f"{path},{path.parent.name},{path.stem}" for path in sorted(drawings.rglob("*.png"))]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,file", *lines]))
    stored = train(small(data={"path": str(tmp_path / "list.csv")}), tmp_path / "run").embeddings("test")
    assert stored is not None
    assert set(stored.metadata["file"].tolist()) <= set(range(6)) | set("012345")


def test_a_damaged_checkpoint_is_named(small: MakeConfig, tmp_path: Path) -> None:
    train(small(), tmp_path / "run")
    best = tmp_path / "run" / CHECKPOINTS_FOLDER / BEST_WEIGHTS_FILE
    best.write_bytes(best.read_bytes()[:100])
    with pytest.raises(InputError, match=r"best\.safetensors cannot be read"):
        Run.open(tmp_path / "run").network()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"5", b"\xff", b'{"train_seconds": "x", "best_epoch": 1}']
)
def test_a_damaged_summary_is_named_and_written_anew(
    small: MakeConfig, tmp_path: Path, finished: Path, content: bytes
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "run.json").write_bytes(content)
    with pytest.raises(
        InputError, match=r"run\.json is damaged: `limen train \.\.\. --resume` writes it anew"
    ):
        Run.open(run)
    if not content:
        assert train(small(), run, resume=True).best_epoch == Run.open(finished).best_epoch


def test_a_torn_last_line_of_the_metrics_is_dropped(small: MakeConfig, tmp_path: Path) -> None:
    config = small(schedule={"epochs": 3, "steps_per_epoch": 3, "patience": None})
    with pytest.raises(InputError, match="Stopped"):
        train(config, tmp_path / "run", track=Stop(signal.SIGTERM, 8))
    metrics = tmp_path / "run" / "metrics.jsonl"
    first, second = metrics.read_bytes().splitlines()
    metrics.write_bytes(first + b"\n" + second[:20])
    train(config, tmp_path / "run", resume=True)
    assert [json.loads(line)["epoch"] for line in metrics.read_text().splitlines()] == [1, 3]


@pytest.mark.parametrize("damage", [b"{\n", b"[]\n", b"\xff\x00\n", b'{"epoch": "x"}\n', b"\n"])
def test_damaged_metrics_are_named_before_training(
    small: MakeConfig, tmp_path: Path, finished: Path, damage: bytes
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    metrics = run / "metrics.jsonl"
    metrics.write_bytes(damage + metrics.read_bytes())
    with pytest.raises(
        InputError, match=r"metrics\.jsonl: line 1 is damaged: remove it and go on with --resume"
    ):
        train(small(), run, resume=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [("progress", "{"), ("progress", "[]"), ("config", "5"), ("config", "{"), ("fingerprint", None)],
)
def test_a_checkpoint_with_a_damaged_header_is_named(
    small: MakeConfig, tmp_path: Path, finished: Path, key: str, value: str | None
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    latest = find_latest_checkpoint(run / CHECKPOINTS_FOLDER)
    assert latest is not None
    with safetensors.safe_open(latest, framework="pt") as file:
        header = {**file.metadata(), key: value}
    tensors = load_checkpoint(latest).tensors
    plain = {name: text for name, text in header.items() if text is not None}
    latest.write_bytes(safetensors.torch.save(tensors, metadata=plain))
    with pytest.raises(InputError, match=rf"{latest.name} cannot be read as a checkpoint"):
        train(small(), run, resume=True)


@pytest.mark.parametrize("name", [BEST_WEIGHTS_FILE, "step-00000006.safetensors"])
def test_a_file_of_other_tensors_is_named(
    small: MakeConfig, tmp_path: Path, finished: Path, name: str
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    path = run / CHECKPOINTS_FOLDER / name
    content = path.read_bytes()
    assert b"head.weight" in content
    path.write_bytes(content.replace(b"head.weight", b"head.weighd"))
    with pytest.raises(InputError, match=rf"{name} does not hold the tensors of this network: it is damaged"):
        train(small(), run, resume=True)


def test_what_a_killed_run_left_half_written_is_removed(
    small: MakeConfig, tmp_path: Path, finished: Path
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    left = [
        run / ".config.yaml.0123abcd.tmp",
        run / CHECKPOINTS_FOLDER / ".step-00000009.safetensors.89abcdef.tmp",
        run / "embeddings" / ".test.npz.00000000.tmp",
    ]
    others = [
        run / ".mine.tmp",
        run / CHECKPOINTS_FOLDER / "step.0123abcd.tmp",
        run / "encoder" / left[0].name,
    ]
    for path in [*left, *others]:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    with pytest.raises(InputError, match="already holds a run"):
        train(small(), run)
    assert all(path.exists() for path in left)
    train(small(), run, resume=True)
    assert not [path for path in left if path.exists()]
    assert all(path.exists() for path in others)


def test_ids_and_the_column_that_leaves_pairs_out_must_be_those_of_the_run(
    small: MakeConfig, drawings: Path, tmp_path: Path
) -> None:
    files = sorted(drawings.rglob("*.png"))

    def write(camera: str, first: Path) -> None:
        rows = [f"{path},{path.parent.name},{camera}{n % 2},x" for n, path in enumerate([first, *files[1:]])]
        (tmp_path / "list.csv").write_text("\n".join(["path,label,camera,other", *rows]))

    config = small(data={"path": str(tmp_path / "list.csv")}, evaluation={"exclude_same": "camera"})
    write("a", files[0])
    with pytest.raises(InputError, match="Stopped"):
        train(config, tmp_path / "run", track=Stop(signal.SIGTERM, 2))
    write("b", files[0])
    with pytest.raises(InputError, match="training data changed"):
        train(config, tmp_path / "run", resume=True)
    renamed = Path(shutil.copyfile(files[0], tmp_path / "renamed.png"))
    write("a", renamed)
    with pytest.raises(InputError, match="training data changed"):
        train(config, tmp_path / "run", resume=True)
    write("a", files[0])
    train(config, tmp_path / "run", resume=True)


def test_a_checkpoint_without_a_sum_of_ids_is_gone_on_with(
    small: MakeConfig, tmp_path: Path, finished: Path
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    latest = find_latest_checkpoint(run / CHECKPOINTS_FOLDER)
    assert latest is not None
    with safetensors.safe_open(latest, framework="pt") as file:
        header = file.metadata()
    header["fingerprint"] = header["fingerprint"].partition("+")[0]
    latest.write_bytes(safetensors.torch.save(load_checkpoint(latest).tensors, metadata=header))
    train(small(), run, resume=True)
    header["fingerprint"] = header["fingerprint"][1:] + "0"
    latest.write_bytes(safetensors.torch.save(load_checkpoint(latest).tensors, metadata=header))
    with pytest.raises(InputError, match="training data changed"):
        train(small(), run, resume=True)


def test_folders_that_are_no_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run folder"):
        Run.open(tmp_path)
