"""Rank metrics as in "A Metric Learning Reality Check" (arXiv 2003.08505, section 4.2)."""

from __future__ import annotations

import numpy as np

from api_schemas.report import Retrieval
from evaluation.pairs.ranks import Ranks

RECALL_AT = (1, 2, 4, 8, 10)


def measure_retrieval(ranks: Ranks) -> Retrieval:
    """Means over the queries that have a partner; null where there is none."""
    has_partner = ranks.n_partners > 0
    if not has_partner.any():
        return Retrieval(**dict.fromkeys(Retrieval.model_fields))
    recalls = {f"recall_at_{k}": float(np.mean(ranks.first_rank[has_partner] <= k)) for k in RECALL_AT}
    return Retrieval(
        **recalls,
        r_precision=float(ranks.r_precision[has_partner].mean()),
        map_at_r=float(ranks.map_at_r[has_partner].mean()),
    )
