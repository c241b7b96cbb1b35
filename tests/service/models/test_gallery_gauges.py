"""The running probe says when searches find clearly less than the build was to reach."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from api_schemas.manifest import IndexDescription
from service.models import gallery_gauges
from service.models.gallery_gauges import RecallProbe


@pytest.mark.parametrize(
    ("recall", "target", "warns"), [(0.99, 0.98, 0), (0.94, 0.98, 0), (0.9, 0.98, 1), (0.5, None, 0)]
)
def test_a_recall_below_what_was_asked_for_is_logged(
    recall: float, target: float | None, warns: int, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(gallery_gauges, "measure_recall", lambda gallery: recall)
    parameters = {} if target is None else {"target_recall": target}
    index = IndexDescription(kind="hnsw", parameters=parameters)
    gallery = SimpleNamespace(describe_index=lambda: index, compute_stats=dict)
    with caplog.at_level("WARNING", logger="limen.service"):
        RecallProbe().update(cast(Any, SimpleNamespace(gallery=gallery, model_hash="m")), "default")
    assert len([record for record in caplog.records if "LIMEN_RECALL" in record.message]) == warns
