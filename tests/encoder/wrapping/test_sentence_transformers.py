"""Folders of sentence-transformers: what they say of themselves, and what is not known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import InputError
from encoder.wrapping.sentence_transformers import is_sentence_transformer, read_sentence_transformer


def write_folder(folder: Path, modules: dict[str, str], **files: Any) -> Path:
    """A folder with ``modules.json`` (kind to path) and JSON files; ``__`` in their names is ``/``."""
    described = [
        {"idx": row, "name": str(row), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for row, (kind, path) in enumerate(modules.items())
    ]
    for name, content in {"modules": described, **files}.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode": "cls"}, "cls"),
    ],
)
def test_length_and_pooling_are_read(tmp_path: Path, config: dict[str, Any], pooling: str) -> None:
    folder = write_folder(
        tmp_path,
        {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"},
        **{"1_Pooling__config": config, "sentence_bert_config": {"max_seq_length": 99}},
    )
    assert is_sentence_transformer(folder)
    found = read_sentence_transformer(folder)
    assert found.network is None
    assert found.preprocessing == {
        "preset": "sentence",
        "tokenizer": str(folder / "tokenizer.json"),
        "network": {"pooling": pooling},
        "length": 99,
    }
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"...")
    assert read_sentence_transformer(folder).network == folder / "onnx" / "model.onnx"


def test_static_embeddings_are_a_token_table(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"StaticEmbedding": "0_StaticEmbedding"})
    found = read_sentence_transformer(folder)
    assert found.network == folder / "0_StaticEmbedding" / "model.safetensors"
    assert found.preprocessing["preset"] == "static"
    assert found.preprocessing["tokenizer"] == str(folder / "0_StaticEmbedding" / "tokenizer.json")


@pytest.mark.parametrize(
    ("modules", "files", "sentence"),
    [
        ({"Transformer": "", "Dense": "2_Dense"}, {}, "has the module Dense, which is not known"),
        ({"Transformer": "../other", "Pooling": ""}, {}, "names '../other', outside its folder"),
        ({"Transformer": "", "Pooling": "1_Pooling"}, {}, r"config.json cannot be read: No such file"),
        (
            {"Transformer": "", "Pooling": "1_Pooling"},
            {"1_Pooling__config": {"pooling_mode_weightedmean_tokens": True}},
            "pools by pooling_mode_weightedmean_tokens, expected one of",
        ),
    ],
)
def test_what_is_not_known_is_refused(
    tmp_path: Path, modules: dict[str, str], files: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        read_sentence_transformer(write_folder(tmp_path, modules, **files))


def test_a_list_of_modules_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match="must hold a list of modules"):
        read_sentence_transformer(tmp_path)
    (tmp_path / "modules.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        read_sentence_transformer(tmp_path)
