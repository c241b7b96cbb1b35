"""A process that writes to a gallery until it is killed: python writer.py BUNDLE DATA BACKUPS SEED

Before an operation it says what it is about to do, after it returned it says so: one JSON line each.
"""

from __future__ import annotations

import json
import random
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from api_schemas.http.gallery import Feedback
from index.gallery.live_gallery import LiveGallery, RebuildLimits
from index.items.stored_item import StoredItem

DIM = 8
IDS = 60


def draw_pool() -> np.ndarray[Any, np.dtype[np.float32]]:
    """The vectors that are written, float32 [32, 8] unit rows."""
    rows = np.random.default_rng(0).normal(size=(32, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def print_line(**words: Any) -> None:
    """One line the parent reads."""
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def make_feedback(tag: str, a: str, b: str) -> Feedback:
    """Feedback that its tag sets apart."""
    return Feedback(
        at=datetime.now(UTC),
        model_hash="",
        operating_point=tag,
        decision=None,
        score=None,
        a=a,
        b=b,
        same=True,
        source="pair",
    )


def main(bundle: str, data: str, backups: str, seed: int) -> None:
    """Write at random for ever."""
    dice = random.Random(seed)
    vectors = draw_pool()
    live = LiveGallery.open(bundle, data, RebuildLimits(buffer_rows=10, deleted_fraction=0.2))
    print_line(ready=True)
    for turn in range(10**9):
        roll = dice.random()
        if roll < 0.55:
            names = dice.sample(range(IDS), dice.randint(1, 6))
            rows = {f"i{name}": [dice.randrange(32), f"{seed}.{turn}"] for name in names}
            print_line(about="upsert", rows=rows)
            live.upsert(
                [StoredItem(name, label, vectors[v]) for name, (v, label) in rows.items()],
                thumbnails={name: label.encode() for name, (_, label) in rows.items()},
            )
        elif roll < 0.75:
            ids = [f"i{name}" for name in dice.sample(range(IDS), dice.randint(1, 6))]
            print_line(about="delete", ids=ids)
            live.delete(ids)
        elif roll < 0.85:
            a, b = (f"i{name}" for name in dice.sample(range(IDS), 2))
            print_line(about="feedback", tag=f"{seed}.{turn}", a=a, b=b)
            live.records.add_feedback(make_feedback(f"{seed}.{turn}", a, b))
        elif roll < 0.95:
            print_line(about="rebuild")
            live.rebuild()
        else:
            print_line(about="backup", name=f"{seed}-{turn}")
            live.backup(Path(backups) / f"{seed}-{turn}")
        print_line(done=True)


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
