"""What several writers of one database follow: the number of each change, and of the last of each topic.

Writers take turns (``Database.begin_write``), so that numbers rise in the order of the commits, without gaps:
who has seen a number has seen all that came before it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import sqlalchemy as sa

from index.store.tables import AUDIT, SETTINGS

Topic = Literal["points", "corrections", "documents", "choice", "keys"]
TOPICS: tuple[Topic, ...] = ("points", "corrections", "documents", "choice", "keys")
CHANGE, NEWEST = "change", "newest"
FORGOTTEN = "forgotten"  # deletions up to this sequence number are no longer listed
_OF_TOPIC = "changed."


class ChangeLog(NamedTuple):
    """The last change, and what it and those before it were about.

    Attributes:
        change: its number.
        newest: the sequence number of the last write of items.
        forgotten: who has seen less than this sequence number cannot follow, and reads all items.
        points: the last change of an operating point, or of which decides.
        corrections: the last change of a correction.
        documents: the last change of a report or a label audit.
        choice: the last change of the active model, or of what is loaded.
        keys: the last change of an API key.
    """

    change: int = 0
    newest: int = 0
    forgotten: int = 0
    points: int = 0
    corrections: int = 0
    documents: int = 0
    choice: int = 0
    keys: int = 0


_NAMES = {CHANGE: "change", NEWEST: "newest", FORGOTTEN: "forgotten", "sequence": "sequence"} | {
    _OF_TOPIC + topic: topic for topic in TOPICS
}


def name_topic(topic: Topic) -> str:
    """The setting that holds the last change of a topic."""
    return _OF_TOPIC + topic


def select_log(connection: sa.Connection) -> ChangeLog:
    """The log as one transaction sees it."""
    rows = connection.execute(
        sa.select(SETTINGS.c.name, SETTINGS.c.value).where(SETTINGS.c.name.in_(list(_NAMES)))
    )
    values = {_NAMES[row.name]: int(row.value) for row in rows}
    # a version that had one writer forgot deletions up to the generation that it named
    values["forgotten"] = max(values.get("forgotten", 0), values.pop("sequence", 0))
    if "change" not in values:
        lines = connection.execute(sa.select(sa.func.max(AUDIT.c.number))).scalar()
        values["change"] = int(lines or 0)
    return ChangeLog(**values)
