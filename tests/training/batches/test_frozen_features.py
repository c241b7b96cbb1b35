"""Features of a frozen backbone are those of the network, computed once, and known again under their hash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training.runs import MakeConfig
from training.batches import frozen_features
from training.loop.train import train

HEAD = {"backbone": "conv4", "widths": [8, 8], "embedding_dim": 8, "train": "head"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test's own."""
    monkeypatch.setenv("LIMEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items features were computed of, each time."""
    counts: list[int] = []
    original = frozen_features.compute_features

    def compute(network, items, *rest, **more):  # type: ignore[no-untyped-def]
        counts.append(len(items))
        return original(network, items, *rest, **more)

    monkeypatch.setattr(frozen_features, "compute_features", compute)
    return counts


def test_a_head_on_stored_features_is_that_of_the_whole_network(
    small: MakeConfig, cache: Path, computed: list[int], tmp_path: Path
) -> None:
    run = train(small(model=HEAD), tmp_path / "run")
    stored = run.load_embeddings("test")
    assert stored is not None
    assert sum(computed) == 90, "each item once"
    network, rule = run.load_network(), run.load_preprocessing()
    assert not network.takes_features
    from PIL import Image

    from training.models.network import Network

    assert isinstance(network, Network)
    folder = Path(str(run.config.data.path))
    import torch

    images = rule.prepare([Image.open(folder / item) for item in stored.ids.tolist()])
    with torch.inference_mode():
        again = network(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(again, stored.vectors, atol=1e-5)


def test_features_are_known_again_until_something_that_decides_them_changes(
    small: MakeConfig, cache: Path, computed: list[int], tmp_path: Path
) -> None:
    train(small(model=HEAD), tmp_path / "first")
    said: list[str] = []
    train(small(model=HEAD, optimizer={"lr": 0.1}), tmp_path / "second", say=said.append)
    assert sum(computed) == 90, "another learning rate changes no feature"
    assert sum("are known already" in sentence for sentence in said) == 3
    changes: list[dict[str, object]] = [{"seed": 1}, {"model": {**HEAD, "pooling": "max"}}]
    for number, change in enumerate(changes, 2):  # other random weights, another pooling
        train(small(**{"model": HEAD, **change}), tmp_path / f"{number}")
        assert sum(computed) == 90 * number
    assert len(list(cache.glob("*.npy"))) == 9
    assert not list(cache.glob("*.tmp"))


@pytest.mark.parametrize(
    "change",
    [
        {"model": {**HEAD, "train": "all"}},
        {"data": {"augmentation": {"flip": True}}},
        {"model": {**HEAD, "views": 2, "embedding_dim": 16}},
    ],
)
def test_what_changes_from_step_to_step_is_not_stored(
    small: MakeConfig, cache: Path, tmp_path: Path, change: dict[str, dict[str, object]]
) -> None:
    config = small(model=HEAD)
    data = {**config.data.model_dump(exclude_unset=True), **change.pop("data", {})}
    train(small(**{"model": HEAD, "data": data, **change}), tmp_path / "run")
    assert not cache.exists()


def test_a_resumed_head_is_the_uninterrupted_one(
    small: MakeConfig, cache: Path, computed: list[int], tmp_path: Path
) -> None:
    config = small(model=HEAD)
    run = train(config, tmp_path / "run")
    before = run.load_embeddings("test")
    (run.path / "run.json").unlink()
    after = train(config, tmp_path / "run", resume=True).load_embeddings("test")
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(before.vectors, after.vectors)
    assert sum(computed) == 90, "the same weights, the same features"
