"""Margins of training items: against a plain loop, and lower where a label is wrong."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from training.loop.item_margins import KEPT, MOST_NUMBERS, ItemMargins, build_item_margins


def make_batches(n_batches: int = 6, size: int = 9) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Unit rows, class codes and items, some of them twice in one batch; item 30 of class 5 never."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(n_batches):
        items = torch.randint(0, 30, (size,), generator=generator)
        rows = F.normalize(torch.randn(size, 8, generator=generator), dim=1)
        batches.append((rows, items // 6, items))
    return batches


def test_margins_are_those_of_a_plain_loop() -> None:
    margins = ItemMargins(31, 6, 8)
    centres: dict[int, np.ndarray] = {}
    found: dict[int, list[float]] = {}
    for rows, codes, items in make_batches():
        for row, code, item in zip(rows.numpy(), codes.tolist(), items.tolist(), strict=True):
            others = [row @ centre for other, centre in centres.items() if other != code]
            if code in centres and others:
                found.setdefault(item, []).append(row @ centres[code] - max(others))
        for code in set(codes.tolist()):
            mean = rows.numpy()[codes.numpy() == code].mean(axis=0)
            moved = KEPT * centres.get(code, 0) + (1 - KEPT) * mean / np.linalg.norm(mean)
            centres[code] = moved / np.linalg.norm(moved)
        margins.update(rows, codes, items)
    expected = np.full(31, np.nan)
    for item, values in found.items():
        expected[item] = np.mean(values)
    assert len(found) > 20
    np.testing.assert_allclose(margins.compute_means().numpy(), expected, atol=1e-5)


def test_very_many_classes_have_none() -> None:
    assert build_item_margins(10, MOST_NUMBERS // 8, 8) is not None
    assert build_item_margins(10, MOST_NUMBERS // 8 + 1, 8) is None
