"""The pool matched again: which kept queries are a match by now."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from common.array_types import UnitVectors
from common.time_budget import check_time
from decision.errors import NoOperatingPoint, OtherGroup
from embeddings.fingerprints import compute_fingerprints
from index.gallery.live_gallery import LiveGallery
from index.store.kept_queries import KeptQuery, PoolFilter
from service.models.loaded_model import LoadedModel

NEAREST = 1_000  # kept queries that are matched again once a label has new items: the most similar to these
AT_ONCE = 500
OPEN = PoolFilter(status="open", decision="unknown")


def find_offers(model: LoadedModel, vectors: UnitVectors) -> list[str | None]:
    """The label that each of [n, d] unit rows is a match of now, as ``/v1/match`` says; None for none."""
    live = model.get_live_gallery()
    offers: list[str | None] = []
    for start in range(0, len(vectors), AT_ONCE):
        check_time()
        block = vectors[start : start + AT_ONCE]
        try:
            decisions = model.gallery.match(block)
        except (NoOperatingPoint, OtherGroup):
            return [None] * len(vectors)
        labels = [decision.label if decision.decision == "match" else None for decision in decisions]
        offers += _leave_out_corrected(live, block, labels)
    return offers


def rematch_nearest(
    model: LoadedModel, label: str, vectors: UnitVectors
) -> tuple[list[KeptQuery], dict[str, str | None]]:
    """Open unknowns that match a label by now, the nearest to these new items [m, d] first.

    Also by id what each of those that were looked at is to be offered, where that has changed.
    """
    live = model.get_live_gallery()
    nearest: list[tuple[float, KeptQuery, UnitVectors]] = []
    for queries, rows in live.unknowns.iterate(OPEN):
        similarities = (rows @ vectors.T).max(axis=1)
        chosen = np.argsort(-similarities, kind="stable")[:NEAREST].tolist()
        nearest += [(float(similarities[row]), queries[row], rows[row]) for row in chosen]
        nearest.sort(key=lambda entry: (-entry[0], entry[1].id))
        del nearest[NEAREST:]
    if not nearest:
        return [], {}
    offers = find_offers(model, np.stack([row for _, _, row in nearest]))
    found = [(query, offer) for (_, query, _), offer in zip(nearest, offers, strict=True)]
    changed = {query.id: offer for query, offer in found if offer != query.offered}
    return [replace(query, offered=label) for query, offer in found if offer == label], changed


def _leave_out_corrected(
    live: LiveGallery, vectors: UnitVectors, labels: list[str | None]
) -> list[str | None]:
    corrections = live.corrections
    if not len(corrections):
        return labels
    return [
        None if label in corrections.find_excluded(None, fingerprint) else label
        for label, fingerprint in zip(labels, compute_fingerprints(vectors), strict=True)
    ]
