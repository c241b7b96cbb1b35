"""Alerts as they come and go: pending, firing, resolved; kept in the database, so that a restart goes on."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from threading import Lock
from typing import Literal, Protocol

from api_schemas.http.monitoring import Alert, Reading, RuleStatus
from index.store.write_order import WriteOrder
from service.monitoring.alert_rules import AlertRule
from service.telemetry.prometheus import ALERT

KEPT = 500


class AlertStore(Protocol):
    """Where alerts are kept."""

    def save_alerts(
        self, alerts: Mapping[str, tuple[int, str]], keep: int, order: WriteOrder | None = None
    ) -> None:
        """Write alerts by id, each with the second it began and as JSON."""

    def read_alerts(self, limit: int) -> list[str]:
        """The latest alerts as JSON."""


class MemoryAlerts:
    """Keeps no more than the book itself does."""

    def save_alerts(
        self, alerts: Mapping[str, tuple[int, str]], keep: int, order: WriteOrder | None = None
    ) -> None:
        """Nothing to do."""

    def read_alerts(self, limit: int) -> list[str]:
        """No alerts."""
        return []


class AlertBook:
    """The alerts of one model under the rules; safe in many threads.

    A rule has one alert at a time. Its condition must hold for ``seconds`` before it fires and be gone for
    ``clear_seconds`` before it is over, and between ``clear`` and ``above`` nothing changes (hysteresis).
    What cannot be measured changes nothing either.
    """

    def __init__(self, rules: Mapping[str, AlertRule], store: AlertStore, gallery: str = "default") -> None:
        self.rules = rules
        self._store, self._gallery = store, gallery
        self._lock = Lock()
        self._pending: dict[str, float] = {}
        self._clearing: dict[str, float] = {}
        self._readings: Mapping[str, Reading] = {}
        self._alerts: dict[str, Alert] = {}
        self._unsaved: dict[str, Alert] = {}
        self.reload()

    def reload(self) -> None:
        """Take over what the store holds, which other processes may have changed."""
        kept = [Alert.model_validate_json(document) for document in self._store.read_alerts(KEPT)]
        with self._lock:
            self._alerts = {alert.id: alert for alert in reversed(kept)} | self._unsaved
        for rule in self.rules:
            self._show(rule)

    def observe(self, readings: Mapping[str, Reading]) -> None:
        """Show readings without alerting."""
        with self._lock:
            self._readings = readings

    def evaluate(self, readings: Mapping[str, Reading], now: float, model_hash: str) -> list[Alert]:
        """The alerts that began or ended with these readings, by signal."""
        changed = []
        with self._lock:
            self._readings = readings
            firing = self._find_firing()
            for name, rule in self.rules.items():
                reading = readings.get(rule.signal)
                if reading is None or reading.value is None:
                    continue
                alert = firing.get(name)
                if alert is None and self._has_begun(name, rule, reading, now):
                    changed.append(self._fire(name, rule, reading, now, model_hash))
                elif alert is not None and self._is_over(name, rule, reading, now):
                    changed.append(
                        alert.model_copy(update={"state": "resolved", "resolved_at": _to_time(now)})
                    )
            # an alert whose rule is gone would never end
            changed += [
                alert.model_copy(update={"state": "resolved", "resolved_at": _to_time(now)})
                for name, alert in firing.items()
                if name not in self.rules
            ]
            for alert in changed:
                self._put(alert)
        return changed

    def save(self) -> None:
        """Save what has changed; raises what the store raises, and then saves it the next time."""
        with self._lock:
            unsaved = dict(self._unsaved)
        if unsaved:
            self._store.save_alerts({name: _to_row(alert) for name, alert in unsaved.items()}, KEPT)
            with self._lock:
                self._unsaved = {
                    name: alert for name, alert in self._unsaved.items() if unsaved.get(name) is not alert
                }

    def acknowledge(
        self, alert_id: str, actor: str, note: str | None, order: WriteOrder | None = None
    ) -> Alert | None:
        """Note that somebody has seen an alert; None if there is no such alert. On return it is on disk."""
        with self._lock:
            alert = self._alerts.get(alert_id)
            if alert is None:
                return None
            seen = {"acknowledged_at": datetime.now(UTC), "acknowledged_by": actor, "note": note}
            alert = alert.model_copy(update=seen)
        self._store.save_alerts({alert.id: _to_row(alert)}, KEPT, order)
        with self._lock:
            current = self._alerts.get(alert_id, alert)
            self._alerts[alert_id] = current.model_copy(update=seen)
            if alert_id in self._unsaved:
                self._unsaved[alert_id] = self._alerts[alert_id]
        return self._alerts[alert_id]

    def list_alerts(self) -> list[Alert]:
        """Firing alerts, then those that are over, the latest first."""
        with self._lock:
            latest = sorted(self._alerts.values(), key=lambda alert: alert.started_at, reverse=True)
        return sorted(latest, key=lambda alert: alert.state != "firing")

    def list_rules(self) -> list[RuleStatus]:
        """Every rule and what it sees now."""
        with self._lock:
            firing = self._find_firing()
            return [
                RuleStatus(
                    rule=name,
                    signal=rule.signal,
                    above=rule.above,
                    clear=rule.clear,
                    seconds=rule.seconds,
                    state="firing" if name in firing else self._describe_state(name, rule),
                    summary=rule.summary,
                    todo=rule.todo,
                )
                for name, rule in self.rules.items()
            ]

    def _describe_state(self, name: str, rule: AlertRule) -> Literal["ok", "pending", "unmeasured"]:
        reading = self._readings.get(rule.signal)
        if reading is None or reading.value is None:
            return "unmeasured"
        return "pending" if name in self._pending else "ok"

    def _find_firing(self) -> dict[str, Alert]:
        return {alert.rule: alert for alert in self._alerts.values() if alert.state == "firing"}

    def _has_begun(self, name: str, rule: AlertRule, reading: Reading, now: float) -> bool:
        assert reading.value is not None
        compared = reading.value if reading.lower is None else reading.lower
        if compared > rule.above:
            since = self._pending.setdefault(name, now)
            return now - since >= rule.seconds
        self._pending.pop(name, None)
        return False

    def _is_over(self, name: str, rule: AlertRule, reading: Reading, now: float) -> bool:
        assert reading.value is not None
        compared = reading.value if reading.lower is None else min(reading.value, reading.lower)
        if compared <= rule.clear:
            since = self._clearing.setdefault(name, now)
            return now - since >= rule.clear_seconds
        self._clearing.pop(name, None)
        return False

    def _fire(self, name: str, rule: AlertRule, reading: Reading, now: float, model_hash: str) -> Alert:
        assert reading.value is not None
        return Alert(
            id=f"{int(now)}-{secrets.token_hex(4)}",
            rule=name,
            state="firing",
            started_at=_to_time(now),
            value=reading.value,
            threshold=rule.above,
            summary=rule.summary,
            todo=rule.todo,
            detail=reading.detail,
            model_hash=model_hash,
        )

    def _put(self, alert: Alert) -> None:
        self._alerts[alert.id] = self._unsaved[alert.id] = alert
        self._pending.pop(alert.rule, None)
        self._clearing.pop(alert.rule, None)
        while len(self._alerts) > KEPT:
            oldest = next((name for name, kept in self._alerts.items() if kept.state != "firing"), None)
            if oldest is None:
                break
            del self._alerts[oldest]
        self._show(alert.rule)

    def _show(self, rule: str) -> None:
        if rule in self.rules:
            ALERT.labels(self._gallery, rule).set(rule in self._find_firing())


def _to_time(now: float) -> datetime:
    return datetime.fromtimestamp(now, UTC)


def _to_row(alert: Alert) -> tuple[int, str]:
    return int(alert.started_at.timestamp()), alert.model_dump_json()
