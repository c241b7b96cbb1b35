"""Memory between the steps of a run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from training.heap import freed_memory_kept

MIB = 1 << 20


def resident_mib() -> float:
    """Of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / MIB


@pytest.mark.skipif(sys.platform != "linux", reason="the C library's heap is looked at through /proc")
def test_what_is_freed_stays_until_training_ends() -> None:
    before = resident_mib()
    with freed_memory_kept():
        tensor = torch.ones(96 * MIB // 4)
        taken = resident_mib()
        del tensor
        kept = resident_mib()
    assert taken - before > 90
    assert taken - kept < 8
    assert resident_mib() - before < 8
    tensor = torch.ones(96 * MIB // 4)
    del tensor
    assert resident_mib() - before < 8  # as it was: large blocks are given back at once
