"""Token tables as backbones: the mean of rows, trained, exported and served without torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import tokenizers
import torch

from api_schemas.config import Config
from common.errors import InputError
from encoder.encoder import Encoder
from tests.training.runs import export_run
from training.loop.train import train
from training.models.backbones.static import Static

WORDS = ["[UNK]", "card", "lost", "balance", "low", "transfer", "money", "please", "now", "help"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a token table and its tokenizer."""
    folder = tmp_path_factory.mktemp("table")
    words = tokenizers.models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    rows = np.random.default_rng(0).normal(size=(len(WORDS), 6)).astype(np.float16)
    safetensors.numpy.save_file({"embedding.weight": rows}, folder / "model.safetensors")
    return folder


def make_config(table: Path, folder: Path, **model: object) -> Config:
    topics = ["card lost", "balance low", "transfer money", "money low", "help card", "transfer now"]
    endings = ["please", "now", "help", "", "please help"]
    rows = [json.dumps({"text": f"{topic} {end}", "label": topic}) for topic in topics for end in endings]
    (folder / "texts.jsonl").write_text("\n".join(rows) + "\n")
    return Config.model_validate(
        {
            "data": {
                "kind": "text",
                "path": str(folder / "texts.jsonl"),
                "split": {"train": 2, "validation": 0, "test": 1},
            },
            "model": {"backbone": f"static:{table}", "embedding_dim": 6, "head": "none", **model},
            "sampler": {"batch_size": 8, "items_per_class": 2},
            "schedule": {"epochs": 1, "steps_per_epoch": 3, "patience": None},
        }
    )


def test_a_text_is_the_mean_of_its_tokens_rows(table: Path) -> None:
    rows = safetensors.numpy.load_file(table / "model.safetensors")["embedding.weight"].astype(np.float32)
    network = Static((4,), str(table), token_weights=True).eval()
    inputs = torch.tensor([[2.0, 3.0, 0.0, 0.0], [5.0, 0.0, 0.0, 0.0]])
    expected = np.stack([(rows[1] + rows[2]) / 2, rows[4]])
    torch.testing.assert_close(network(inputs), torch.from_numpy(expected), atol=1e-6, rtol=0)
    assert network.token_weights is not None
    with torch.no_grad():
        network.token_weights[2] = 3.0
    weighed = (rows[1] + 3 * rows[2]) / 2
    torch.testing.assert_close(network(inputs)[0], torch.from_numpy(weighed), atol=1e-6, rtol=0)


@pytest.mark.parametrize("head", ["none", "linear"])
def test_it_is_trained_and_served_as_trained(table: Path, tmp_path: Path, head: str) -> None:
    config = make_config(table, tmp_path, head=head, token_weights=True)
    assert config.data.text.tokenizer == str(table)
    assert not config.data.text.special_tokens
    run = train(config, tmp_path / "run")
    assert export_run(run, tmp_path / "encoder") <= 1e-5
    stored = run.load_embeddings("test")
    assert stored is not None
    texts = stored.metadata["text"].tolist()
    served = Encoder.open(tmp_path / "encoder").encode(texts)
    np.testing.assert_allclose(served, stored.vectors, atol=1e-5)
    start = safetensors.numpy.load_file(table / "model.safetensors")["embedding.weight"]
    learned = run.load_network().backbone.state_dict()["vectors.weight"].numpy()
    assert np.abs(learned - start).max() > 1e-4


def test_a_table_that_is_too_small_for_its_tokenizer_is_one_sentence(table: Path, tmp_path: Path) -> None:
    safetensors.numpy.save_file({"rows": np.ones((4, 6), np.float32)}, tmp_path / "small.safetensors")
    config = make_config(table, tmp_path)
    model = {"backbone": f"static:{tmp_path / 'small.safetensors'}"}
    small = config.model_copy(update={"model": config.model.model_copy(update=model)})
    with pytest.raises(InputError, match="has 4 rows, its tokenizer 10 tokens"):
        train(small, tmp_path / "run")
    with pytest.raises(InputError, match="is no file of a token table"):
        Static((4,), str(tmp_path / "absent"))
