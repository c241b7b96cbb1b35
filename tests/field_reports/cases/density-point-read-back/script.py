"""Rows that were normalised once keep their bits, so that the hash of a cohort holds."""

from pathlib import Path

import numpy as np

from embeddings.embedding_set import EmbeddingSet
from embeddings.files import read_embeddings, save_embeddings
from embeddings.hashes import hash_cohort

for seed in range(20):
    rows = np.random.default_rng(seed).normal(size=(500, 96)).astype(np.float32)
    cohort = EmbeddingSet.from_arrays(rows, ["c"] * 500)
    save_embeddings(cohort, Path("cohort.npz"))
    assert hash_cohort(read_embeddings(Path("cohort.npz")).vectors) == hash_cohort(cohort.vectors)
