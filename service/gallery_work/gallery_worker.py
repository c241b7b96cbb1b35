"""The worker process: reads a task from stdin, prints messages, ends when its parent does.

It takes the cores that requests leave: its priority is low, and it holds no lock that a request waits for.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from api_schemas.operating_point import OperatingPoint
from common.errors import InputError, LimenError
from decision.scorers import CosineScorer, Scorer
from embeddings.embedding_set import EmbeddingSet
from evaluation.label_audit.audit_labels import audit_labels
from index.bundle import read_bundle
from index.gallery.data_folder import HASHES_FILE, open_item_store
from index.gallery.gallery import Gallery
from index.items.stored_item import StoredItem
from index.store.item_store import ItemStore
from index.store.service_records import ServiceRecords
from index.verified_files import HashCache
from service.gallery_work.gallery_report import compute_report
from service.gallery_work.gallery_task import GalleryTask, Message

T = TypeVar("T")
NICENESS = 10
PAGE = 4_096


@dataclass(frozen=True, eq=False)
class TaskItems:
    """The items, the number of the last write that they surely hold, and the point that counts."""

    items: EmbeddingSet
    sequence: int
    model_hash: str
    point: OperatingPoint | None
    scorer: Scorer


def main() -> None:
    """Do the one task that stdin names."""
    task = GalleryTask.model_validate_json(sys.stdin.readline())
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    with suppress(OSError):
        os.nice(NICENESS)
    try:
        given = _read_items(task)
        if task.kind == "report":
            document = compute_report(
                task, given.items, given.sequence, given.model_hash, given.scorer, track
            ).model_dump(mode="json")
        else:
            point = given.point
            document = audit_labels(
                given.items,
                threshold=None if point is None else point.threshold,
                threshold_from="" if point is None else f"the operating point '{point.name}'",
                scorer=given.scorer,
                model_hash=given.model_hash,
                most=task.most,
                track=track,
            ).model_dump(mode="json")
        _say(Message(result=document))
    except LimenError as error:
        _say(Message(problem=str(error)))
    except Exception:
        _say(Message(problem="Internal error; the log has it.", traceback=traceback.format_exc()))


def track(steps: Iterable[T], name: str, total: int | None = None) -> Iterator[T]:
    """Print the progress of a step, a percent at a time."""
    shown = -1
    for done, step in enumerate(steps):
        part = int(100 * done / total) if total else 0
        if part > shown:
            shown = part
            _say(Message(step=name, progress=part / 100 if total else None))
        yield step


def _say(message: Message) -> None:
    sys.stdout.write(message.model_dump_json(exclude_none=True) + "\n")
    sys.stdout.flush()


def _exit_with_parent() -> None:
    """A parent that is gone has closed the pipe."""
    sys.stdin.read()
    os._exit(1)


def _read_items(task: GalleryTask) -> TaskItems:
    _say(Message(step="reading items"))
    if task.items_folder is None:
        with Gallery.open(task.bundle) as gallery:
            point = gallery.operating_points.get(task.point or "")
            scorer = CosineScorer() if point is None else gallery.prepare(point).scorer
            items = _collect(_iterate(gallery))
            return TaskItems(items, 0, gallery.manifest.model_hash, point, _choose_pair_scorer(scorer))
    bundle = read_bundle(task.bundle, HashCache(task.items_folder / HASHES_FILE))
    model_hash = bundle.manifest.model_hash
    with closing(open_item_store(task.items_folder, model_hash, task.database_url, read_only=True)) as store:
        points = {**ServiceRecords(store).read_points(), **bundle.points}
        point = points.get(task.point or "")
        scorer = CosineScorer() if point is None else bundle.build_decider(point).scorer
        sequence = store.read_state().newest  # before the items: what they hold beyond it is found next time
        return TaskItems(_collect(_iterate(store)), sequence, model_hash, point, _choose_pair_scorer(scorer))


def _choose_pair_scorer(scorer: Scorer) -> Scorer:
    """A point that scores whole classes scores pairs by similarity, as the gallery does."""
    return CosineScorer() if scorer.is_similarity else scorer


def _iterate(source: Gallery | ItemStore) -> Iterator[StoredItem]:
    after: str | None = None
    while page := source.page(after, PAGE):
        after = page[-1].id
        yield from page


def _collect(items: Iterator[StoredItem]) -> EmbeddingSet:
    vectors, labels, ids = [], [], []
    for item in items:
        vectors.append(item.vector)
        labels.append(item.label)
        ids.append(item.id)
    if not ids:
        raise InputError("The gallery is empty, so there is nothing to report on: write items first.")
    return EmbeddingSet(np.stack(vectors), np.array(labels), np.array(ids))


if __name__ == "__main__":
    main()
