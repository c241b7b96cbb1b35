"""Vectors and tables that do not fit into memory: written once to a cache, the same rows, no more memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api_schemas.data_config import DataConfig
from common.errors import InputError
from training.data.decoded import parquet_numbers
from training.data.decoded.row_cache import CachedRows
from training.data.items import Splits
from training.data.load_data import load_data, load_items
from training.data.row_store import RowStore

CLASSES, EACH, DIM = 12, 10, 6


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIMEN_CACHE", str(tmp_path / "caches"))
    monkeypatch.setattr("training.data.labelled_files.SETTLED_NS", 0)
    monkeypatch.setattr(parquet_numbers, "BLOCK_ROWS", 50)
    return tmp_path / "caches" / "decoded"


def draw(classes: int, each: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.normal(size=(classes * each, dim)), np.repeat(np.arange(classes), each).astype(str)


def write_vectors(path: Path, classes: int = CLASSES, each: int = EACH, dim: int = DIM) -> Path:
    values, labels = draw(classes, each, dim)
    if path.suffix == ".npz":
        np.savez(path, embeddings=values.astype(np.float32), labels=labels)
    else:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), dim)
        pq.write_table(pa.table({"embedding": vectors, "label": labels, "day": np.arange(len(labels))}), path)
    return path


def write_table(path: Path, **changes: Any) -> Path:
    values, labels = draw(CLASSES, EACH, DIM)
    columns = {
        "Label": pa.array(labels),
        **{f"x{number}": pa.array(values[:, number]) for number in range(DIM)},
    }
    pq.write_table(pa.table({**columns, **changes}), path, row_group_size=30)
    return path


def load(path: Path, kind: str, **keys: Any) -> Splits:
    return load_data(DataConfig.model_validate({"kind": kind, "path": str(path), **keys}))


def assert_same(splits: Splits, others: Splits) -> None:
    for name, items in splits.get_parts().items():
        other = others.get_parts()[name]
        assert isinstance(other.inputs, RowStore)
        np.testing.assert_array_equal(other.ids, items.ids)
        np.testing.assert_array_equal(other.labels, items.labels)
        assert items.metadata.keys() == other.metadata.keys()
        for key in (slice(None), np.array([3, 0, 3]), 2, np.arange(len(items)) % 2 == 0, slice(0, 0)):
            np.testing.assert_allclose(other.inputs[key], items.inputs[key], rtol=1e-6, atol=1e-7)
            assert other.inputs[key].dtype == np.float32


@pytest.mark.parametrize("name", ["vectors.npz", "vectors.parquet"])
def test_vectors_are_written_once_and_are_the_same(name: str, tmp_path: Path, caches: Path) -> None:
    path = write_vectors(tmp_path / name)
    in_memory = load(path, "embeddings")
    on_disk = load(path, "embeddings", memory_gb=0)
    assert isinstance(on_disk.train.inputs, CachedRows)
    assert_same(in_memory, on_disk)
    [content] = caches.glob("*/content.bin")
    size = content.stat().st_size
    assert size == CLASSES * EACH * DIM * 4
    assert_same(in_memory, load(path, "embeddings", memory_gb=0))
    assert content.stat().st_size == size, "nothing is written again"
    with pytest.raises(InputError, match=r"rows of .* more than data.memory_gb \(0\) and than .* raise one"):
        load(path, "embeddings", memory_gb=0, cache_gb=0)


def test_a_large_table_is_standardised_when_its_rows_are_read(tmp_path: Path) -> None:
    path = write_table(
        tmp_path / "table.parquet", note=pa.array([f"n{row}" for row in range(CLASSES * EACH)])
    )
    with pytest.raises(InputError, match="column 'note' must hold numbers"):
        load(path, "table", memory_gb=0)
    path = write_table(tmp_path / "table.parquet")
    in_memory, on_disk = load(path, "table"), load(path, "table", memory_gb=0)
    assert_same(in_memory, on_disk)
    rule = in_memory.preprocessing.rule.model_copy(
        update={"columns": ["x3", "x1"], "means": [0, 0], "stds": [1, 2]}
    )
    narrow = type(in_memory.preprocessing)(rule)  # type: ignore[arg-type]
    data = DataConfig.model_validate({"kind": "table", "path": str(path)})
    few = load_items([path], data.model_copy(update={"memory_gb": 0}), narrow)
    np.testing.assert_allclose(few.inputs[:], load_items([path], data, narrow).inputs, rtol=1e-6)


def test_a_missing_number_far_down_is_named(tmp_path: Path) -> None:
    values = [float(row) if row != 77 else None for row in range(CLASSES * EACH)]
    path = write_table(tmp_path / "table.parquet", x2=pa.array(values))
    for memory_gb in (1, 0):
        with pytest.raises(InputError, match="row 77 of column 'x2' has no value"):
            load(path, "table", memory_gb=memory_gb)


def trace_peak(path: Path, kind: str) -> int:
    """Bytes that were allocated at once, by numpy and by Arrow, while the data was loaded."""
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        load(path, kind, memory_gb=0, split={"train": 1.0, "validation": 0.0, "test": 0.0})
        return tracemalloc.get_traced_memory()[1] + (pool.max_memory() or 0)
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)


def test_more_vectors_take_no_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embeddings.files.BLOCK_ROWS", 100)
    peaks, sizes = [], []
    for number, classes in enumerate((100, 400)):
        path = write_vectors(tmp_path / f"{number}.npz", classes, 10, 256)
        peaks.append(trace_peak(path, "embeddings"))
        sizes.append(path.stat().st_size)
    assert peaks[1] - peaks[0] < 0.3 * (sizes[1] - sizes[0])
