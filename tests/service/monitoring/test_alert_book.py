"""Alerts: pending, firing, over; hysteresis, restarts, acknowledgement."""

from __future__ import annotations

from pathlib import Path

import pytest

from api_schemas.http.monitoring import Reading
from common.errors import ConfigError, InputError
from index.store.item_store import ItemStore
from index.store.monitoring_records import MonitoringRecords
from service.monitoring.alert_book import KEPT, AlertBook, MemoryAlerts
from service.monitoring.alert_rules import DEFAULT_RULES, AlertRule, read_rules
from service.monitoring.signals import SIGNALS

RULE = AlertRule(
    signal="heat",
    above=10.0,
    clear=7.0,
    seconds=60.0,
    clear_seconds=120.0,
    summary="It is hot.",
    todo="Cool it.",
)


def read(value: float | None, lower: float | None = None) -> dict[str, Reading]:
    return {"heat": Reading(signal="heat", value=value, lower=lower, detail=f"{value} degrees")}


def follow(book: AlertBook, values: list[float | None]) -> list[str]:
    """The state after each value, one every 30 seconds."""
    states = []
    for number, value in enumerate(values):
        book.evaluate(read(value), 30.0 * number, "m")
        states.append(book.list_rules()[0].state)
    return states


def test_it_fires_after_a_while_and_ends_after_a_while() -> None:
    book = AlertBook({"hot": RULE}, MemoryAlerts())
    values = [9.0, 11.0, 11.0, 11.0, 8.0, 6.0, 8.0, 6.0, 6.0, 6.0, 6.0, 6.0]
    assert follow(book, values) == ["ok", "pending", "pending", *["firing"] * 8, "ok"]
    (alert,) = book.list_alerts()
    assert (alert.state, alert.value, alert.threshold, alert.detail) == (
        "resolved",
        11.0,
        10.0,
        "11.0 degrees",
    )
    assert alert.resolved_at is not None
    assert (alert.resolved_at - alert.started_at).total_seconds() == 8 * 30


def test_a_short_peak_is_no_alert_and_what_is_not_measured_changes_nothing() -> None:
    book = AlertBook({"hot": RULE}, MemoryAlerts())
    assert follow(book, [11.0, 9.0, 11.0, 9.0, None, None]) == [
        "pending", "ok", "pending", "ok", "unmeasured", "unmeasured",
    ]  # fmt: skip
    assert book.list_alerts() == []
    book = AlertBook({"hot": RULE}, MemoryAlerts())
    follow(book, [11.0, 11.0, 11.0, None, None, None, None, None, None])
    assert book.list_alerts()[0].state == "firing"


def test_chance_is_taken_off_before_it_fires() -> None:
    rule = RULE.model_copy(update={"seconds": 0.0})
    book = AlertBook({"hot": rule}, MemoryAlerts())
    assert book.evaluate(read(30.0, lower=9.0), 0.0, "m") == []
    assert [alert.state for alert in book.evaluate(read(12.0, lower=11.0), 1.0, "m")] == ["firing"]


def test_a_restart_goes_on_with_the_alert(tmp_path: Path) -> None:
    store = ItemStore(tmp_path / "limen.sqlite")
    book = AlertBook({"hot": RULE}, MonitoringRecords(store))
    follow(book, [11.0] * 4)
    book.save()
    book.acknowledge(book.list_alerts()[0].id, "ann", "the sun")
    store.close()
    store = ItemStore(tmp_path / "limen.sqlite")
    book = AlertBook({"hot": RULE}, MonitoringRecords(store))
    assert book.list_rules()[0].state == "firing"
    assert follow(book, [11.0] * 3) == ["firing"] * 3
    (alert,) = book.list_alerts()
    assert (alert.acknowledged_by, alert.note) == ("ann", "the sun")
    gone = AlertBook({}, MonitoringRecords(store))
    assert [alert.state for alert in gone.evaluate({}, 500.0, "m")] == ["resolved"], "its rule was taken out"
    store.close()


def test_acknowledging_while_it_ends_keeps_both(tmp_path: Path) -> None:
    store = ItemStore(tmp_path / "limen.sqlite")
    records = MonitoringRecords(store)
    book = AlertBook({"hot": RULE}, records)
    follow(book, [11.0] * 3)
    book.save()
    alert_id = book.list_alerts()[0].id
    for at in (100.0, 230.0):
        book.evaluate(read(1.0), at, "m")
    book.acknowledge(alert_id, "ann", None)
    book.save()
    (kept,) = AlertBook({"hot": RULE}, records).list_alerts()
    assert (kept.state, kept.acknowledged_by) == ("resolved", "ann")
    assert book.acknowledge("of no alert", "ann", None) is None
    store.close()


def test_only_the_latest_alerts_are_kept(tmp_path: Path) -> None:
    store = ItemStore(tmp_path / "limen.sqlite")
    records = MonitoringRecords(store)
    book = AlertBook({"hot": RULE.model_copy(update={"seconds": 0.0, "clear_seconds": 0.0})}, records)
    for number in range(KEPT + 20):
        book.evaluate(read(11.0), 10.0 * number, "m")
        book.evaluate(read(1.0), 10.0 * number + 5, "m")
    book.save()
    assert len(book.list_alerts()) == KEPT
    assert len(records.read_alerts(10_000)) == KEPT
    assert min(alert.started_at.timestamp() for alert in book.list_alerts()) == 200
    store.close()


def test_the_default_rules_are_about_signals_that_there_are() -> None:
    rules = read_rules(None, SIGNALS)
    assert rules.keys() == DEFAULT_RULES.keys()
    assert all(rule.summary and rule.todo for rule in rules.values())


def test_a_file_changes_adds_and_disables_rules(tmp_path: Path) -> None:
    file = tmp_path / "alerts.yaml"
    file.write_text(
        "rules:\n"
        "  latency: {above: 0.25, clear: 0.2}\n"
        "  errors: {enabled: false}\n"
        "  slow: {signal: latency_p99, above: 5, clear: 4, summary: Very slow., todo: Look., seconds: 600}\n"
    )
    rules = read_rules(file, SIGNALS)
    assert (rules["latency"].above, rules["latency"].seconds) == (0.25, 60)
    assert "errors" not in rules
    assert rules["slow"].seconds == 600


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rules: {latencies: {above: 1}}", "did you mean 'latency'"),
        ("rules: {latency: {abowe: 1}}", "did you mean 'above'"),
        ("rules: {latency: {above: much}}", "rules.latency: above"),
        ("rules: {latency: {clear: 5}}", "must not be over above"),
        ("rules: {new: {signal: latency, above: 1, clear: 1, summary: a, todo: b}}", "latency_p99"),
        ("rules: {Bad Name: {above: 1}}", "lower-case"),
        ("rules: 7", "must name rules"),
        ("rule: {}", "did you mean 'rules'"),
        ("rules: {latency: 7}", "keys and values"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "alerts.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says) as refused:
        read_rules(file, SIGNALS)
    assert "alerts.yaml" in str(refused.value)
    with pytest.raises(InputError, match="cannot be read"):
        read_rules(tmp_path / "absent.yaml", SIGNALS)
