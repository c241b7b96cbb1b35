"""Hashes that tie an operating point to its model and its data."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from common.array_types import Texts, UnitVectors
from common.atomic_files import hash_file
from embeddings.embedding_set import EmbeddingSet

BLOCK_ROWS = 65_536


def hash_items(items: EmbeddingSet) -> str:
    """SHA-256 over the rows (float32, little-endian) and labels of a set, in their order."""
    return hash_rows(items.vectors, items.labels)


def hash_rows(vectors: UnitVectors, labels: Texts) -> str:
    """SHA-256 over rows (float32, little-endian) and their labels, in their order."""
    digest = _digest_rows(vectors)
    for start in range(0, len(labels), BLOCK_ROWS):
        between = "\0" if start else ""
        digest.update((between + "\0".join(labels[start : start + BLOCK_ROWS].tolist())).encode())
    return digest.hexdigest()


def hash_cohort(vectors: UnitVectors) -> str:
    """SHA-256 over the shape and the rows (float32, little-endian) of a cohort, in their order."""
    return _digest_rows(vectors).hexdigest()


def _digest_rows(vectors: UnitVectors) -> hashlib._Hash:
    digest = hashlib.sha256(np.asarray(vectors.shape, dtype="<i8").tobytes())
    digest.update(np.ascontiguousarray(vectors, dtype="<f4").data)
    return digest


def hash_encoder(encoder: Path, preprocessing: Path) -> str:
    """SHA-256 over the encoder file and its preprocessing: another input pipeline is another model."""
    return combine_encoder_hashes(hash_file(encoder), hash_file(preprocessing))


def combine_encoder_hashes(encoder: str, preprocessing: str) -> str:
    """The hash of an encoder from those of its file and its preprocessing."""
    return hashlib.sha256(f"{encoder}\n{preprocessing}\n".encode()).hexdigest()


def hash_model_name(name: str, dimension: int) -> str:
    """SHA-256 of a model known by name alone: its name, dimension and L2 normalisation."""
    described = json.dumps({"dimension": dimension, "model": name, "normalisation": "l2"}, sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()
