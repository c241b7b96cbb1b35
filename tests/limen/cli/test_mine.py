"""``limen mine``: what it writes, and what training does with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.limen.cli.test_bad_input import refused
from tests.limen.conftest import Limen

LABELS = np.repeat(np.arange(10), 6)


@pytest.fixture
def items(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    vectors = (random.normal(size=(10, 8))[LABELS] + 0.6 * random.normal(size=(60, 8))).astype(np.float32)
    ids = [f"i{row}" for row in range(60)]
    texts = [f"text {row}" for row in range(60)]
    np.savez(tmp_path / "v.npz", embeddings=vectors, labels=LABELS, ids=ids, text=texts, loss=LABELS + 0.5)
    return tmp_path / "v.npz"


def test_triplets_train_a_network(limen: Limen, items: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    outcome = limen("mine", items, "--out", out, "--margin", "0.02", "--negatives", "2", "--top", "20")
    assert outcome.code == 0, outcome.err
    assert "items have hard negatives; filters left out" in outcome.err
    table = pq.read_table(out).to_pydict()
    label = {f"i{row}": int(code) for row, code in enumerate(LABELS)}
    for anchor, positive, negative, near, far in zip(*table.values(), strict=True):
        assert label[anchor] == label[positive] != label[negative]
        assert far < near - 0.02
        assert anchor != positive
    config = tmp_path / "c.yaml"
    config.write_text(
        f"data: {{kind: embeddings, path: {items}, split: {{train: 1, validation: 0, test: 0}}}}\n"
        f"mining: {{file: {out}, negatives: 2}}\nschedule: {{epochs: 1, steps_per_epoch: 2}}\n"
        "model: {backbone: linear, embedding_dim: 4}\nsampler: {batch_size: 16}\n"
    )
    trained = limen("train", config, "--out", tmp_path / "run")
    assert trained.code == 0, trained.err
    again = limen("mine", tmp_path / "run", "--out", tmp_path / "again.parquet")
    assert again.code == 0, again.err


def test_pairs_have_scores_and_stand_once(limen: Limen, items: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.parquet"
    assert limen("mine", items, "--out", out, "--form", "pairs", "--text-column", "text").code == 0
    table = pq.read_table(out)
    rows = table.to_pylist()
    assert table.column_names == ["a", "b", "same", "score"]
    assert rows[0]["a"].startswith("text ")
    assert len({frozenset((row["a"], row["b"])) for row in rows}) == len(rows)
    with np.load(items) as file:
        unit = file["embeddings"] / np.linalg.norm(file["embeddings"], axis=1, keepdims=True)
    for row in rows:
        a, b = (int(row[end].removeprefix("text ")) for end in ("a", "b"))
        assert row["same"] == (LABELS[a] == LABELS[b])
        assert row["score"] == pytest.approx(float(unit[a] @ unit[b]), abs=1e-6)


def test_a_sample_to_label_has_weights(limen: Limen, items: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.parquet"
    outcome = limen("mine", items, "--out", out, "--select", "20", "--loss-column", "loss")
    assert outcome.code == 0, outcome.err
    rows = pq.read_table(out).to_pylist()
    assert 10 < len(rows) <= 20
    assert sum(row["weight"] for row in rows) == pytest.approx(1, abs=0.5)


def test_what_cannot_be_mined_is_said(limen: Limen, items: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    np.savez(tmp_path / "one.npz", embeddings=np.eye(3), labels=[1, 1, 1])
    refused(
        limen("mine", tmp_path / "one.npz", "--out", out), "Mining needs two classes", "found 1 classes of 3"
    )
    refused(limen("mine", items, "--out", tmp_path / "t.csv"), "t.csv: what is mined is written as .parquet")
    refused(
        limen("mine", items, "--out", out, "--max-score", "-0.99"), "left out by the filters", "raise --top"
    )
    refused(limen("mine", items, "--out", out, "--top", "2"), "limen mine", "top must be at least skip + neg")
    refused(limen("mine", items, "--out", out, "--text-column", "txt"), "no column 'txt'; found loss, text")
    refused(limen("mine", items, "--out", out, "--select", "61"), "--select 61: there are 60 items")
    assert not out.exists()
