"""The monitor: a thread that every few seconds saves what was counted, looks for drift, and raises alerts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Event, RLock, Thread
from time import monotonic, time

import numpy as np

from api_schemas.http.gallery import Feedback
from api_schemas.http.monitoring import Alert, Reading, RuleStatus, WebhookStatus
from api_schemas.operating_point import OperatingPoint
from common.errors import LimenError
from index.store.document_store import StoreUnavailable
from index.store.shared.records import SharedRecords
from index.store.write_order import WriteOrder
from service.models.loaded_model import LoadedModel
from service.models.model_registry import ModelRegistry
from service.monitoring.alert_book import AlertBook, AlertStore, MemoryAlerts
from service.monitoring.alert_rules import read_rules
from service.monitoring.day_summary import DaySummary
from service.monitoring.documents import Document, describe_value
from service.monitoring.gallery_comparison import GalleryComparison
from service.monitoring.query_comparison import (
    TYPICAL_VARIATION,
    PairComparison,
    QueryComparison,
    ShareBefore,
)
from service.monitoring.recorder import Recorder
from service.monitoring.series import DAY, HOUR, MINUTE, MemorySeries, Series
from service.monitoring.signals import SIGNALS, Moment, measure_feedback_opis
from service.monitoring.webhook import Webhook
from service.monitoring.worker_share import ReplicaShare, open_share
from service.settings import ServiceSettings
from service.telemetry.logs import LOGGER
from service.telemetry.prometheus import DRIFT, FLUSH_FAILED, READING

RECENT = 5 * MINUTE
BEFORE = 7 * DAY  # with which the latest share of unknown is compared
FEEDBACK_EVERY = 60.0  # seconds
SMALL_HOUR = 30  # decisions; the share of an hour with fewer says little
ENOUGH_HOURS = 6
# times what a turn took is the pause after it, at most a minute: requests share the interpreter with it
REST = 15.0
LONGEST_REST = 60.0
NO_FEEDBACK = Reading(signal="feedback_opis", value=None, detail="Not measured: no feedback is kept.")


class Monitor:
    """What the service does now. ``recorder`` counts requests; all else happens in one thread.

    Time series and alerts belong to the model that answers and are kept with its items; without a data folder
    in memory, which several workers share.
    """

    def __init__(
        self, settings: ServiceSettings, models: ModelRegistry, shared: SharedRecords | None = None
    ) -> None:
        """``shared`` is of several processes that are one service, of which one raises alerts."""
        self.recorder = Recorder()
        self._settings, self._models = settings, models
        self._rules = read_rules(settings.alerts_file, SIGNALS)
        self._webhook = _build_webhook(settings)
        self._queries = QueryComparison(self.recorder)
        self._pairs = PairComparison(self.recorder)
        self._gallery = GalleryComparison()
        self._share = open_share() if shared is None else ReplicaShare(shared)
        self._lock = RLock()  # held for a turn, and while another model's series are opened
        self._model_hash: str | None = None
        kept = None if self._share is None else self._share.records
        self._series = Series(kept or MemorySeries())
        self._book = self._build_book(kept or MemoryAlerts())
        self._readings: dict[str, Reading] = {}
        self._feedback: Sequence[Feedback] = ()
        self._feedback_read = float("-inf")
        self._opis: Reading | None = None
        self._measured_minute = 0
        self._unsaved: str | None = None
        self._closing = Event()
        self._thread: Thread | None = None

    @property
    def is_kept(self) -> bool:
        """Whether series and alerts are in a database."""
        return self._settings.data is not None

    @property
    def series(self) -> Series:
        """The time series of the model that answers."""
        return self._series

    @property
    def readings(self) -> list[Reading]:
        """What alert rules are about, as of the last turn."""
        return list(self._readings.values())

    @property
    def queries(self) -> QueryComparison:
        """The latest queries against the calibration, as of the last turn."""
        return self._queries

    @property
    def pairs(self) -> PairComparison:
        """The latest pairs against the calibration, as of the last turn."""
        return self._pairs

    def start(self) -> None:
        """Begin; the models are loaded, and what was kept of them is shown from now on."""
        with self._lock, suppress(LimenError):  # the first turn says what is wrong
            if self._models.active is not None:
                self._open(self._models.active)
        self._thread = Thread(target=self._run, name="monitor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Save what was counted, and end."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
            with self._lock, suppress(Exception):
                if self._models.active is not None:
                    self._open(self._models.active)
                self._count(time())
                self._save(time())
        if self._webhook is not None:
            self._webhook.close()
        if self._share is not None:
            self._share.close()

    def take_turn(self, now: float | None = None) -> None:
        """Count, measure, save and alert once; ``now`` in seconds since 1970."""
        model = self._models.active
        if model is None:
            return
        now = time() if now is None else now
        with self._lock:
            self._open(model)
            self._count(now)
            has_looked = self._measure(model, now)
            minute = int(now) // MINUTE
            if has_looked or minute != self._measured_minute:
                self._measured_minute = minute
                values = {
                    name: describe_value(reading.value)
                    for name, reading in self._readings.items()
                    if reading.value is not None
                }
                self._series.add(now, {"readings": values})
            changed = self._alert(model, now)
            self._save(now)
        for alert in changed:
            self._report(alert, model)

    def _alert(self, model: LoadedModel, now: float) -> list[Alert]:
        """Alerts that begin or end now; of several workers the leader alone decides that."""
        if self._share is not None:
            self._readings = self._share.merge_readings(self._readings)
            with suppress(StoreUnavailable):
                self._book.reload()
            if not self._share.lead():
                self._book.observe(self._readings)
                return []
        return self._book.evaluate(self._readings, now, model.model_hash)

    def acknowledge(
        self, alert_id: str, actor: str, note: str | None, order: WriteOrder | None
    ) -> Alert | None:
        """Note that somebody has seen an alert; None if there is no such alert."""
        return self._book.acknowledge(alert_id, actor, note, order)

    def list_alerts(self) -> list[Alert]:
        """Firing alerts, then those that are over."""
        return self._book.list_alerts()

    def list_rules(self) -> list[RuleStatus]:
        """Every rule and what it sees now."""
        return self._book.list_rules()

    def describe_webhook(self) -> WebhookStatus:
        """Deliveries so far."""
        hook = self._webhook
        if hook is None:
            return WebhookStatus(configured=False, queued=0, delivered=0, failed=0)
        return WebhookStatus(
            configured=True, queued=hook.queued, delivered=hook.delivered, failed=hook.failed
        )

    def summarize_day(self, now: float | None = None) -> DaySummary | None:
        """The last 24 hours; None until the model is loaded. Reads the database."""
        if self._model_hash is None:
            return None
        now = time() if now is None else now
        # whole hours, and the minutes before the first of them
        first_hour = -int(-(now - DAY) // HOUR) * HOUR
        total = self._series.sum_up(HOUR, first_hour, int(now) + 1).get("decisions", {})
        begun = self._series.sum_up(MINUTE, int(now - DAY), first_hour).get("decisions", {})
        counts = [points for part in (total, begun) for points in part.get("match", {}).values()]
        verified = [points for part in (total, begun) for points in part.get("verify", {}).values()]
        decisions, unknown = sum(part["n"] for part in counts), sum(part["unknown"] for part in counts)
        readings, mixture = dict(self._readings), self._queries.mixture
        return DaySummary(
            decisions=decisions,
            verifications=sum(part["n"] for part in verified),
            share_unknown=unknown / decisions if decisions else None,
            scores_as_calibrated=self._is_quiet(readings, ["score_stability", "pair_score_stability"]),
            has_drift=_negate(self._is_quiet(readings, ["query_drift", "gallery_drift"])),
            unknown_queries=None if mixture is None else mixture.unknown_share,
            details={name: reading.detail for name, reading in readings.items()},
            alerts=tuple(alert for alert in self.list_alerts() if alert.state == "firing"),
            is_kept=self.is_kept,
        )

    def _is_quiet(self, readings: Mapping[str, Reading], signals: Sequence[str]) -> bool | None:
        """Whether no rule fires that is about these signals; None where none of them is measured."""
        rules = {name for name, rule in self._rules.items() if rule.signal in signals}
        if any(alert.state == "firing" and alert.rule in rules for alert in self.list_alerts()):
            return False
        measured = [readings[name] for name in signals if name in readings]
        return True if any(reading.value is not None for reading in measured) else None

    def _run(self) -> None:
        pause = self._settings.monitor_interval
        while not self._closing.wait(pause):
            begun = monotonic()
            try:
                self.take_turn()
            except LimenError as error:
                self._note_failure(error)
            except Exception:
                if not self._closing.is_set():
                    LOGGER.exception("monitoring failed")
            rest = min(LONGEST_REST, REST * (monotonic() - begun))
            pause = max(self._settings.monitor_interval, rest)

    def _open(self, model: LoadedModel) -> None:
        """Turn to the series and alerts of a model that was not the active one before."""
        if model.model_hash == self._model_hash:
            return
        if self._model_hash is not None:
            # what was counted until now is nearly all the other model's
            self._count(time())
            self._save(time())
            self._queries = QueryComparison(self.recorder)
        if model.live is not None:
            self._series = Series(model.live.monitoring)
            self._book = self._build_book(model.live.monitoring)
        elif self._model_hash is not None and self._share is None:
            self._series, self._book = Series(MemorySeries()), self._build_book(MemoryAlerts())
        self._model_hash, self._readings, self._feedback_read = model.model_hash, {}, float("-inf")
        self._opis = None

    def _build_book(self, store: AlertStore) -> AlertBook:
        return AlertBook(self._rules, store, self._settings.gallery)

    def _count(self, now: float) -> None:
        """Add what was counted to the series."""
        self._series.add(now, self.recorder.take())

    def _measure(self, model: LoadedModel, now: float) -> bool:
        point, has_looked = model.active_match, False
        if point is not None:
            has_looked = self._queries.look(model, point, lambda: self._count_before(point, now))
        if model.live is not None and monotonic() - self._feedback_read >= FEEDBACK_EVERY:
            feedback = model.live.records.read_feedback()
            if feedback != self._feedback or self._opis is None:
                self._feedback, self._opis = feedback, measure_feedback_opis(model, feedback)
            self._feedback_read = monotonic()
        moment = Moment(
            model=model,
            queries={} if point is None else self._queries.readings,
            recent=self._series.sum_up(MINUTE, int(now) - RECENT, int(now) + 1),
            feedback=self._feedback if model.live is not None else (),
            pairs=self._pairs.look(model, model.active_verify),
            opis=self._opis or NO_FEEDBACK,
            gallery=self._gallery.look(model, self._models.active_folder),
            unsaved=self._unsaved,
        )
        self._readings = {name: measure(moment) for name, measure in SIGNALS.items()}
        for name, reading in self._readings.items():
            READING.labels(self._settings.gallery, name).set(
                np.nan if reading.value is None else reading.value
            )
        drift = self._readings["query_drift"].value
        DRIFT.labels(self._settings.gallery).set(np.nan if drift is None else drift)
        return has_looked

    def _count_before(self, point: OperatingPoint, now: float) -> ShareBefore | None:
        """The share of unknown of a week, without the queries of the window now."""
        window = self.recorder.peek_outcomes(point.id)
        hours = self._series.read(HOUR, int(now) - BEFORE, int(now) + 1)
        counts = [_get_counts(documents, point.id) for documents in hours.values()]
        n = sum(total for total, _ in counts) - window[0]
        unknown = sum(part for _, part in counts) - window[1]
        if n <= 0:
            return None
        share = min(1.0, max(0.0, unknown / n))
        shares = [(part / total, total) for total, part in counts if total >= SMALL_HOUR]
        variation = TYPICAL_VARIATION
        if len(shares) >= ENOUGH_HOURS:
            by_chance = share * (1 - share) * float(np.mean([1 / total for _, total in shares]))
            variation = max(0.0, float(np.var([part for part, _ in shares])) - by_chance) ** 0.5
        return ShareBefore(n, share, variation)

    def _save(self, now: float) -> None:
        try:
            self._series.flush(now)
            self._book.save()
            self._unsaved = None
        except LimenError as error:
            self._note_failure(error)
        FLUSH_FAILED.labels(self._settings.gallery).set(self._unsaved is not None)

    def _note_failure(self, error: LimenError) -> None:
        """Log that the database does not work, once until it does again."""
        if self._unsaved is None:
            LOGGER.error("time series cannot be kept: %s", error)
        self._unsaved = str(error)
        FLUSH_FAILED.labels(self._settings.gallery).set(1)

    def _report(self, alert: Alert, model: LoadedModel) -> None:
        fields = {"rule": alert.rule, "state": alert.state, "alert": alert.id, "value": alert.value}
        LOGGER.warning("alert", extra={"fields": fields})
        if self._webhook is not None:
            manifest = model.manifest
            self._webhook.send(
                {
                    "type": f"alert.{alert.state}",
                    "alert": alert.model_dump(mode="json"),
                    "service": {"name": manifest.name, "version": manifest.version},
                }
            )


def _get_counts(documents: Mapping[str, Document], point: str) -> tuple[int, int]:
    counts = documents.get("decisions", {}).get("match", {}).get(point, {})
    return counts.get("n", 0), counts.get("unknown", 0)


def _negate(value: bool | None) -> bool | None:
    return None if value is None else not value


def _build_webhook(settings: ServiceSettings) -> Webhook | None:
    if settings.webhook_url is None or settings.webhook_secret is None:
        return None
    return Webhook(
        settings.webhook_url,
        settings.webhook_secret.get_secret_value().encode(),
        timeout=settings.webhook_timeout,
        attempts=settings.webhook_attempts,
        queue=settings.webhook_queue,
    )
