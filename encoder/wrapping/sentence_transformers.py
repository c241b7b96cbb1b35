"""Folders that sentence-transformers writes: their network, their tokenizer, and how tokens are pooled."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api_schemas.manifest import TOKENIZER_FILE
from common.errors import InputError

MODULES_FILE = "modules.json"
POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}
NETWORKS = ("onnx/model.onnx", "model.onnx")
WEIGHTS = "model.safetensors"
# outputs of one vector for each token, as exporters call them
TOKEN_OUTPUTS = ("last_hidden_state", "token_embeddings")


@dataclass(frozen=True)
class SentenceTransformer:
    """What such a folder holds.

    Attributes:
        network: an ONNX file or a token table; None where only weights are there.
        preprocessing: keys of ``preprocessing.yaml``.
    """

    folder: Path
    network: Path | None
    preprocessing: dict[str, Any]


def is_sentence_transformer(path: Path) -> bool:
    """Whether a path is a folder that sentence-transformers wrote."""
    return (path / MODULES_FILE).is_file()


def read_sentence_transformer(folder: Path) -> SentenceTransformer:
    """Read the folder's own description; raises InputError for parts that are not known."""
    modules = _read_json(folder / MODULES_FILE)
    if not isinstance(modules, list) or not all(isinstance(part, dict) for part in modules):
        raise InputError(f"{folder / MODULES_FILE} must hold a list of modules.")
    by_type = {str(part.get("type", "")).rpartition(".")[2]: str(part.get("path", "")) for part in modules}
    unknown = by_type.keys() - {"Transformer", "Pooling", "Normalize", "StaticEmbedding"}
    if unknown:
        raise InputError(
            f"{folder} has the module {sorted(unknown)[0]}, which is not known: export the whole model to "
            "ONNX, with one vector a text as its output, and wrap that file."
        )
    if "StaticEmbedding" in by_type:
        own = _enter(folder, by_type["StaticEmbedding"])
        return SentenceTransformer(
            folder,
            own / WEIGHTS,
            {"preset": "static", "tokenizer": str(own / TOKENIZER_FILE)},
        )
    own = _enter(folder, by_type.get("Transformer", ""))
    network = next((folder / name for name in NETWORKS if (folder / name).is_file()), None)
    keys: dict[str, Any] = {
        "preset": "sentence",
        "tokenizer": str(own / TOKENIZER_FILE),
        "network": {"pooling": _read_pooling(folder, by_type.get("Pooling"))},
    }
    limits = own / "sentence_bert_config.json"
    length = _read_json(limits).get("max_seq_length") if limits.is_file() else None
    if isinstance(length, int):
        keys["length"] = min(length, 4096)
    return SentenceTransformer(folder, network, keys)


def _read_pooling(folder: Path, path: str | None) -> str:
    if path is None:
        return "mean"
    config = _read_json(_enter(folder, path) / "config.json")
    if config.get("pooling_mode") in POOLINGS.values():  # as newer versions write it
        return str(config["pooling_mode"])
    chosen = [name for name, value in config.items() if name.startswith("pooling_mode_") and value is True]
    if len(chosen) != 1 or chosen[0] not in POOLINGS:
        raise InputError(
            f"{folder} pools by {', '.join(chosen) or 'nothing'}, expected one of {', '.join(POOLINGS)}."
        )
    return POOLINGS[chosen[0]]


def _enter(folder: Path, name: str) -> Path:
    """A folder within; raises InputError for one that is not."""
    inner = (folder / name).resolve()
    if not inner.is_relative_to(folder.resolve()):
        raise InputError(f"{folder / MODULES_FILE} names '{name}', outside its folder.")
    return folder / name if name else folder


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise InputError(f"{path} is not JSON.") from None
