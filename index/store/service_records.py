"""Records a data folder keeps beside items: feedback, the history of reports, points that were added."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from api_schemas.http.admin import HistoryEntry
from api_schemas.http.gallery import Feedback
from api_schemas.operating_point import OperatingPoint
from index.store.idempotency import IdempotencyKey, Reply
from index.store.item_store import ItemStore
from index.store.tables import FEEDBACK, REPORTS
from index.store.write_order import WriteOrder

MOST_CORRECTIONS = 100_000
DOCUMENT = "document."  # settings: reports and audits
DECIDING = "deciding."  # settings: which point decides 1:1, which 1:N


class ServiceRecords:
    """Kept in the item store, so that a backup takes all of it together; ``writing`` keeps writers apart.

    Every method is one transaction; on return what was written is on disk.
    """

    def __init__(
        self, store: ItemStore, writing: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self._store = store
        self._writing = writing

    def add_feedback(
        self, feedback: Feedback, subject: str | None = None, order: WriteOrder | None = None
    ) -> int:
        """Keep feedback; returns how many entries there are now.

        An id of no item is left out, so that what was erased does not come back. When an item is deleted,
        the feedback about it goes in the same transaction.

        Args:
            feedback: what was decided and what is true.
            subject: the decision or pair that is judged, which has one verdict: a later one replaces it.
        """
        with self._writing():
            ids = {"a": feedback.a, "b": feedback.b}
            known = self._store.select_known(filter(None, ids.values()))
            about = {name: item_id if item_id in known else None for name, item_id in ids.items()}
            document = feedback.model_copy(update=about).model_dump_json()
            self._store.set_feedback(
                subject or secrets.token_hex(16),
                document,
                order,
                "same" if feedback.same else "different",
                not_label=feedback.not_label,
                **about,
            )
            return self._store.count(FEEDBACK)

    def delete_feedback(self, subject: str, order: WriteOrder | None = None) -> bool:
        """Take a piece of feedback back; whether there was one."""
        with self._writing():
            return self._store.delete_feedback(subject, order)

    def read_feedback_page(
        self, before: int | None, limit: int, *, corrections: bool = False
    ) -> list[tuple[int, str, Feedback]]:
        """Feedback with its number and subject, newest first."""
        rows = self._store.read_feedback_page(before, limit, corrections=corrections)
        return [(row.number, row.subject, Feedback.model_validate_json(row.document)) for row in rows]

    def read_corrections(self) -> list[tuple[str, Feedback]]:
        """Every correction with its subject, newest first."""
        rows = self._store.read_feedback_page(None, MOST_CORRECTIONS, corrections=True)
        return [(row.subject, Feedback.model_validate_json(row.document)) for row in rows]

    def count_feedback(self) -> tuple[int, int]:
        """How many pieces of feedback there are, and how many of these are corrections."""
        return self._store.count(FEEDBACK), self._store.count_corrections()

    def read_feedback(self) -> list[Feedback]:
        """The feedback, oldest first."""
        return [Feedback.model_validate_json(document) for document in self._store.read_documents(FEEDBACK)]

    def set_document(self, name: str, document: str) -> None:
        """Keep a document that every process of the service shows."""
        with self._writing():
            self._store.set_settings({DOCUMENT + name: document}, None, "documents")

    def read_document(self, name: str) -> str | None:
        """A document that some process has kept, or None."""
        return self._store.read_setting(DOCUMENT + name)

    def read_reply(self, key: str) -> Reply | None:
        """What is known of an idempotency key."""
        return self._store.read_reply(key)

    def keep_answer(self, key: IdempotencyKey, status: int, body: bytes) -> None:
        """Keep the answer to the write that a key came with."""
        with self._writing():
            self._store.keep_answer(key, status, body)

    def add_report(self, entry: HistoryEntry) -> None:
        """Keep an entry of the history of reports."""
        with self._writing():
            self._store.add_document(REPORTS, entry.model_dump_json())

    def read_reports(self) -> list[HistoryEntry]:
        """The history of reports, oldest first."""
        return [
            HistoryEntry.model_validate_json(document) for document in self._store.read_documents(REPORTS)
        ]

    def add_point(self, point: OperatingPoint, order: WriteOrder | None = None) -> None:
        """Keep an operating point; one with the same id is replaced."""
        with self._writing():
            self._store.set_points({point.id: point.to_json()}, order)

    def read_points(self) -> dict[str, OperatingPoint]:
        """The operating points by id."""
        documents = self._store.read_points()
        return {name: OperatingPoint.model_validate_json(text) for name, text in documents.items()}

    def set_deciding(self, endpoint: str, point_id: str, order: WriteOrder | None = None) -> None:
        """Remember which point decides an endpoint, "match" or "verify"."""
        with self._writing():
            self._store.set_settings({DECIDING + endpoint: point_id}, order, "points")

    def read_deciding(self, endpoint: str) -> str | None:
        """The id of the point that was chosen for an endpoint, or None."""
        return self._store.read_setting(DECIDING + endpoint)
