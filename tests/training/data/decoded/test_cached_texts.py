"""Texts that stay on disk: the same items as those that are read whole, and no more memory for more."""

from __future__ import annotations

import csv
import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api_schemas.data_config import DataConfig
from common.errors import InputError
from tests.training.runs import MakeConfig
from training.data.decoded.cached_texts import CachedTexts
from training.data.items import Items, Splits
from training.data.kinds.text import Text
from training.data.load_data import load_data
from training.data.row_store import ComputedRows
from training.loop.train import train

SUFFIXES = ("csv", "jsonl", "parquet")
WORDS = [
    "plain",
    " padded ",
    'with "quotes"',
    "two\nlines",
    "ünï — 漢字 🙂",
    "01",
    "-",
    "NA",
    "a,b;c",
    "x" * 3_000,
]


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIMEN_CACHE", str(tmp_path / "caches"))
    monkeypatch.setattr("training.data.labelled_files.SETTLED_NS", 0)
    monkeypatch.setattr("embeddings.tables.BLOCK_ROWS", 7)
    return tmp_path / "caches" / "decoded"


def write(path: Path, texts: list[Any], name: str = "text", **columns: list[Any]) -> Path:
    rows = {"label": [f"class {row % 3}" for row in range(len(texts))], name: texts, **columns}
    if path.suffix == ".parquet":
        pq.write_table(pa.table(rows), path, row_group_size=5)
    elif path.suffix == ".jsonl":
        records = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([list(rows), *zip(*rows.values(), strict=True)])
    return path


def read(paths: Path | list[Path], **keys: Any) -> Items:
    given = [str(path) for path in (paths if isinstance(paths, list) else [paths])]
    return Text(DataConfig.model_validate({"kind": "text", "path": given, **keys})).read_all()


def read_or_refuse(path: Path, **keys: Any) -> Items | str:
    """The items, or what is said of a file that is refused, without the number of such rows or of the row,
    which Arrow does not always know."""
    try:
        return read(path, **keys)
    except InputError as refused:
        return re.sub(r"Row #\d+: ", "", str(refused)).split(" (")[0].rstrip(".")


def assert_same(whole: Items, cached: Items) -> None:
    assert isinstance(cached.inputs, CachedTexts)
    assert cached.inputs[:].tolist() == whole.inputs.tolist()
    assert cached.labels.tolist() == whole.labels.tolist()
    assert cached.ids.tolist() == whole.ids.tolist()
    assert list(cached.metadata) == list(whole.metadata)
    for name, column in whole.metadata.items():
        assert cached.metadata[name].tolist() == column.tolist()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_texts_on_disk_are_those_that_are_read_whole(suffix: str, tmp_path: Path, caches: Path) -> None:
    texts = [f"{WORDS[row % len(WORDS)]}{row}" for row in range(50)]
    path = write(
        tmp_path / f"t.{suffix}", texts, "Texts", id=[f"i{row}" for row in range(50)], day=[*range(50)]
    )
    whole, cached = read(path), read(path, memory_gb=0)
    assert_same(whole, cached)
    for rows in (np.array([3, 0, 3]), 2, np.arange(50) % 2 == 0, slice(0, 0)):
        np.testing.assert_array_equal(cached.inputs[rows], whole.inputs[rows])
    assert cached.subset(np.array([9, 4])).inputs[:].tolist() == [texts[9], texts[4]]
    [content] = caches.glob("*/content.bin")
    size = content.stat().st_size
    assert_same(whole, read(path, memory_gb=0))
    assert content.stat().st_size == size, "nothing is written again"
    write(path, [f"another {text}" for text in texts], "Texts")
    assert_same(read(path), read(path, memory_gb=0))


@settings(deadline=None, max_examples=30)
@given(
    texts=st.lists(
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
            st.integers(-5, 5).map(lambda number: f" {number} "),
            st.sampled_from(WORDS),
        ).filter(lambda text: bool(text.strip())),
        min_size=1,
        max_size=25,
    ),
    suffix=st.sampled_from(SUFFIXES),
)
def test_whatever_texts_there_are(
    texts: list[str], suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(tmp_path_factory.mktemp("texts") / f"t.{suffix}", texts)
    whole, cached = read_or_refuse(path), read_or_refuse(path, memory_gb=0)
    if isinstance(whole, Items):
        assert isinstance(cached, Items)
        assert_same(whole, cached)
    else:
        assert cached == whole


def test_several_files_are_one_set(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / f"{suffix}.{suffix}", [f"{suffix} {row}" for row in range(9)]) for suffix in SUFFIXES
    ]
    paths.append(write(tmp_path / "numbers.csv", [f" {row}" for row in range(9)]))
    assert_same(read(paths), read(paths, memory_gb=0))
    assert read(paths, memory_gb=0).inputs[-1] == "8", "integers lose the spaces around them in a CSV"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_bad_text_far_down_is_named(suffix: str, tmp_path: Path) -> None:
    texts: list[Any] = [f"text {row}" for row in range(30)]
    for bad, message in ((None, "has no value"), ("  ", "is empty"), ("a\0b", "holds a NUL character")):
        path = write(tmp_path / f"t.{suffix}", [*texts, bad])
        for memory_gb in (1, 0):
            with pytest.raises(InputError, match=f"row 30 of column 'text' {message}"):
                read(path, memory_gb=memory_gb)
    if suffix == "jsonl":
        with pytest.raises(InputError, match=r"found \[1\] in row 30"):
            read(write(tmp_path / "t.jsonl", [*texts, [1]]), memory_gb=0)


def test_rows_without_a_value_pairs_and_refusals_are_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text;label\n" + "".join(f"text {row};{row % 2}\n;\n" for row in range(20)))
    assert_same(read(path), read(path, memory_gb=0))
    path.write_text("a,b,same\none,two,1\nthree,four,1\n")
    assert read(path, memory_gb=0).inputs.tolist() == ["one", "two", "three", "four"]
    open_quote = 'text,label\na,1\nb,2\nc,"open\n' + "d,3\n" * 9
    for content in (
        open_quote,
        "names,label\na,b\n",
        "text,text,label\na,b,c\n",
        "text,label\n",
        "text,label\na\n",
    ):
        path.write_text(content)
        assert isinstance(read_or_refuse(path), str)
        assert read_or_refuse(path, memory_gb=0) == read_or_refuse(path)
    (tmp_path / "t.jsonl").write_text('{"Text": "a", "label": 1}\n{"Text": "b", "text": "c", "label": 1}\n')
    with pytest.raises(InputError, match="some rows call a column 'text', the first 'Text'"):
        read(tmp_path / "t.jsonl", memory_gb=0)
    with pytest.raises(InputError, match=r"data.memory_gb \(0\) and than .* raise one"):
        read(path, memory_gb=0, cache_gb=0)


def test_a_run_on_texts_on_disk_is_the_run_on_texts_in_memory(small: MakeConfig, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [f"word{row % 3} {row}" for row in range(36)])
    vectors = []
    for memory_gb in (1, 0):
        data = {
            "kind": "text",
            "path": str(path),
            "memory_gb": memory_gb,
            "text": {"buckets": 500, "length": 40},
            "split": {"train": 1, "validation": 0, "test": 0},
        }
        run = train(
            small(data=data, model={"backbone": "ngram", "width": 16, "embedding_dim": 8}),
            tmp_path / f"run{memory_gb}",
        )
        embedded = run.load_embeddings("train")
        assert embedded is not None
        vectors.append(embedded.vectors)
    np.testing.assert_array_equal(*vectors)


def load_large(path: Path) -> tuple[Splits, int]:
    """The data, and bytes that were allocated at once, by numpy, Python and Arrow, while it was loaded."""
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    data = {"kind": "text", "path": str(path), "memory_gb": 0, "text": {"words": [1], "characters": []}}
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        splits = load_data(
            DataConfig.model_validate({**data, "split": {"train": 1, "validation": 0, "test": 0}})
        )
        return splits, tracemalloc.get_traced_memory()[1] + (pool.max_memory() or 0)
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_longer_texts_take_no_more_memory(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.data.kinds.text.MOST_METADATA", 0)
    monkeypatch.setattr("training.data.row_store.OBJECTS_AT_ONCE", 20)
    monkeypatch.setattr("embeddings.delimited_text.BLOCK_BYTES", 1 << 16)
    peaks, sizes = [], []
    for number, length in enumerate((200, 2_000)):
        random = np.random.default_rng(0)
        texts = [random.bytes(length // 2).hex() for _ in range(3_000)]
        path = write(tmp_path / f"{number}.{suffix}", texts)
        splits, peak = load_large(path)
        assert isinstance(splits.train.inputs, ComputedRows)
        peaks.append(peak)
        sizes.append(path.stat().st_size)
    assert peaks[1] - peaks[0] < 0.5 * (sizes[1] - sizes[0])
