"""Recordings in pieces: in memory or in a cache on disk the same, and no more memory for more of them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from api_schemas.config import Config
from api_schemas.data_config import DataConfig
from common.errors import InputError
from tests.training.runs import assert_equal_bit_for_bit
from tests.voices import write_voices
from training.data.decoded import file_store
from training.data.decoded.pieces import Pieces
from training.data.items import Splits
from training.data.load_data import load_data
from training.loop.train import train
from training.run_folder.run_folder import compute_fingerprint

SPEAKERS, EACH, PIECE = 10, 4, 20


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voices(tmp_path_factory.mktemp("data") / "voices", SPEAKERS, EACH, seconds=1.0)


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIMEN_CACHE", str(tmp_path / "caches"))
    return tmp_path / "caches" / "decoded"


def configure(voices: Path, **keys: object) -> DataConfig:
    audio = {"mels": 8, "piece": PIECE, "most_pieces": 6}
    return DataConfig.model_validate({"kind": "audio", "path": str(voices), "audio": audio, **keys})


def test_of_a_recording_a_piece_at_random_is_shown_and_never_another_one_s() -> None:
    counts = [4, 1, 2]
    recordings = [
        np.full((count, 1, 2, 5), 10 * row, np.float32) + np.arange(count)[:, None, None, None]
        for row, count in enumerate(counts)
    ]
    pieces = Pieces.hold(recordings, (1, 2, 5))
    assert pieces.shape == (3, 4, 1, 2, 5)
    np.testing.assert_array_equal(pieces[0], recordings[0])
    stacked = pieces[np.array([2, 1])]
    assert stacked.shape == (2, 2, 1, 2, 5)
    np.testing.assert_array_equal(stacked[0], recordings[2])
    assert np.isnan(stacked[1, 1]).all()
    assert pieces[:0].shape == (0, 4, 1, 2, 5)
    rng = np.random.default_rng(0)
    shown = np.stack([pieces.pick(np.arange(3), rng.random(3)) for _ in range(200)])
    assert shown.shape == (200, 3, 1, 2, 5)
    for row, count in enumerate(counts):
        values, times = np.unique(shown[:, row], return_counts=True)
        assert values.tolist() == [10 * row + piece for piece in range(count)]
        assert times.min() >= 0.6 * times.mean()
    last = pieces.subset(np.array([0, 2])).pick(np.arange(2), np.array([0.0, 1 - 2**-53]))
    np.testing.assert_array_equal(last, [recordings[0][0], recordings[2][-1]])


def assert_same(splits: Splits, others: Splits) -> None:
    assert splits.preprocessing == others.preprocessing
    for name, items in splits.get_parts().items():
        other = others.get_parts()[name]
        np.testing.assert_array_equal(other.ids, items.ids)
        for key in (slice(None), np.array([1, 0, 1]), 2, np.arange(len(items)) % 2 == 0):
            np.testing.assert_array_equal(other.inputs[key], items.inputs[key])
    assert compute_fingerprint(splits, None) == compute_fingerprint(others, None)


def test_recordings_beyond_memory_are_decoded_once_into_a_cache(voices: Path, caches: Path) -> None:
    messages: list[str] = []
    in_memory = load_data(configure(voices))
    on_disk = load_data(configure(voices, memory_gb=0), say=messages.append)
    assert_same(in_memory, on_disk)
    [said] = messages
    assert "40 recordings of pieces of 8 mel bands x 20 frames" in said
    assert "they are decoded once into" in said
    [content] = caches.glob("*/content.bin")
    size = content.stat().st_size
    assert size == 40 * in_memory.train.inputs.shape[1] * 4 * 8 * PIECE
    assert_same(in_memory, load_data(configure(voices, memory_gb=0)))
    assert content.stat().st_size == size, "nothing is decoded again"
    with pytest.raises(InputError, match=r"more than data.memory_gb \(0\) and than .* Raise one of them"):
        load_data(configure(voices, memory_gb=0, cache_gb=0))


def test_training_from_the_cache_is_the_same_bit_for_bit(voices: Path, tmp_path: Path) -> None:
    runs = []
    for memory_gb in (1, 0):
        data = configure(voices, memory_gb=memory_gb).model_dump()
        config = {"data": data, "loss": "multi_similarity", "model": {"backbone": "tdnn", "embedding_dim": 8}}
        config |= {"sampler": {"batch_size": 12, "items_per_class": 2}, "schedule": {"epochs": 1}}
        runs.append(train(Config.model_validate(config), tmp_path / f"run{memory_gb}").path)
    assert_equal_bit_for_bit(*runs)


def trace_peak(data: DataConfig) -> int:
    """Bytes that were allocated at once while the data was loaded and its fingerprint computed."""
    tracemalloc.start()
    try:
        compute_fingerprint(load_data(data), None)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_more_recordings_take_no_more_memory(
    voices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_store, "BLOCK_BYTES", 1)
    monkeypatch.setattr("training.run_folder.run_folder.BYTES_AT_ONCE", 1)
    audio = {"mels": 8, "piece": 100, "step": 1, "hop": 40, "window": 64, "n_fft": 64, "most_pieces": 200}
    audio |= {"sample_rate": 16_000, "mean": 0.0, "std": 1.0}
    split = {"train": 1.0, "validation": 0.0, "test": 0.0}
    few = tmp_path / "few"
    few.mkdir()
    for speaker in sorted(voices.iterdir())[:5]:
        (few / speaker.name).symlink_to(speaker)
    peaks, sizes = [], []
    for path in (few, voices):
        data = DataConfig.model_validate(
            {"kind": "audio", "path": str(path), "audio": audio, "memory_gb": 0, "split": split}
        )
        peaks.append(trace_peak(data))
        sizes.append(4 * 200 * 8 * 100 * len(list(path.rglob("*.flac"))))
    assert peaks[1] - peaks[0] < 0.2 * (sizes[1] - sizes[0])
