"""What the overview says first: the promise, the last day, groups, and what is beyond its proof."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from api_schemas.report import Report
from evaluation.report.headline import format_percent
from limen.client import Client
from service.monitoring.day_summary import DaySummary
from service.web.overview_story import _describe_day, describe_consistency, list_group_rows
from tests.service.bundles import ServiceBundle


def summarize(**given: Any) -> DaySummary:
    usual: dict[str, Any] = {
        "decisions": 12_400,
        "verifications": 0,
        "share_unknown": 0.21,
        "scores_as_calibrated": True,
        "has_drift": False,
        "unknown_queries": None,
        "details": {},
        "alerts": (),
        "is_kept": True,
    }
    return DaySummary(**usual | given)


def test_the_last_day_is_one_sentence() -> None:
    assert (
        _describe_day(summarize())
        == "Last 24 hours: 12,400 decisions, 21 % unknown, scores distributed as calibrated, no drift."
    )
    assert "scores not distributed as calibrated, drift" in _describe_day(
        summarize(scores_as_calibrated=False, has_drift=True)
    )
    assert "too few to compare" in _describe_day(summarize(scores_as_calibrated=None, has_drift=None))
    assert _describe_day(summarize(decisions=0)) == "Last 24 hours: no decision."
    assert _describe_day(None) == "Decisions are not counted yet."


def test_opis_comes_with_its_interval_and_what_chance_alone_brings(bundle: ServiceBundle) -> None:
    report = Report.load(bundle.path / "report.json")
    sentence = describe_consistency(report)
    assert sentence is not None
    assert "95 % interval" in sentence
    assert "the noise floor" in sentence
    nothing = report.consistency.model_copy(update={"opis": None})
    assert describe_consistency(report.model_copy(update={"consistency": nothing})) is None


def test_groups_of_a_report_without_any_are_read_off_the_curves(bundle: ServiceBundle) -> None:
    report = Report.load(bundle.path / "report.json").model_copy(update={"groups": []})
    tradeoff = next(one for one in report.tradeoffs if one.endpoint == "match")
    rows = list_group_rows(report, tradeoff, tradeoff.thresholds[60])
    assert [row[0] for row in rows] == [f"{group.column} = {group.value}" for group in tradeoff.groups]
    first = tradeoff.groups[0]
    assert first.fpir is not None
    assert rows[0][5] == format_percent(first.fpir[60])
    assert list_group_rows(report, None, 0.5) == []


def test_a_gallery_that_outgrew_its_proof_is_named(start: Any, bundle: ServiceBundle, tmp_path: Path) -> None:
    address = start(bundle.path, data=tmp_path / "data")
    assert "times the" not in httpx.get(f"{address}/dashboard").text
    with Client(address) as client:
        client.upsert(
            [{"id": f"new-{row}", "label": "more", "vector": bundle.get_vector(row)} for row in range(40)]
        )
    page = httpx.get(f"{address}/dashboard").text
    assert "The gallery holds 360 items, 1.1 times the 320 that match is proven for" in page
