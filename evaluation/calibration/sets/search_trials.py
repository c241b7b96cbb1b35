"""The trials of a 1:N search that a threshold is chosen on, whatever plays the unknown queries."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from common.array_types import Bools
from evaluation.calibration.trials import UNKNOWN, Trials


@dataclass(frozen=True, eq=False)
class SearchTrials:
    """Trials of known and of unknown queries.

    Attributes:
        pool: all classes with each other, left out in turn: how match rates fall with the threshold.
        known: queries of the gallery's classes with the gallery: what is missed.
        unknown: queries that must not match, with the gallery; those of ``pool`` unless there are others.
    """

    pool: Trials
    known: Trials
    unknown: Trials

    @property
    def has_strangers(self) -> bool:
        """Whether the unknown queries are not those of the gallery's own classes."""
        return self.unknown is not self.pool


def split_search(pool: Trials, in_gallery: Bools | None, strangers: Trials | None) -> SearchTrials:
    """The trials of a search.

    Args:
        pool: all classes with each other.
        in_gallery: bool [classes], False for a cohort's; None where there is none.
        strangers: trials of real unknown queries with the gallery; the cohort's do unless given.
    """
    if in_gallery is None:
        return SearchTrials(pool, pool, strangers or pool)
    known = pool.select_classes(in_gallery)
    if strangers is None:
        rows = np.flatnonzero(~in_gallery[pool.codes])
        strangers = replace(
            pool,
            other=pool.other[np.ix_(rows, np.flatnonzero(in_gallery))],
            own=np.full(len(rows), -np.inf, dtype=np.float32),
            codes=np.full(len(rows), UNKNOWN, dtype=np.int64),
            gallery_items=known.gallery_items,
            of_unknown=pool.codes[rows],
        )
    return SearchTrials(pool, known, strangers)
