"""Center: classes that an earlier model knew keep their centres."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from api_schemas.yaml_config import NamedPart
from common.errors import ConfigError
from tests.training.losses.cases import DIMENSION, batch
from training.losses import TrainingClasses, build_loss, start_from_class_means

CLASSES = TrainingClasses(("a", "b", "new", "d", "e"), (3,) * 5, ((),) * 5)


def write_earlier(path: Path, labels: list[str]) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(len(labels), DIMENSION)).astype(np.float32)
    np.savez(path, embeddings=vectors, labels=np.array(labels))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_earlier_classes_stay_where_they_were_and_new_ones_learn(tmp_path: Path) -> None:
    (tmp_path / "run" / "embeddings").mkdir(parents=True)
    unit = write_earlier(tmp_path / "run" / "embeddings" / "train.npz", ["b", "a", "b", "gone"])
    spec = NamedPart(name="center", centers_from=str(tmp_path / "run"))
    loss = build_loss(spec, classes=CLASSES, embedding_dim=DIMENSION)
    expected = F.normalize(torch.from_numpy(np.stack([unit[1], unit[0] + unit[2]])), dim=1)
    torch.testing.assert_close(loss.class_vectors[:2].detach(), expected)
    optimizer = torch.optim.AdamW(loss.parameters(), lr=0.1, weight_decay=0.0)
    before = loss.class_vectors.detach().clone()
    items, labels = batch()
    items, labels = items.detach().float(), labels
    start_from_class_means(loss, items[labels == 1], labels[labels == 1])
    for _ in range(5):
        optimizer.zero_grad()
        loss(items, labels).backward()
        optimizer.step()
    after = loss.class_vectors.detach()
    assert torch.equal(after[:2], before[:2])
    assert (after[2:] != before[2:]).any(1).all()
    sentence = loss.describe_classes(CLASSES.names)
    assert sentence is not None
    assert "keeps 2 of 5 classes" in sentence


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    write_earlier(tmp_path / "old.npz", ["x", "y"])
    spec = NamedPart(name="center", centers_from=str(tmp_path / "old.npz"))
    with pytest.raises(ConfigError, match="have 8 numbers, embedding_dim is 4"):
        build_loss(spec, classes=CLASSES, embedding_dim=4)
    sentence = build_loss(spec, classes=CLASSES, embedding_dim=DIMENSION).describe_classes(CLASSES.names)
    assert sentence is not None
    assert sentence.startswith("Warning: center keeps 0 of 5")
    spec = NamedPart(name="center", centers_from=str(tmp_path / "away.npz"))
    with pytest.raises(ConfigError, match=r"away\.npz is not a file"):
        build_loss(spec, classes=CLASSES, embedding_dim=4)
