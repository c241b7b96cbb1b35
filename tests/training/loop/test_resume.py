"""Runs that are stopped, killed or changed, and go on bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

from api_schemas.config import Config
from common.errors import ConfigError, InputError
from tests.conftest import ROOT
from tests.training.runs import MakeConfig, Stop, assert_equal_bit_for_bit
from training.loop.checkpoint import Checkpoint, check_same_run, find_latest_checkpoint, load_checkpoint
from training.loop.train import train
from training.loop.train_state import Progress
from training.run_folder.layout import CHECKPOINTS_FOLDER
from training.run_folder.run_folder import Run

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


@pytest.fixture(scope="module")
def stateful(small: MakeConfig) -> Config:
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


@pytest.fixture(scope="module")
def uninterrupted(stateful: Config, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """That run, never stopped."""
    return train(stateful, tmp_path_factory.mktemp("uninterrupted") / "run")


@pytest.mark.parametrize(
    ("number", "step"),
    [(signal.SIGTERM, 6), (signal.SIGINT, 8)],
    ids=["within an epoch", "at the end of an epoch"],
)
def test_a_signal_saves_and_resuming_is_the_same_run_bit_for_bit(
    stateful: Config, uninterrupted: Run, tmp_path: Path, number: signal.Signals, step: int
) -> None:
    with pytest.raises(InputError, match=f"Stopped by {number.name} after step {step}.*--resume"):
        train(stateful, tmp_path / "stopped", track=Stop(number, step))
    with pytest.raises(InputError, match="did not finish"):
        Run.open(tmp_path / "stopped")
    stopped = train(stateful, tmp_path / "stopped", resume=True)
    assert_equal_bit_for_bit(uninterrupted.path, stopped.path)
    first, second = uninterrupted.load_embeddings("test"), stopped.load_embeddings("test")
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.vectors, second.vectors)
    epochs = [json.loads(line)["epoch"] for line in (stopped.path / "metrics.jsonl").read_text().splitlines()]
    assert epochs == [1, 2, 3]


def test_a_signal_in_the_last_step_does_not_matter(small: MakeConfig, tmp_path: Path) -> None:
    run = train(small(), tmp_path / "run", track=Stop(signal.SIGTERM, 6))
    assert run.load_embeddings("test") is not None


def test_kill_9_loses_at_most_an_epoch_and_nothing_of_the_result(
    stateful: Config, uninterrupted: Run, tmp_path: Path
) -> None:
    stateful.save(tmp_path / "config.yaml")
    step = str(np.random.default_rng().integers(1, 13))  # of 12; the first 4 are before any checkpoint
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "config.yaml"), str(tmp_path / "killed"), step]
    killed = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    train(stateful, tmp_path / "killed", resume=True)
    assert_equal_bit_for_bit(uninterrupted.path, tmp_path / "killed")


def test_a_checkpoint_of_a_version_with_fewer_options_had_their_defaults(
    small: MakeConfig, tmp_path: Path
) -> None:
    then = small().model_dump(mode="json")
    del then["optimizer"]["ema"]
    checkpoint = Checkpoint({}, Progress(), then, "")
    check_same_run(checkpoint, small(), "", tmp_path / "step")
    with pytest.raises(ConfigError, match=r"was written with another 'optimizer\.ema': resume"):
        check_same_run(checkpoint, small(optimizer={"ema": 0.9}), "", tmp_path / "step")


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


def test_resuming_where_no_run_is_would_start_anew_and_is_refused(small: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run to go on with: leave --resume out"):
        train(small(), tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


def test_a_torn_last_line_of_the_metrics_is_dropped(small: MakeConfig, tmp_path: Path) -> None:
    config = small(schedule={"epochs": 3, "steps_per_epoch": 3, "patience": None})
    with pytest.raises(InputError, match="Stopped"):
        train(config, tmp_path / "run", track=Stop(signal.SIGTERM, 8))
    metrics = tmp_path / "run" / "metrics.jsonl"
    first, second = metrics.read_bytes().splitlines()
    metrics.write_bytes(first + b"\n" + second[:20])
    train(config, tmp_path / "run", resume=True)
    assert [json.loads(line)["epoch"] for line in metrics.read_text().splitlines()] == [1, 3]


def test_what_a_killed_run_left_half_written_is_removed(small: MakeConfig, run_folder: Path) -> None:
    left = [
        run_folder / ".config.yaml.0123abcd.tmp",
        run_folder / CHECKPOINTS_FOLDER / ".step-00000009.safetensors.89abcdef.tmp",
        run_folder / "embeddings" / ".test.npz.00000000.tmp",
    ]
    foreign = [
        run_folder / ".mine.tmp",
        run_folder / CHECKPOINTS_FOLDER / "step.0123abcd.tmp",
        run_folder / "encoder" / left[0].name,
    ]
    for path in [*left, *foreign]:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    with pytest.raises(InputError, match="already holds a run"):
        train(small(), run_folder)
    assert all(path.exists() for path in left)
    train(small(), run_folder, resume=True)
    assert not [path for path in left if path.exists()]
    assert all(path.exists() for path in foreign)


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


def test_a_checkpoint_without_a_sum_of_ids_is_gone_on_with(small: MakeConfig, run_folder: Path) -> None:
    latest = find_latest_checkpoint(run_folder / CHECKPOINTS_FOLDER)
    assert latest is not None
    with safetensors.safe_open(latest, framework="pt") as file:
        header = file.metadata()
    header["fingerprint"] = header["fingerprint"].partition("+")[0]
    latest.write_bytes(safetensors.torch.save(load_checkpoint(latest).tensors, metadata=header))
    train(small(), run_folder, resume=True)
    header["fingerprint"] = header["fingerprint"][1:] + "0"
    latest.write_bytes(safetensors.torch.save(load_checkpoint(latest).tensors, metadata=header))
    with pytest.raises(InputError, match="training data changed"):
        train(small(), run_folder, resume=True)
