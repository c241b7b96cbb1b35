"""Texts: from a file to a served encoder."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import ConfigError, InputError
from encoder.encoder import Encoder
from tests.training.runs import EVERYTHING, MakeConfig, export_run, load_made, make_data
from training.data.kinds.text import Text
from training.data.load_data import load_data
from training.loop.train import train


def write_texts(path: Path) -> None:
    topics = ["card lost", "balance low", "transfer money", "exchange rate", "open account", "close account"]
    endings = ["please", "now", "help me", "what do i do", "today"]
    with path.open("w") as file:
        for topic in topics:
            for ending in endings:
                file.write(json.dumps({"text": f"{topic} {ending}", "label": topic}) + "\n")


def test_texts_go_from_a_file_to_a_served_encoder(small: MakeConfig, tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.jsonl")
    config = small(
        data={
            "kind": "text",
            "path": str(tmp_path / "texts.jsonl"),
            "text": {"buckets": 500, "length": 40},
            "split": {"train": 2, "validation": 2, "test": 2},
        },
        model={"backbone": "ngram", "width": 16, "embedding_dim": 8},
    )
    run = train(config, tmp_path / "run")
    assert export_run(run, tmp_path / "encoder") <= 1e-5
    encoder = Encoder.open(tmp_path / "encoder")
    assert encoder.preprocessing.kind == "text"
    stored = run.load_embeddings("test")
    assert stored is not None
    texts = [json.loads(line)["text"] for line in (tmp_path / "texts.jsonl").read_text().splitlines()]
    served = encoder.encode([texts[int(row)] for row in stored.ids])
    np.testing.assert_allclose(served, stored.vectors, atol=1e-5)
    with pytest.raises(InputError, match="texts that are not empty"):
        encoder.encode(["  "])


def test_texts_need_the_ngram_backbone_and_only_texts_do(small: MakeConfig, tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.jsonl")
    text = {"kind": "text", "path": str(tmp_path / "texts.jsonl"), "split": {"validation": 0}}
    with pytest.raises(ConfigError, match="'conv4' does not take text inputs"):
        train(small(data=text), tmp_path / "run")
    with pytest.raises(ConfigError, match="'ngram' does not take image inputs"):
        train(small(model={"backbone": "ngram"}), tmp_path / "other")


def test_an_empty_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\nhello,1\n   ,2\n")
    with pytest.raises(InputError, match="row 1 of column 'text' is empty"):
        load_made(tmp_path / "t.csv", kind="text")


def test_one_long_text_takes_the_room_of_one(tmp_path: Path) -> None:
    texts = [f"text {row}" for row in range(2_000)]
    texts[1_000] += " long" * 50_000  # an array of one width would take 2 GB
    labels = [str(row % 4) for row in range(2_000)]
    pq.write_table(pa.table({"text": texts, "label": labels}), tmp_path / "t.parquet")
    data = make_data(tmp_path / "t.parquet", kind="text", split=EVERYTHING)
    tracemalloc.start()
    items = load_data(data).train
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 100 << 20
    assert len(items) == 2_000
    assert [len(text) for text in items.metadata["text"][999:1002]] == [8, 1_000, 9], "the beginning is kept"
    assert Text(data).read_all().inputs.tolist() == texts
    pq.write_table(pa.table({"text": labels, "label": labels, "notes": texts}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"row 1000 of column 'notes' has 250009 characters, .*leave the co"):
        load_data(data)
    pq.write_table(pa.table({"text": labels, "label": texts}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"row 1000 of column 'label' has 250009 characters"):
        load_data(data)


def test_the_metadata_of_many_texts_stays_within_its_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.data.kinds.text.MOST_METADATA", 40 * 60)
    path = tmp_path / "texts.csv"
    path.write_text("\n".join(["label,text", *(f"{n % 5},{'word ' * 20}{n}" for n in range(40))]))
    items = Text(make_data(path, kind="text")).read_all()
    assert {len(text) for text in items.metadata["text"].tolist()} == {60}
    assert {len(text) for text in items.inputs.tolist()} == {101, 102}
