"""OPIS by several processes: whole numbers equal to the last bit, and the figures of one sweep."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from common.errors import ConfigError
from embeddings.embedding_set import EmbeddingSet
from evaluation.metrics.opis import OpisSettings, measure_consistency
from evaluation.pairs.pairs import arrange
from evaluation.pairs.sweep import sweep_pairs
from evaluation.pairs.threshold_levels import count_accepted_per_class
from evaluation.sharding import sharded_opis
from evaluation.sharding.exchange import FolderExchange
from evaluation.sharding.sharded_opis import ShardedOpis, measure_sharded_opis


def make_items(seed: int = 0, classes: int = 60) -> EmbeddingSet:
    """Classes of one to twelve items, some of them copies, others with ties."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 13, classes)
    labels = np.repeat(np.arange(classes), sizes)
    rows = rng.normal(size=(classes, 8))[labels] + rng.uniform(0.2, 0.9) * rng.normal(size=(len(labels), 8))
    rows[5:9] = rows[5]
    return EmbeddingSet.from_arrays(np.round(rows, 1) + 0.01, labels)


def measure_together(items: EmbeddingSet, processes: int, folder: Path) -> list[ShardedOpis]:
    """What each of several processes finds, each in a thread."""

    def work(rank: int) -> ShardedOpis:
        exchange = FolderExchange(rank, processes, folder)
        measured = measure_sharded_opis(arrange(items), exchange)
        exchange.close()
        return measured

    with ThreadPoolExecutor(processes) as threads:
        return list(threads.map(work, range(processes)))


def list_numbers(measured: ShardedOpis) -> list[object]:
    grid = measured.grid
    arrays = (grid.uniform, grid.log_far, measured.genuine, measured.impostor)
    return [grid.distance, measured.opis, measured.opis_logfar, *(array.tobytes() for array in arrays)]


def test_one_two_and_four_processes_count_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.pairs.pairs.BLOCK_ROWS", 64)
    monkeypatch.setattr("evaluation.pairs.pairs.BLOCK_COLUMNS", 96)
    items = make_items()
    (alone,) = measure_together(items, 1, tmp_path / "1")
    for processes in (2, 4):
        for measured in measure_together(items, processes, tmp_path / str(processes)):
            assert list_numbers(measured) == list_numbers(alone)


@pytest.mark.parametrize("seed", range(3))
def test_the_figures_are_those_of_one_sweep(seed: int) -> None:
    pairs = arrange(make_items(seed))
    measured = measure_sharded_opis(pairs, FolderExchange())
    consistency, _ = measure_consistency(sweep_pairs(pairs), OpisSettings(), seed=0, debias=False)
    assert measured.grid.uniform.tolist() == consistency.thresholds
    assert measured.grid.distance == consistency.calibration_range.distance
    assert (measured.opis, measured.opis_logfar) == (consistency.opis, consistency.opis_logfar)
    thresholds = np.concatenate([measured.grid.uniform, measured.grid.log_far])
    genuine, impostor = count_accepted_per_class(pairs, thresholds)
    assert np.array_equal(measured.genuine, genuine)
    assert np.array_equal(measured.impostor, impostor)


def test_ranks_are_those_of_sorted_scores() -> None:
    pairs = arrange(make_items(5, classes=20))
    shard = sharded_opis._Shard(pairs, FolderExchange(), lambda steps, name, total=None: steps)
    every = np.sort(np.concatenate([b.scores[pairs.mask_impostors(b)] for b in pairs.iterate_blocks()]))[::-1]
    ranks = np.array([1, 2, 7, len(every) // 2, len(every)])
    assert np.array_equal(shard.find_scores(ranks), every[ranks - 1])
    scores = np.array([-1, -0.5, -0.0, 0.0, 1e-30, 0.5, 1], dtype=np.float32)
    keys = sharded_opis._to_keys(scores)
    assert list(keys) == sorted(keys)
    assert np.array_equal(sharded_opis._from_keys(keys), scores)


def test_processes_need_a_folder_and_a_rank() -> None:
    with pytest.raises(ConfigError, match="--exchange"):
        FolderExchange.from_environment({"RANK": "1", "WORLD_SIZE": "2"}, None)
    with pytest.raises(ConfigError, match="ranks go from 0 to 1"):
        FolderExchange(2, 2, Path("unused"))


@pytest.mark.full
def test_the_command_under_torchrun(tmp_path: Path) -> None:
    items = make_items(1, classes=200)
    np.savez(tmp_path / "vectors.npz", embeddings=items.vectors, labels=items.labels)
    program = Path(sys.executable).with_name("limen")
    for processes in (1, 2):
        subprocess.run(
            [
                *(Path(sys.executable).with_name("torchrun"), "--standalone", "--no-python"),
                *("--nproc-per-node", str(processes), program, "opis", "vectors.npz"),
                *("--exchange", "exchange", "--out", f"{processes}.npz"),
            ],
            cwd=tmp_path,
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    one, two = (np.load(tmp_path / f"{processes}.npz") for processes in (1, 2))
    for name in ("thresholds", "genuine", "impostor"):
        assert one[name].tobytes() == two[name].tobytes()
