"""Ground truth by decision id and by pair, stored and erased."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from limen.client import Client, ServiceError
from tests.service.bundles import read_stored_feedback, serve


def test_feedback_by_decision_and_by_pair(bundle: Any, tmp_path: Path) -> None:
    with serve(bundle.path, data=tmp_path) as at, Client(at, retries=0) as client:
        decided = client.match([{"id": "item-0"}]).results[0]
        assert client.feedback(decision_id=decided.decision_id, same=True).total == 1
        assert client.feedback(a={"id": "item-0"}, b={"id": "item-9"}, same=False).total == 2
        with pytest.raises(ServiceError, match="not signed"):
            client.feedback(decision_id="made up", same=True)
    lines = read_stored_feedback(tmp_path)
    assert [(entry["a"], entry["b"], entry["same"]) for entry in lines] == [
        ("item-0", decided.id, True),
        ("item-0", "item-9", False),
    ]
    assert lines[0]["score"] == decided.score
    with serve(bundle.path, data=tmp_path) as at, Client(at, retries=0) as client:
        assert client.feedback(a={"id": "item-1"}, b={"id": "item-2"}, same=True).total == 3
        client.delete("item-9")
    kept = read_stored_feedback(tmp_path)
    assert "item-9" not in str(kept), "erasure reaches feedback"
    assert len(kept) == 2
