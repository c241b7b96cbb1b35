"""Whole runs in small: what a run leaves behind, and what decides how it goes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboardX.proto.event_pb2 import Event

from common.errors import InputError
from tests.training.runs import MakeConfig, T, assert_equal_bit_for_bit
from training.loop.checkpoint import find_latest_checkpoint, load_checkpoint
from training.loop.train import train
from training.loop.validation_metrics import ValidationMetrics
from training.run_folder.layout import BEST_WEIGHTS_FILE, CHECKPOINTS_FOLDER, TENSORBOARD_FOLDER
from training.run_folder.run_folder import Run


def read_scalars(run: Path, name: str) -> list[float]:
    """TensorBoard's scalars, read back from the event files."""
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


def test_a_run_leaves_what_the_commands_after_it_need(small: MakeConfig, tmp_path: Path) -> None:
    messages: list[str] = []
    config = small()
    run = train(config, tmp_path / "run", say=messages.append)
    opened = Run.open(tmp_path / "run")
    assert opened == run
    assert opened.config == config
    assert opened.train_seconds > 0
    for split, classes in (("train", 9), ("validation", 3), ("test", 3)):
        items = opened.load_embeddings(split)
        assert items is not None
        assert len(items.classes) == classes
        assert len(items) == 6 * classes
    margins = opened.load_item_margins()
    assert margins is not None
    assert margins.shape == (54,)
    assert np.isfinite(margins).any()
    assert np.nanmax(np.abs(margins)) <= 2
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in metrics] == [1, 2]
    assert {"loss", "recall_at_1", "map_at_r", "opis", "lr", "seconds"} <= metrics[0].keys()
    assert read_scalars(tmp_path / "run", "recall_at_1") == pytest.approx(
        [entry["recall_at_1"] for entry in metrics]
    )
    assert any("recall@1" in sentence and "OPIS" in sentence for sentence in messages)
    assert (tmp_path / "run" / "preprocessing.json").is_file()


def test_embeddings_are_those_of_the_best_network(finished: Path) -> None:
    run = Run.open(finished)
    from training.batches.batch_inputs import DeviceInputs
    from training.data.load_data import load_data
    from training.loop.embed_split import embed_items

    test = load_data(run.config.data).test
    assert test is not None
    again = embed_items(
        run.load_network(), test, DeviceInputs(run.load_preprocessing(), torch.device("cpu")), 7
    )
    stored = run.load_embeddings("test")
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
        tensors = load_checkpoint(find_latest_checkpoint(run.path / "checkpoints")).tensors
        starts.append(next(value for name, value in tensors.items() if name.startswith("objective/")))
    torch.testing.assert_close(starts[0], starts[1])


def test_neighbours_come_when_their_fraction_of_the_run_is_done(small: MakeConfig, tmp_path: Path) -> None:
    finals = {}
    for fraction in (0.0, 0.5, 0.9):
        config = small(
            sampler={"batch_size": 16, "items_per_class": 2, "neighbours": 1, "neighbours_from": fraction},
            schedule={"epochs": 4, "steps_per_epoch": 3, "patience": None, "keep": 9},
        )
        train(config, tmp_path / str(fraction))
        checkpoints = [
            load_checkpoint(path).tensors for path in (tmp_path / str(fraction)).rglob("step-*.safetensors")
        ]
        assert len(checkpoints) == 4
        begun = sorted(bool(tensors["neighbours/at_start"].any()) for tensors in checkpoints)
        finals[fraction] = begun
    assert finals == {0.0: [False, True, True, True], 0.5: [False, False, True, True], 0.9: [False] * 4}


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    small: MakeConfig, finished: Path, tmp_path: Path
) -> None:
    for name, seed in (("same", 0), ("other", 1)):
        train(small(seed=seed), tmp_path / name)
    assert_equal_bit_for_bit(finished, tmp_path / "same")
    with pytest.raises(AssertionError):
        assert_equal_bit_for_bit(finished, tmp_path / "other")


def test_only_the_last_checkpoints_and_the_best_are_kept(small: MakeConfig, tmp_path: Path) -> None:
    train(small(schedule={"epochs": 4, "steps_per_epoch": 1, "keep": 2}), tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run" / CHECKPOINTS_FOLDER).iterdir())
    assert names == [BEST_WEIGHTS_FILE, "step-00000003.safetensors", "step-00000004.safetensors"]


def test_patience_ends_a_run_that_does_not_get_better(small: MakeConfig, tmp_path: Path) -> None:
    messages: list[str] = []
    config = small(schedule={"epochs": 50, "steps_per_epoch": 1, "patience": 1}, optimizer={"lr": 1e-12})
    run = train(config, tmp_path / "run", say=messages.append)
    assert any("Stopping early" in sentence for sentence in messages)
    assert len((run.path / "metrics.jsonl").read_text().splitlines()) < 20


def test_a_short_budget_ends_the_run_with_a_result(small: MakeConfig, tmp_path: Path) -> None:
    messages: list[str] = []
    config = small(schedule={"epochs": 10_000, "minutes": 0.03, "patience": None})
    run = train(config, tmp_path / "run", say=messages.append)
    assert run.train_seconds < 30
    assert any("planning" in sentence or "are over" in sentence for sentence in messages)
    assert run.load_embeddings("test") is not None


def test_a_term_that_has_not_begun_leaves_the_network_as_it_is(small: MakeConfig, tmp_path: Path) -> None:
    ramp = {"name": "multi_similarity", "weight": {"start": 0.0, "end": 1.0, "begins": 0.5}}
    schedule = {"epochs": 4, "steps_per_epoch": 2, "patience": None}
    run = train(small(loss=ramp, schedule=schedule), tmp_path / "run")
    losses = [json.loads(line)["loss"] for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert losses[:2] == [0, 0]
    assert losses[3] > 0


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


def test_data_that_changes_after_it_was_read_changes_nothing(
    small: MakeConfig, finished: Path, drawings: Path, tmp_path: Path
) -> None:
    shutil.copytree(drawings, tmp_path / "data")
    config = small(data={"path": str(tmp_path / "data")})

    def remove(steps: Iterable[T], name: str, total: int | None = None) -> Iterable[T]:
        if name.startswith("epoch"):
            shutil.rmtree(tmp_path / "data", ignore_errors=True)
        return steps

    train(config, tmp_path / "run", track=remove)
    assert not (tmp_path / "data").exists()
    assert_equal_bit_for_bit(tmp_path / "run", finished)


def test_a_column_may_be_called_file(small: MakeConfig, drawings: Path, tmp_path: Path) -> None:
    lines = [f"{path},{path.parent.name},{path.stem}" for path in sorted(drawings.rglob("*.png"))]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,file", *lines]))
    stored = train(small(data={"path": str(tmp_path / "list.csv")}), tmp_path / "run").load_embeddings("test")
    assert stored is not None
    assert set(stored.metadata["file"].tolist()) <= set(range(6)) | set("012345")
