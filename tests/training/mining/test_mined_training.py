"""Training on mined negatives: from a file, and mined again while it trains."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api_schemas.config import Config
from common.errors import ConfigError, InputError
from tests.training.runs import Stop, assert_equal_bit_for_bit
from training.batches.mined_batches import MinedTriplets
from training.loop.train import train


def build_config(folder: Path, mining: dict[str, Any], **sections: Any) -> Config:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(20), 6)
    vectors = (random.normal(size=(20, 8))[labels] + 0.6 * random.normal(size=(120, 8))).astype(np.float32)
    ids = np.array([f"item-{row}" for row in range(120)])
    np.savez(folder / "items.npz", embeddings=vectors, labels=labels, ids=ids)
    return Config.model_validate(
        {
            "data": {"kind": "embeddings", "path": str(folder / "items.npz")},
            "model": {"backbone": "linear", "embedding_dim": 8},
            "mining": mining,
            "sampler": {"batch_size": 24, "items_per_class": 3},
            "schedule": {"epochs": 4, "steps_per_epoch": 2, "patience": None},
            **sections,
        }
    )


def test_batches_are_whole_triplets_of_all_anchors() -> None:
    mined = MinedTriplets(30, 2)
    positives = (np.arange(30) + 10) % 30
    positives[29] = -1
    negatives = np.stack([(np.arange(30) + 1) % 30, (np.arange(30) + 2) % 30], axis=1)
    negatives[20:] = -1
    mined.set_rows(positives, negatives)
    batches = mined.draw_batches(12, 30, seed=0, epoch=1)
    assert all(len(batch) == 12 == len(set(batch.tolist())) for batch in batches)
    first = batches[0].tolist()
    assert positives[first[0]] == first[1]
    assert set(first[2:4]) <= set(negatives[first[0]].tolist()) | set(range(30))
    assert first[2] == negatives[first[0], 0]
    seen = set(np.concatenate(batches).tolist())
    assert seen == set(range(30))
    again = mined.draw_batches(12, 30, seed=0, epoch=1)
    assert [batch.tolist() for batch in again] == [batch.tolist() for batch in batches]


def test_a_run_mines_again_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    config = build_config(tmp_path, {"every": 2, "negatives": 2, "top": 10, "margin": 0.02})
    said: list[str] = []
    train(config, tmp_path / "run", say=said.append)
    assert sum(sentence.startswith("Mined: ") for sentence in said) == 2
    with pytest.raises(InputError, match="SIGTERM after step"):
        train(config, tmp_path / "stopped", track=Stop(signal.SIGTERM, at=6))  # between two minings
    train(config, tmp_path / "stopped", resume=True)
    assert_equal_bit_for_bit(tmp_path / "run", tmp_path / "stopped")


def write_triplets(path: Path, rows: list[tuple[str, str, str]]) -> None:
    pq.write_table(
        pa.table(dict(zip(("anchor", "positive", "negative"), zip(*rows, strict=True), strict=True))), path
    )


def test_triplets_of_a_file_make_the_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"file": str(tmp_path / "t.parquet"), "negatives": 1}
    config = build_config(
        tmp_path,
        settings,
        data={
            "kind": "embeddings",
            "path": str(tmp_path / "items.npz"),
            "split": {"train": 1, "validation": 0, "test": 0},
        },
    )
    rows = [(f"item-{6 * c}", f"item-{6 * c + 1}", f"item-{(6 * c + 6) % 120}") for c in range(20)]
    write_triplets(tmp_path / "t.parquet", rows)
    drawn: list[set[int]] = []
    real = MinedTriplets.draw_batches

    def watch(self: MinedTriplets, *arguments: int) -> Any:
        batches = real(self, *arguments)
        drawn.extend(set(batch.tolist()) for batch in batches)
        return batches

    monkeypatch.setattr(MinedTriplets, "draw_batches", watch)
    train(config, tmp_path / "run")
    assert set().union(*drawn) <= {6 * c + k for c in range(20) for k in (0, 1)}
    write_triplets(tmp_path / "t.parquet", [*rows, ("item-0", "item-1", "who")])
    with pytest.raises(InputError, match="names item 'who', which is not among the training items"):
        train(config, tmp_path / "other")


@pytest.mark.parametrize(
    ("mining", "sentence"),
    [
        ({}, "give either file, triplets of `limen mine`, or every"),
        ({"every": 2, "file": "x"}, "give either file"),
        ({"file": "x", "margin": 0.1}, "margin belongs to every"),
        ({"every": 1, "skip": 48}, "top must be at least skip"),
    ],
)
def test_rules_that_cannot_work_are_refused(tmp_path: Path, mining: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build_config(tmp_path, mining)


def test_the_sampler_must_leave_the_batches_to_mining(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mining makes the batches itself"):
        build_config(tmp_path, {"every": 1}, sampler={"name": "shuffled"})


def test_a_file_without_triplets_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": ["x"], "b": ["y"]}), tmp_path / "pairs.parquet")
    config = build_config(tmp_path, {"file": str(tmp_path / "pairs.parquet")})
    with pytest.raises((InputError, ConfigError), match="has no column 'anchor'"):
        train(config, tmp_path / "run")
