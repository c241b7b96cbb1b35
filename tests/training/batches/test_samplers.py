"""Samplers: which items make a batch."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from api_schemas.config import SamplerConfig
from common.errors import ConfigError
from training.batches.samplers import draw_batches


def test_a_batch_holds_so_many_distinct_items_of_each_class() -> None:
    labels = np.repeat(np.arange(10), 7)
    sampler = SamplerConfig(batch_size=12, items_per_class=3)
    for batch in draw_batches(labels, sampler, 20, seed=0, epoch=0):
        assert len(np.unique(batch)) == 12
        assert np.unique(labels[batch], return_counts=True)[1].tolist() == [3, 3, 3, 3]


def test_every_item_comes_before_one_comes_again() -> None:
    labels = np.repeat(np.arange(6), 8)
    sampler = SamplerConfig(batch_size=12, items_per_class=2)
    seen = np.concatenate(draw_batches(labels, sampler, 4, seed=3, epoch=1))
    assert sorted(seen.tolist()) == list(range(48))


def test_batches_follow_from_seed_and_epoch() -> None:
    labels, sampler = np.repeat(np.arange(9), 5), SamplerConfig(batch_size=8, items_per_class=2)

    def draw_rows(seed: int, epoch: int) -> list[list[int]]:
        return [batch.tolist() for batch in draw_batches(labels, sampler, 3, seed, epoch)]

    assert draw_rows(0, 0) == draw_rows(0, 0)
    assert draw_rows(0, 0) != draw_rows(0, 1)
    assert draw_rows(0, 0) != draw_rows(1, 0)


def test_classes_smaller_than_wanted_give_what_they_have() -> None:
    labels = np.array([0, 1, 1, 2, 2, 2, 3, 3, 3, 3])
    sampler = SamplerConfig(batch_size=10, items_per_class=4)
    (batch,) = draw_batches(labels, sampler, 1, seed=0, epoch=0)
    assert sorted(batch.tolist()) == list(range(10))


def test_an_episode_holds_whole_classes_drawn_again() -> None:
    labels = np.repeat(np.arange(8), [2, 5, 5, 5, 9, 9, 9, 9])  # class 0 is too small for an episode
    sampler = SamplerConfig(name="episodic", batch_size=12, items_per_class=4)
    episodes = draw_batches(labels, sampler, 200, seed=0, epoch=0)
    for rows in episodes:
        assert len(np.unique(rows)) == 12
        ways, counts = np.unique(labels[rows], return_counts=True)
        assert counts.tolist() == [4, 4, 4]
        assert 0 not in ways
        assert np.array_equal(labels[rows], np.repeat(labels[rows][::4], 4))  # class by class
    first_shots = np.concatenate([rows[::4] for rows in episodes])
    assert set(np.concatenate(episodes)) == set(range(2, len(labels)))
    assert set(first_shots) == set(range(2, len(labels)))  # every item is support some time
    again = draw_batches(labels, sampler, 200, seed=0, epoch=0)
    assert all(np.array_equal(*pair) for pair in zip(episodes, again, strict=True))
    assert not np.array_equal(episodes[0], draw_batches(labels, sampler, 200, seed=0, epoch=1)[0])
    with pytest.raises(ConfigError, match="needs 9 classes of at least 4 items, found 7"):
        draw_batches(labels, SamplerConfig(name="episodic", batch_size=36, items_per_class=4), 1, 0, 0)


def test_an_episode_of_broken_classes_is_refused() -> None:
    with pytest.raises(ValidationError, match="multiple of items_per_class"):
        SamplerConfig(name="episodic", batch_size=10, items_per_class=4)
    with pytest.raises(ValidationError, match="a batch needs two classes"):
        SamplerConfig(name="episodic", batch_size=4, items_per_class=4)


@pytest.mark.parametrize("name", ["class_balanced", "shuffled"])
def test_the_other_samplers_fill_their_batches(name: str) -> None:
    labels = np.array([0] * 90 + [1] * 10)
    sampler = SamplerConfig.model_validate({"name": name, "batch_size": 50})
    drawn = np.concatenate(draw_batches(labels, sampler, 40, seed=0, epoch=0))
    assert len(drawn) == 2_000
    fraction = (labels[drawn] == 1).mean()
    assert abs(fraction - (0.5 if name == "class_balanced" else 0.1)) < 0.05
