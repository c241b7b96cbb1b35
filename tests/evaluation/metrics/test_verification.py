"""Exact sums behind the AUC; the figures themselves are tested in ``test_evaluate.py``."""

from __future__ import annotations

import numpy as np

from evaluation.metrics.verification import sum_products


def test_products_of_large_counts_are_exact() -> None:
    a = np.array([3_000_000_000, 5, 0], dtype=np.int64)
    b = np.array([4_000_000_000, 7, 9], dtype=np.int64)
    assert sum_products(a, b) == 3_000_000_000 * 4_000_000_000 + 35
