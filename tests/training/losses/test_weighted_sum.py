"""Weighted sums of losses and the schedules of their weights."""

from __future__ import annotations

import pytest
import torch

from tests.training.losses.cases import batch, make
from training.losses import Weight, WeightedSum


def test_a_weight_moves_in_a_straight_line_between_two_fractions_of_the_run() -> None:
    ramp = Weight(0.0, 2.0, begins=0.2, ends=0.6)
    assert [ramp.compute_value(done) for done in (0, 0.2, 0.4, 0.6, 1)] == pytest.approx([0, 0, 1, 2, 2])
    assert Weight(3, 3).compute_value(0.5) == 3


def test_a_sum_of_losses_is_the_sum() -> None:
    items, labels = batch()
    parts = [make("circle"), make("threshold_consistent_margin"), make("triplet")]
    combined = WeightedSum(parts, [1.0, Weight(0, 4), 0.0])
    torch.testing.assert_close(
        combined(items, labels, done=0.25), parts[0](items, labels) + parts[1](items, labels)
    )
    assert len(list(WeightedSum([make("proxy_anchor")]).parameters())) == 1
    with pytest.raises(ValueError, match="3 losses need as many weights"):
        WeightedSum(parts, [1.0])
