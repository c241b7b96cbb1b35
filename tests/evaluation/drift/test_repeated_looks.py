"""However many looks there are, together they risk no more than was allowed."""

from __future__ import annotations

import pytest

from evaluation.drift.repeated_looks import spend_alpha


def test_all_looks_together_spend_alpha() -> None:
    spent = [spend_alpha(0.01, look) for look in range(1, 100_001)]
    assert spent == sorted(spent, reverse=True)
    assert sum(spent) < 0.01
    assert sum(spent) == pytest.approx(0.01, rel=1e-4)
