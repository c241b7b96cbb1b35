"""Memory between the steps of a run."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# in a process of its own: what other tests left in the heap decides where a tensor lies
SCRIPT = """
import json
from pathlib import Path

import torch

from training.runtime.malloc_tuning import keep_freed_memory


def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def with_and_after(size_mib):
    tensor = torch.ones(size_mib * 2**20 // 4)
    held = resident_mib()
    del tensor
    return held, resident_mib()


with_and_after(96)
before = resident_mib()
with keep_freed_memory():
    held, kept = with_and_after(96)
left = resident_mib()
again, gone = with_and_after(96)
print(json.dumps([value - before for value in (held, kept, left, again, gone)]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library's heap is looked at through /proc")
def test_what_is_freed_stays_until_training_ends() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    held, kept, left, again, gone = json.loads(done.stdout)
    assert held > 90
    assert kept > 90
    assert left < 8
    assert again > 90
    assert gone < 8  # as it was: large blocks are given back at once
