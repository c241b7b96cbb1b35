"""kill -9 at any moment: nothing acknowledged is lost, nothing is made up, and the gallery opens at once.

The writer is killed at random moments of upserts, deletes, feedback, rebuilds and backups (after qdrant's
crasher). Seeded: the operations of a run are always the same, the moments of death are not.
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
from time import sleep
from typing import Any, NamedTuple

import numpy as np
import pytest

from index.gallery.backup import restore_backup
from index.gallery.live_gallery import LiveGallery
from index.store.item_store import DATABASE_FILE
from tests.crash.writer import IDS, draw_pool
from tests.index.conftest import NEVER, make_items, make_small_config
from tests.index.evidence import check_class_sums, make_evidence_point, make_scorer

WRITER = Path(__file__).with_name("writer.py")
VECTORS = draw_pool()
SCORER = make_scorer("similarity")
Items = dict[str, tuple[int, str]]  # id -> vector of the pool, label


class State(NamedTuple):
    """State of a gallery; ``feedback`` by its tag: the items it is about."""

    items: Items
    feedback: dict[str, tuple[str | None, str | None]]


@pytest.mark.parametrize("kills", [6, pytest.param(200, marks=[pytest.mark.full, pytest.mark.timeout(3600)])])
def test_kill_nine(make_bundle: Any, tmp_path: Path, kills: int, record_testsuite_property: Any) -> None:
    deciding = make_evidence_point("similarity")
    bundle = make_bundle(
        make_items(VECTORS, [f"start{row}" for row in range(32)]),
        make_small_config("hnsw", m=4),
        operating_points=[deciding],
        active={"match": deciding.id, "verify": None},
    )
    data, backups = tmp_path / "data", tmp_path / "backups"
    backups.mkdir()
    state = State({f"i{row}": (row, f"start{row}") for row in range(32)}, {})
    dice = random.Random(7)
    acknowledged = backed_up = 0
    for seed in range(kills):
        before, pending, done, kept = run_and_kill(bundle, data, backups, seed, dice, state)
        acknowledged += done
        if dice.random() < 0.3:
            tear_last_page(data)
        with LiveGallery.open(bundle, data, NEVER) as live:
            survived = read_contents(live)
            after = apply_operation(before, pending)
            assert survived in (before, after), f"seed {seed}: lost, made up or half of {pending}"
            check_answers(live, survived)
        state = survived
        for backup in backups.iterdir():
            if not backup.name.startswith("."):
                restore_backup(backup, tmp_path / "restored")
                with LiveGallery.open(bundle, tmp_path / "restored", NEVER) as live:
                    assert read_contents(live) == kept.pop(backup.name)
                    check_answers(live, read_contents(live))
                shutil.rmtree(tmp_path / "restored")
                backed_up += 1
            shutil.rmtree(backup)
        assert kept.keys() <= {None if pending is None else pending.get("name")}, "a backup is missing"
    record_testsuite_property(
        f"{kills} kills", f"{acknowledged} operations acknowledged, {backed_up} backups restored"
    )
    assert acknowledged > kills


def run_and_kill(
    bundle: Path, data: Path, backups: Path, seed: int, dice: random.Random, state: State
) -> tuple[State, dict[str, Any] | None, int, dict[str, State]]:
    """The state after what was acknowledged, what was under way, how many were done, backups' states."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, WRITER, bundle, data, backups, str(seed)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as writer:
        assert writer.stdout is not None
        assert json.loads(writer.stdout.readline()) == {"ready": True}
        said = [json.loads(writer.stdout.readline()) for _ in range(dice.randrange(40))]
        sleep(dice.random() * 0.05)
        writer.send_signal(signal.SIGKILL)
        said += [json.loads(line) for line in writer.stdout if line.endswith("\n")]
    pending: dict[str, Any] | None = None
    done = 0
    kept: dict[str, State] = {}
    for words in said:
        if "done" in words:
            state = apply_operation(state, pending)
            pending = None
            done += 1
        else:
            pending = words
            if words["about"] == "backup":
                kept[words["name"]] = state
    return state, pending, done, kept


def apply_operation(state: State, words: dict[str, Any] | None) -> State:
    """The state after an operation."""
    if words is None:
        return state
    items, feedback = state
    if words["about"] == "upsert":
        return State(items | {name: (row[0], row[1]) for name, row in words["rows"].items()}, feedback)
    if words["about"] == "delete":
        gone = set(words["ids"])
        return State(
            {name: row for name, row in items.items() if name not in gone},
            {tag: about for tag, about in feedback.items() if not gone & set(about)},
        )
    if words["about"] == "feedback":
        a, b = (name if name in items else None for name in (words["a"], words["b"]))
        return State(items, feedback | {words["tag"]: (a, b)})
    return state


def read_contents(live: LiveGallery) -> State:
    """The state that the gallery holds."""
    stored = live.gallery.page(None, 10_000)
    assert len({item.id for item in stored}) == len(stored) == live.gallery.n_items
    which = {row.tobytes(): number for number, row in enumerate(VECTORS)}
    # a written item has the thumbnail that came with it, those of the bundle have none
    written = {item.id: item.label.encode() for item in stored if not item.label.startswith("start")}
    assert live.gallery.read_thumbnails([f"i{number}" for number in range(IDS)]) == written
    entries = live.records.read_feedback()
    feedback = {str(entry.operating_point): (entry.a, entry.b) for entry in entries}
    assert len(feedback) == len(entries)
    return State({item.id: (which[item.vector.tobytes()], item.label) for item in stored}, feedback)


def check_answers(live: LiveGallery, state: State) -> None:
    """Searches find every item by its own vector, with its label, and no other; class sums are right."""
    check_class_sums(live.gallery.view, live.gallery.page(None, 10_000), SCORER)
    labelled = {(name, row[1]) for name, row in state.items.items()}
    for exact in (False, True):
        results = live.gallery.search(VECTORS, 100, exact=exact)
        for vector, hits in enumerate(results):
            assert {(hit.id, hit.label) for hit in hits} == labelled
            same = sorted(name for name, row in state.items.items() if row[0] == vector)
            assert [hit.id for hit in hits[: len(same)]] == same


def tear_last_page(data: Path) -> None:
    """What a power cut may leave behind the last commit: a part of a page that was never acknowledged."""
    log = data / f"{DATABASE_FILE}-wal"
    if log.exists():
        with log.open("ab") as file:
            file.write(np.random.default_rng(0).bytes(1_500))
