"""The monitor as a whole: what it measures on, whom it tells, and the day in a few figures."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from scipy.stats import beta

from api_schemas.build_config import IndexConfig
from api_schemas.http.gallery import Feedback
from api_schemas.http.monitoring import Reading
from api_schemas.operating_point import OperatingPoint
from evaluation.evaluate import evaluate_embeddings
from index.bundle import write_bundle
from index.gallery.live_gallery import LiveGallery
from index.items.stored_item import StoredItem
from service.models.loaded_model import LoadedModel, load_model
from service.monitoring.gallery_comparison import GalleryComparison
from service.monitoring.gallery_reference import VectorReference, build_score_reference
from service.monitoring.signals import SIGNALS, Moment, bound_rate
from service.monitoring.webhook import SIGNATURE_HEADER
from service.settings import load_settings
from tests.service.bundles import ServiceBundle, make_clusters
from tests.service.monitoring.conftest import Sentences, WatchedModel
from tests.service.monitoring.test_drift_alerts import draw_queries, plant_drift
from tests.service.monitoring.test_webhook import SECRET, find_documented_check, receive


def make_moment(model: Any, **given: Any) -> Moment:
    quiet = Reading(signal="gallery_drift", value=None, detail="")
    usual = {
        "queries": {},
        "recent": {},
        "feedback": (),
        "opis": quiet,
        "pairs": quiet,
        "gallery": quiet,
        "unsaved": None,
    }
    return Moment(model=cast(LoadedModel, model), **{**usual, **given})


def judge(point: OperatingPoint, decision: str, same: bool) -> Feedback:
    return Feedback(
        at=datetime.now(UTC),
        model_hash=point.model_hash,
        operating_point=point.id,
        decision=decision,
        score=0.5,
        a=None,
        b=None,
        same=same,
        source="match",
    )


def test_an_alert_is_sent_to_a_receiver_that_can_check_it(sentences: Sentences) -> None:
    is_genuine = find_documented_check()
    with receive() as receiver:
        watched = WatchedModel(
            sentences.model, sentences.bundle, webhook_url=receiver.url, webhook_secret=SECRET.decode()
        )
        watched.ask(plant_drift(draw_queries(sentences, 1), "offset", 2))
        receiver.wait_for(1)
        watched.monitor.close()
    headers, body = receiver.received[0]
    assert is_genuine(SECRET, headers[SIGNATURE_HEADER], body)
    sent = json.loads(body)
    assert sent["type"] == "alert.firing"
    assert sent["alert"]["rule"] in watched.firing
    assert sent["alert"]["todo"]
    assert sent["service"]["name"] == "clinc"
    assert watched.monitor.describe_webhook().configured


def test_the_day_in_a_few_figures(sentences: Sentences, watched: WatchedModel) -> None:
    assert watched.monitor.summarize_day() is None, "no model has answered yet"
    calm = draw_queries(sentences, 1)
    watched.ask(calm)
    day = watched.monitor.summarize_day(watched.now)
    assert day is not None
    assert (day.decisions, day.verifications, day.alerts) == (len(calm), 0, ())
    assert day.share_unknown is not None
    assert 0 < day.share_unknown < 1
    assert (day.scores_as_calibrated, day.has_drift) == (True, False)
    assert day.unknown_queries == pytest.approx(0.2, abs=0.15)
    watched.ask(plant_drift(draw_queries(sentences, 2), "noise", 2))
    after = watched.monitor.summarize_day(watched.now)
    assert after is not None
    assert after.decisions == 2 * len(calm)
    assert after.scores_as_calibrated is False
    assert [alert.rule for alert in after.alerts] == [
        alert.rule for alert in watched.monitor.list_alerts() if alert.state == "firing"
    ]
    later = watched.monitor.summarize_day(watched.now + 25 * 3_600)
    assert later is not None
    assert (later.decisions, later.share_unknown) == (0, None)


def test_items_of_one_a_class_take_known_scores_from_the_hold_out_pairs(
    bundle: ServiceBundle, tmp_path: Path
) -> None:
    held_out = make_clusters(2, 40, 8, "class-")
    alone = held_out.subset(np.arange(0, len(held_out), 8))
    point = bundle.points["match"]
    write_bundle(
        tmp_path / "alone",
        name="alone",
        items=alone,
        model_hash=point.model_hash,
        encoder_folder=None,
        index_config=IndexConfig(),
        report=evaluate_embeddings(held_out, model_hash=point.model_hash, split="test"),
        operating_points=[point],
        active={"match": point.id, "verify": None},
        reasons=[],
        cohort=None,
        config_yaml="",
    )
    model = load_model(tmp_path / "alone", load_settings(bundle=tmp_path / "alone"))
    reference = build_score_reference(model, point)
    assert reference.accepted is not None
    # real queries of these classes: the other items
    rest = np.setdiff1d(np.arange(len(held_out)), np.arange(0, len(held_out), 8))
    scores = [decision.score or 0.0 for decision in model.gallery.match(held_out.vectors[rest], k=100)]
    drawn = np.repeat(np.arange(64), np.rint(1_000 * reference.known).astype(int))
    edges = np.linspace(-0.28, 1, 65)
    assert np.mean(edges[drawn]) == pytest.approx(np.mean(scores), abs=0.06)
    vectors, groups, of_queries = VectorReference(model.gallery).select(["class-1", "class-3", "class-1"])
    assert (len(vectors), groups.tolist(), of_queries.tolist()) == (2, [0, 1], [0, 1, 0])
    model.gallery.close()


def test_references_of_vectors_are_items_that_their_class_accepts(sentences: Sentences) -> None:
    labels = sorted(set(sentences.labels))[:5]
    vectors, groups, _ = VectorReference(sentences.model.gallery).select(labels)
    rows = {row.tobytes(): place for place, row in enumerate(sentences.model.gallery.view.sample(10_000))}
    assert 0 < len(vectors) <= 5 * 16
    assert all(vector.tobytes() in rows for vector in vectors)
    assert set(groups.tolist()) <= set(range(5))


@pytest.mark.parametrize(("shift", "is_drift"), [(0.0, False), (0.8, True)])
def test_classes_of_another_kind_are_drift_of_the_gallery(
    bundle: ServiceBundle, tmp_path: Path, shift: float, is_drift: bool
) -> None:
    many = make_clusters(2, 120, 4, "class-")
    path = tmp_path / "many"
    write_bundle(
        path,
        name="many",
        items=many,
        model_hash=bundle.points["match"].model_hash,
        encoder_folder=None,
        index_config=IndexConfig(),
        report=None,
        operating_points=[],
        active={"match": None, "verify": None},
        reasons=["none"],
        cohort=None,
        config_yaml="",
    )
    comparison = GalleryComparison()
    with LiveGallery.open(path, tmp_path / "data") as live:
        model = cast(
            LoadedModel,
            SimpleNamespace(live=live, gallery=live.gallery, model_hash=live.gallery.manifest.model_hash),
        )
        assert comparison.look(model, path).value is None
        new = make_clusters(3, 120, 4, "new-")
        rows = new.vectors + shift * np.eye(16)[0]
        live.upsert(
            [
                StoredItem(f"new-{number}", str(label), np.float32(row))
                for number, (row, label) in enumerate(zip(rows, new.labels, strict=True))
            ]
        )
        comparison = GalleryComparison()
        reading = comparison.look(model, path)
    assert reading.value is not None
    assert reading.lower is not None
    assert (reading.lower > 0.55) == is_drift, reading
    assert reading.n == 120


def test_feedback_is_held_against_the_target(bundle: ServiceBundle) -> None:
    point = bundle.points["match"]  # FPIR 20 %
    model = SimpleNamespace(active_match=point, active_verify=bundle.points["verify"])
    few = [judge(point, "match", same=False)] * 2 + [judge(point, "unknown", same=False)] * 5
    reading = SIGNALS["feedback_rate"](make_moment(model, feedback=few))
    assert reading.value == pytest.approx(2 / 7 - 0.2)
    assert reading.lower is not None
    assert reading.lower < 0, "seven verdicts prove nothing"
    many = [judge(point, "match", same=False)] * 60 + [judge(point, "unknown", same=False)] * 40
    reading = SIGNALS["feedback_rate"](make_moment(model, feedback=many))
    assert reading.lower is not None
    assert reading.lower > 0.2
    missed = [judge(point, "unknown", same=True)] * 3 + [judge(point, "match", same=True)]
    rates = {
        name: SIGNALS[name](make_moment(model, feedback=[*few, *missed])).value
        for name in ("feedback_false_matches", "feedback_misses")
    }
    assert rates == {"feedback_false_matches": pytest.approx(2 / 7), "feedback_misses": 0.75}
    assert SIGNALS["feedback_rate"](make_moment(model)).value is None


def test_intervals_are_those_of_clopper_and_pearson() -> None:
    for hits, n in ((0, 10), (3, 20), (5, 5), (1, 1_000)):
        low, high = bound_rate(hits, n)
        assert low == pytest.approx(0.0 if hits == 0 else beta.ppf(0.025, hits, n - hits + 1))
        assert high == pytest.approx(1.0 if hits == n else beta.ppf(0.975, hits + 1, n - hits))


def test_signals_of_operation() -> None:
    http = {
        route: {"n": n, "failed": failed, "refused": 0, "write_failed": unwritten, "seconds": seconds}
        for route, n, failed, unwritten, seconds in (
            ("/v1/match", 100, 5, 0, [0] * 9 + [100] + [0] * 4),
            ("/v1/items", 10, 2, 2, [10] + [0] * 13),
        )
    }
    gallery = SimpleNamespace(n_items=700)
    model = SimpleNamespace(active_match=None, active_verify=None, rebuild_error="full", gallery=gallery)
    moment = make_moment(model, recent={"http": http})
    assert SIGNALS["error_share"](moment).value == pytest.approx(7 / 110)
    latency = SIGNALS["latency_p99"](moment).value
    assert latency is not None
    assert 0.25 < latency <= 0.5
    assert SIGNALS["writes_failing"](moment).value == 2
    assert SIGNALS["writes_failing"](make_moment(model, unsaved="the disk is full")).value == 1
    assert SIGNALS["rebuild_failed"](moment).value == 1
    assert SIGNALS["beyond_proof"](moment).value is None


def test_another_model_has_series_and_alerts_of_its_own(sentences: Sentences, bundle: ServiceBundle) -> None:
    watched = WatchedModel(sentences.model, sentences.bundle)
    watched.ask(plant_drift(draw_queries(sentences, 1), "offset", 2))
    assert watched.firing
    other = load_model(bundle.path, load_settings(bundle=bundle.path))
    watched.monitor._models = cast(Any, SimpleNamespace(active=other, active_folder=bundle.path))
    watched.model = other
    watched.monitor.take_turn(watched.now)
    watched.ask(bundle.gallery.vectors[:20] + 0.01)
    assert watched.firing == set()
    day = watched.monitor.summarize_day(watched.now)
    assert day is not None
    assert day.decisions == 20
    other.gallery.close()
