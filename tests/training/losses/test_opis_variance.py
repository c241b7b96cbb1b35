"""The variance of error rates over classes: its memory, and that it falls."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from tests.training.losses.cases import batch, make


def test_rates_are_over_earlier_batches_too() -> None:
    loss = make("opis_variance", decay=0.5).train()
    first, second = batch(seed=1), batch(seed=2)
    loss(*first)
    counts = loss.counts.clone()
    assert counts[1].tolist() == [12, 12, 6, 6, 0]  # classes of 4, 4, 3, 3 items and of one
    assert counts[0].tolist() == [44, 44, 36, 36, 14]
    loss(*second)
    torch.testing.assert_close(loss.counts, 1.5 * counts)
    copy = make("opis_variance", decay=0.5)
    copy.load_state_dict(loss.state_dict())
    items, labels = batch(seed=3)
    torch.testing.assert_close(copy(items, labels), loss.eval()(items, labels))
    torch.testing.assert_close(loss.counts, 1.5 * counts)  # evaluation remembers nothing


def test_a_class_that_stands_too_near_another_moves_away_until_rates_are_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    means = F.normalize(torch.randn(6, 8, dtype=torch.float64, generator=generator))
    means[1] = F.normalize(means[0] + 0.6 * means[1], dim=0)
    labels = torch.arange(6).repeat_interleave(8)
    noise = torch.randn(48, 8, dtype=torch.float64, generator=generator)
    items = (means[labels] + 0.25 * noise).requires_grad_()
    loss = make("opis_variance", classes=6)
    before = float(loss(items, labels).detach())
    optimizer = torch.optim.Adam([items], lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        loss(items, labels).backward()
        optimizer.step()
    assert float(loss(items, labels).detach()) < before / 2
