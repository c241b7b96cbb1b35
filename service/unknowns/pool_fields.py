"""The metadata fields of kept queries, each of one kind, so that filters can compare them."""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from typing import Any

from index.gallery.live_gallery import LiveGallery
from index.items.columns import ColumnKind, is_list_kind
from index.items.metadata import MetadataValue
from index.items.stored_item import find_kind, fits_kind
from index.store.kept_queries import PoolFilter

AGAIN_AFTER = 1.0  # seconds between two looks at what other processes keep
LATE = 60.0  # seconds by which their clocks may differ, and which they may take
MOST_NEW = 1_000


class PoolFields:
    """A field is of the kind that the gallery gives it, or else its first value in the pool.

    Values of another kind are left out, and so are fields beyond the most that a gallery may have.
    """

    def __init__(self, live: LiveGallery, most: int) -> None:
        self._live = live
        self._most = most
        self._learned_at = 0.0  # seconds since 1970
        self._own: dict[str, ColumnKind] | None = None

    @property
    def kinds(self) -> dict[str, ColumnKind]:
        """The kind of each field."""
        now = time()
        if self._own is None:
            self._own = {}
            for queries, _ in self._live.unknowns.iterate(PoolFilter()):
                for query in queries:
                    self._add(query.metadata)
            self._learned_at = now
        elif self._live.is_shared and now > self._learned_at + AGAIN_AFTER:
            since = PoolFilter(since=self._learned_at - LATE)
            for query in reversed(self._live.unknowns.page(since, MOST_NEW)):
                self._add(query.metadata)
            self._learned_at = now
        # lists of the gallery without values are of the kind of those here
        known = {
            name: self._own[name] if kind == "list" and is_list_kind(self._own.get(name, "text")) else kind
            for name, kind in self._live.fields.items()
        }
        return {**self._own, **known}

    def select(self, metadata: Mapping[str, Any]) -> dict[str, MetadataValue]:
        """The fields that are of their kind; new ones are learned."""
        known = self.kinds
        self._add(metadata)
        return select_fitting(metadata, {**(self._own or {}), **known})

    def _add(self, metadata: Mapping[str, Any]) -> None:
        assert self._own is not None
        for name, value in metadata.items():
            kind, known = find_kind(value), self._own.get(name)
            if kind is None or (known is None and len(self._own) >= self._most):
                continue
            if known is None or (known == "list" and is_list_kind(kind)):
                self._own[name] = kind


def select_fitting(
    metadata: Mapping[str, Any], kinds: Mapping[str, ColumnKind], *, keep_new: bool = False
) -> dict[str, MetadataValue]:
    """The fields whose values are of the kinds; of those without a kind none, or all with ``keep_new``."""
    return {
        name: value
        for name, value in metadata.items()
        if (name in kinds and fits_kind(value, kinds[name])) or (keep_new and name not in kinds)
    }
