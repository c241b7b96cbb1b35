"""kill -9 at any moment: nothing acknowledged is lost, nothing is made up, and the gallery opens at once.

The writer is killed at random moments of upserts, deletes, rebuilds and backups (after qdrant's crasher).
Seeded: the operations of a run are always the same, the moments of death are not.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest

from index.backup import restore
from index.live import LiveGallery
from index.store import DATABASE_FILE
from tests.crash.writer import pool
from tests.index.conftest import items_of, small
from tests.index.test_live import NEVER

WRITER = Path(__file__).with_name("writer.py")
VECTORS = pool()
State = dict[str, tuple[int, str]]  # id -> vector of the pool, label


@pytest.mark.parametrize("kills", [6, pytest.param(200, marks=[pytest.mark.full, pytest.mark.timeout(3600)])])
def test_kill_nine(make_bundle: Any, tmp_path: Path, kills: int) -> None:
    bundle = make_bundle(items_of(VECTORS, [f"start{row}" for row in range(32)]), small("hnsw", m=4))
    data, backups = tmp_path / "data", tmp_path / "backups"
    backups.mkdir()
    state: State = {f"i{row}": (row, f"start{row}") for row in range(32)}
    dice = random.Random(7)
    acknowledged = 0
    for seed in range(kills):
        before, pending, done = run_and_kill(bundle, data, backups, seed, dice.random() * 0.6, state)
        acknowledged += done
        if dice.random() < 0.3:
            tear_last_page(data)
        started = monotonic()
        with LiveGallery.open(bundle, data, NEVER) as gallery:
            assert monotonic() - started < 10
            found = contents(gallery)
            after = applied(before, pending)
            assert found in (before, after), f"seed {seed}: lost, made up or half of {pending}"
            check_answers(gallery, found)
        state = found
        for backup in backups.iterdir():
            if not backup.name.startswith("."):
                restore(backup, tmp_path / "restored")
                with LiveGallery.open(bundle, tmp_path / "restored", NEVER) as gallery:
                    check_answers(gallery, contents(gallery))
                shutil.rmtree(tmp_path / "restored")
            shutil.rmtree(backup)
    assert acknowledged > kills


def run_and_kill(
    bundle: Path, data: Path, backups: Path, seed: int, seconds: float, state: State
) -> tuple[State, dict[str, Any] | None, int]:
    """The state after what was acknowledged, the operation that was under way, and how many were done."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, WRITER, bundle, data, backups, str(seed)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as writer:
        assert writer.stdout is not None
        assert json.loads(writer.stdout.readline()) == {"ready": True}
        sleep(seconds)
        writer.send_signal(signal.SIGKILL)
        said = [json.loads(line) for line in writer.stdout if line.endswith("\n")]
    pending: dict[str, Any] | None = None
    done = 0
    for words in said:
        if "done" in words:
            state = applied(state, pending)
            pending = None
            done += 1
        else:
            pending = words
    return state, pending, done


def applied(state: State, words: dict[str, Any] | None) -> State:
    """The state after an operation."""
    if words is None:
        return state
    if words["about"] == "upsert":
        return state | {name: (row[0], row[1]) for name, row in words["rows"].items()}
    if words["about"] == "delete":
        return {name: row for name, row in state.items() if name not in words["ids"]}
    return state


def contents(gallery: LiveGallery) -> State:
    """What the gallery holds."""
    stored = gallery.page(None, 10_000)
    assert len({item.id for item in stored}) == len(stored) == gallery.n_items
    which = {row.tobytes(): number for number, row in enumerate(VECTORS)}
    return {item.id: (which[item.vector.tobytes()], item.label) for item in stored}


def check_answers(gallery: LiveGallery, state: State) -> None:
    """Searches find every item by its own vector, with its label, and no other."""
    for exact in (False, True):
        found = gallery.search(VECTORS, 100, exact=exact)
        for vector, hits in enumerate(found):
            assert {(hit.id, hit.label) for hit in hits} == {(name, row[1]) for name, row in state.items()}
            same = sorted(name for name, row in state.items() if row[0] == vector)
            assert [hit.id for hit in hits[: len(same)]] == same


def tear_last_page(data: Path) -> None:
    """What a power cut may leave behind the last commit: a part of a page that was never acknowledged."""
    log = data / f"{DATABASE_FILE}-wal"
    if log.exists():
        with log.open("ab") as file:
            file.write(np.random.default_rng(0).bytes(1_500))
