"""Damaged files of a run, each named in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from common.errors import InputError
from tests.training.runs import MakeConfig
from training.loop.checkpoint import find_latest_checkpoint, load_checkpoint
from training.loop.train import train
from training.run_folder.layout import BEST_WEIGHTS_FILE, CHECKPOINTS_FOLDER
from training.run_folder.run_folder import Run


def test_a_damaged_checkpoint_is_named(run_folder: Path) -> None:
    best = run_folder / CHECKPOINTS_FOLDER / BEST_WEIGHTS_FILE
    best.write_bytes(best.read_bytes()[:100])
    with pytest.raises(InputError, match=r"best\.safetensors cannot be read"):
        Run.open(run_folder).load_network()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"5", b"\xff", b'{"train_seconds": "x", "best_epoch": 1}']
)
def test_a_damaged_summary_is_named_and_written_anew(
    small: MakeConfig, run_folder: Path, finished: Path, content: bytes
) -> None:
    (run_folder / "run.json").write_bytes(content)
    with pytest.raises(
        InputError, match=r"run\.json is damaged: `limen train \.\.\. --resume` writes it again"
    ):
        Run.open(run_folder)
    if not content:
        assert train(small(), run_folder, resume=True).best_epoch == Run.open(finished).best_epoch


@pytest.mark.parametrize("damage", [b"{\n", b"[]\n", b"\xff\x00\n", b'{"epoch": "x"}\n', b"\n"])
def test_damaged_metrics_are_named_at_once(small: MakeConfig, run_folder: Path, damage: bytes) -> None:
    metrics = run_folder / "metrics.jsonl"
    metrics.write_bytes(damage + metrics.read_bytes())
    with pytest.raises(
        InputError, match=r"metrics\.jsonl: line 1 is damaged: remove it and go on with --resume"
    ):
        train(small(), run_folder, resume=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [("progress", "{"), ("progress", "[]"), ("config", "5"), ("config", "{"), ("fingerprint", None)],
)
def test_a_checkpoint_with_a_damaged_header_is_named(
    small: MakeConfig, run_folder: Path, key: str, value: str | None
) -> None:
    latest = find_latest_checkpoint(run_folder / CHECKPOINTS_FOLDER)
    assert latest is not None
    with safetensors.safe_open(latest, framework="pt") as file:
        header = {**file.metadata(), key: value}
    tensors = load_checkpoint(latest).tensors
    plain = {name: text for name, text in header.items() if text is not None}
    latest.write_bytes(safetensors.torch.save(tensors, metadata=plain))
    with pytest.raises(InputError, match=rf"{latest.name} cannot be read as a checkpoint"):
        train(small(), run_folder, resume=True)


@pytest.mark.parametrize("name", [BEST_WEIGHTS_FILE, "step-00000006.safetensors"])
def test_a_file_of_other_tensors_is_named(small: MakeConfig, run_folder: Path, name: str) -> None:
    path = run_folder / CHECKPOINTS_FOLDER / name
    content = path.read_bytes()
    assert b"head.weight" in content
    path.write_bytes(content.replace(b"head.weight", b"head.weighd"))
    with pytest.raises(InputError, match=rf"{name} does not hold the tensors of this network: it is damaged"):
        train(small(), run_folder, resume=True)


# what earlier versions kept of these losses with the network, and what they did not know yet
OLD: dict[str, tuple[dict[str, torch.Tensor], tuple[str, ...]]] = {
    "partial_fc": ({"centers": torch.zeros(4, 64), "velocity": torch.zeros(4, 64)}, ()),
    "z_loss": ({}, ("mix", "shift", "moments", "total", "steps")),
}


@pytest.mark.parametrize("loss", OLD)
def test_a_checkpoint_of_an_earlier_form_of_a_loss_is_refused(
    small: MakeConfig, tmp_path: Path, loss: str
) -> None:
    config = small(loss=loss, schedule={"epochs": 1, "steps_per_epoch": 1, "minutes": None})
    train(config, tmp_path / "run")
    latest = find_latest_checkpoint(tmp_path / "run" / CHECKPOINTS_FOLDER)
    assert latest is not None
    with safetensors.safe_open(latest, framework="pt") as file:
        header = file.metadata()
    tensors, (further, unknown) = load_checkpoint(latest).tensors, OLD[loss]
    prefix = "objective/loss.losses.0."
    old = {name: value for name, value in tensors.items() if name.removeprefix(prefix) not in unknown}
    assert len(tensors) - len(old) == len(unknown)
    old |= {f"{prefix}{name}": value for name, value in further.items()}
    latest.write_bytes(safetensors.torch.save(old, metadata=header))
    with pytest.raises(InputError, match=r"another version wrote it; train again, in another --out\.$"):
        train(config, tmp_path / "run", resume=True)


def test_folders_that_are_no_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run folder"):
        Run.open(tmp_path)
