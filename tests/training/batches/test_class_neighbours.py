"""Classes that lie near each other meet in the same batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from api_schemas.config import SamplerConfig
from training.batches import class_neighbours
from training.batches.class_neighbours import ClassNeighbours
from training.batches.samplers import draw_batches


def place_on_circle(degrees: list[float]) -> Tensor:
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_a_centre_is_the_direction_of_what_the_last_batch_held() -> None:
    neighbours = ClassNeighbours(4, 2)
    neighbours.update(place_on_circle([0, 40, 180]), torch.tensor([2, 2, 0]))
    neighbours.update(place_on_circle([10, 30, 90]), torch.tensor([0, 0, 1]))
    expected = torch.cat([place_on_circle([20, 90, 20]), torch.zeros(1, 2)])
    torch.testing.assert_close(neighbours.centres, expected, atol=1e-6, rtol=0)


def test_the_nearest_are_those_of_the_beginning_of_the_epoch() -> None:
    neighbours = ClassNeighbours(4, 2)
    neighbours.update(place_on_circle([0, 10, 30, 90]), torch.arange(4))
    assert neighbours.find_nearest(2) is None
    neighbours.begin_epoch()
    expected = [[1, 2], [0, 2], [1, 0], [2, 1]]
    assert neighbours.find_nearest(2).tolist() == expected
    neighbours.update(place_on_circle([180]), torch.tensor([1]))
    assert neighbours.find_nearest(2).tolist() == expected
    neighbours.begin_epoch()
    assert neighbours.find_nearest(2).tolist() == [[2, 3], [3, 2], [0, 3], [2, 1]]


def test_blocks_give_what_all_at_once_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_neighbours, "CLASSES_AT_ONCE", 7)
    random = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(40, 5, generator=random), dim=1)
    seen = torch.randperm(40, generator=random)[:25]
    neighbours = ClassNeighbours(40, 5)
    neighbours.update(centres[seen], seen)
    neighbours.begin_epoch()
    nearest = neighbours.find_nearest(3)
    for code in range(40):
        similarity = {label: float(neighbours.centres[code] @ centres[label]) for label in seen.tolist()}
        similarity.pop(code, None)
        naive = sorted(similarity, key=lambda label: -similarity[label])[:3]
        if code in seen:  # others have no centre: nothing is nearer than anything
            assert nearest[code].tolist() == naive
        assert set(nearest[code].tolist()) <= set(seen.tolist()) - {code}


def test_a_class_that_no_batch_has_held_is_never_nearest() -> None:
    neighbours = ClassNeighbours(6, 2)
    for seen in ([4], [4, 1], [4, 1, 3]):
        neighbours.update(place_on_circle([10.0 * code for code in seen]), torch.tensor(seen))
        neighbours.begin_epoch()
        nearest = neighbours.find_nearest(4)
        if len(seen) == 1:
            assert nearest is None
            continue
        assert nearest.shape == (6, len(seen) - 1)
        assert set(nearest.flatten().tolist()) == set(seen)


def test_each_class_brings_its_nearest() -> None:
    labels = np.repeat(np.arange(12), 6)
    nearest = (np.arange(12)[:, None] ^ np.array([[1]])).astype(np.int64)  # 0 with 1, 2 with 3, ...
    sampler = SamplerConfig(batch_size=12, items_per_class=3, neighbours=1)
    drawn = draw_batches(labels, sampler, 30, seed=0, epoch=0, nearest=nearest)
    for batch in drawn:
        classes, counts = np.unique(labels[batch], return_counts=True)
        assert counts.tolist() == [3] * 4
        assert len(np.unique(batch)) == 12
        assert np.array_equal(classes[::2] ^ 1, classes[1::2])
    assert len(np.unique(np.concatenate(drawn))) == len(labels)
    plain = draw_batches(labels, sampler, 30, seed=0, epoch=0)
    assert any(len(set(labels[batch] // 2)) > 2 for batch in plain)


def test_a_batch_is_filled_whatever_is_near() -> None:
    labels = np.repeat(np.arange(5), 4)
    nearest = np.array([[1, 2, 3, 4], [0, 2, 3, 4], [0, 1, 3, 4], [0, 1, 2, 4], [0, 1, 2, 3]])
    sampler = SamplerConfig(batch_size=14, items_per_class=4, neighbours=4)
    for batch in draw_batches(labels, sampler, 20, seed=1, epoch=0, nearest=nearest):
        assert len(batch) == len(np.unique(batch)) == 14


def test_neighbours_are_for_classes_that_are_drawn_whole() -> None:
    with pytest.raises(ValidationError, match="are for the sampler 'm_per_class', found 'shuffled'"):
        SamplerConfig(name="shuffled", neighbours=2)
