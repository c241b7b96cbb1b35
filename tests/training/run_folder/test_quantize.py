"""Quantised encoders: a run of their own, and its accuracy cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from common.choices import EncoderPrecision
from common.errors import ConfigError, InputError
from embeddings.embedding_set import EmbeddingSet
from encoder.encoder import Encoder
from evaluation.evaluate import evaluate_embeddings
from evaluation.pairs.pairs import arrange
from tests.training.runs import MakeConfig
from training.loop.train import train
from training.run_folder.quantize import PRECISIONS, compute_far, quantize_run
from training.run_folder.run_folder import Run


def count_weight_bytes(run: Run) -> int:
    """Of all weights in the run's encoder."""
    weights = onnx.load(run.path / "encoder" / "encoder.onnx").graph.initializer
    return sum(numpy_helper.to_array(weight).nbytes for weight in weights)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_lighter_weights_are_a_run_of_their_own_and_their_cost_is_measured(
    run: Run, drawings: Path, precision: EncoderPrecision
) -> None:
    light, cost = quantize_run(run, precision)
    assert Run.open(run.path / precision) == light
    stored, before = light.load_embeddings("test"), run.load_embeddings("test")
    assert stored is not None
    assert before is not None
    encoder = Encoder.open(light.path / "encoder")
    served = encoder.encode([Image.open(drawings / str(number)) for number in stored.ids])
    np.testing.assert_allclose(served, stored.vectors, atol=1e-6)
    assert 1e-7 < np.abs(stored.vectors - before.vectors).max() < 0.1, "rounded, and still the same network"
    alone = [encoder.encode([Image.open(drawings / str(number))])[0] for number in stored.ids[:4]]
    np.testing.assert_allclose(alone, stored.vectors[:4], atol=1e-6, err_msg="it depends on its batch")
    assert count_weight_bytes(light) < count_weight_bytes(run) * (0.6 if precision == "fp16" else 0.4)
    recall = evaluate_embeddings(stored, model_hash="", split="test").retrieval.recall_at_1
    assert cost.recall_at_1 is not None
    assert cost.recall_at_1[1] == recall
    assert cost.far is None, "three validation classes support no operating point"
    assert f"{precision}: " in str(cost)
    assert "FAR at float32's operating point not given, too few classes" in str(cost)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_lighter_weights_read_equal_ngrams(
    small: MakeConfig, tmp_path: Path, precision: EncoderPrecision
) -> None:
    words = np.random.default_rng(0).integers(0, 10_000, (60, 3))
    rows = [
        {"text": " ".join(f"w{word}" for word in line), "label": str(n % 12)} for n, line in enumerate(words)
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    config = small(
        data={
            "kind": "text",
            "path": str(tmp_path / "t.jsonl"),
        },  # numbers far above what half precision holds
        model={"backbone": "ngram", "embedding_dim": 8, "width": 8},
    )
    run = train(config, tmp_path / "run")
    light, _ = quantize_run(run, precision)
    before, after = run.load_embeddings("train"), light.load_embeddings("train")
    assert before is not None
    assert after is not None
    assert np.einsum("ij,ij->i", before.vectors, after.vectors).min() > 0.99


def test_a_precision_is_one_of_the_table_or_refused(run: Run) -> None:
    assert set(get_args(EncoderPrecision)) == set(PRECISIONS), "the choices of `limen export --precision`"
    with pytest.raises(ConfigError, match=r"precision: unknown name 'fp8': valid are: fp16, int8"):
        quantize_run(run, "fp8")  # type: ignore[arg-type]
    assert not (run.path / "fp8").exists()


def test_the_cost_of_lighter_weights_is_measured_on_the_data_of_the_run_alone(
    small: MakeConfig, tmp_path: Path
) -> None:
    random, labels = np.random.default_rng(0), np.arange(60) % 10
    np.savez(tmp_path / "v.npz", embeddings=random.normal(size=(60, 8)), labels=labels)
    data = {"kind": "embeddings", "path": str(tmp_path / "v.npz")}
    run = train(small(data=data, model={"backbone": "linear", "embedding_dim": 8}), tmp_path / "run")
    np.savez(tmp_path / "v.npz", embeddings=random.normal(size=(60, 8)), labels=labels)  # the same ids
    with pytest.raises(InputError, match="the data is not what this run was trained on: restore that data"):
        quantize_run(run, "fp16")
    earlier = json.loads((run.path / "run.json").read_text())
    del earlier["fingerprint"]  # as an earlier version wrote it
    (run.path / "run.json").write_text(json.dumps(earlier))
    quantize_run(Run.open(run.path), "fp16")
    np.savez(
        tmp_path / "v.npz",
        embeddings=random.normal(size=(60, 8)),
        labels=labels,
        ids=labels * 60 - np.arange(60),
    )
    with pytest.raises(InputError, match="the data is not what this run was trained on: restore that data"):
        quantize_run(Run.open(run.path), "fp16")


def test_a_recall_that_the_data_cannot_give_is_not_a_zero(small: MakeConfig, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = np.concatenate([np.arange(40) % 8, np.arange(20) + 8])  # the test classes have one item each
    part = np.repeat(["train", "validation", "test"], [20, 20, 20])
    vectors = random.normal(size=(60, 6)) + 3 * np.eye(28, 6)[labels % 6]
    np.savez(tmp_path / "v.npz", embeddings=vectors, labels=labels, split=part)
    config = small(
        data={"kind": "embeddings", "path": str(tmp_path / "v.npz"), "split": {"by": "column"}},
        model={"backbone": "linear", "embedding_dim": 4},
    )
    _, cost = quantize_run(train(config, tmp_path / "run"), "int8")
    assert cost.recall_at_1 is None
    assert "recall@1 not given, no test class has two items" in str(cost)


def test_the_far_of_lighter_weights_is_that_of_counting_pairs() -> None:
    random = np.random.default_rng(0)
    items = EmbeddingSet.from_arrays(random.normal(size=(40, 4)), np.arange(40) // 4)
    accepted = total = 0
    for a in range(40):
        for b in range(a):
            if items.labels[a] != items.labels[b]:
                total += 1
                accepted += float(items.vectors[a] @ items.vectors[b]) >= 0.3
    assert compute_far(arrange(items), 0.3) == pytest.approx(accepted / total)
    assert 0 < accepted < total
