"""``/v1/info``, the operating points, the hold-out report and readiness."""

from __future__ import annotations

from typing import Any

from limen.client import Client


def test_info_report_and_points(client: Client, bundle: Any) -> None:
    info = client.info()
    assert (info.dim, info.items, info.read_only, info.encoder) == (16, 320, True, None)
    assert info.limits.max_queries == 1000
    assert info.limits.max_k == 1000
    assert info.limits.max_body_bytes == 128 << 20
    listed = {point.active_for: point.id for point in client.operating_points().operating_points}
    assert listed == {name: point.id for name, point in bundle.points.items()}
    assert client.consistency().counts.items == 320
    assert client.ready().self_recall == 1.0
