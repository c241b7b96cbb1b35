"""At which scores unknowns are linked and of one core, from the point and the rates of other thresholds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from service.models.loaded_model import LoadedModel
from service.unknowns.grouping import find_thresholds
from tests.service.bundles import calibrate_points

POINT = calibrate_points()["verify"]  # FAR 5 %


def make_model(*tradeoffs: Any) -> LoadedModel:
    return cast(LoadedModel, SimpleNamespace(report=SimpleNamespace(tradeoffs=list(tradeoffs))))


def make_tradeoff(**given: Any) -> Any:
    grid = np.linspace(0, 1, 101)
    usual = {
        "endpoint": "verify",
        "score": POINT.score,
        "thresholds": grid.tolist(),
        "far": (10 ** (-4 * grid)),
    }
    return SimpleNamespace(**usual | given)


@pytest.mark.parametrize(
    ("far", "link", "core"), [(0.01, 0.02, 0.001), (0.001, 0.002, 0.0001), (0.015, 0.02, 0.0015)]
)
def test_links_are_looser_and_cores_stricter_than_the_point(far: float, link: float, core: float) -> None:
    target = POINT.target.model_copy(update={"value": far})
    point = POINT.with_changes(target=target, threshold=-np.log10(far) / 4)
    found = find_thresholds(make_model(make_tradeoff()), point)
    assert found == pytest.approx((-np.log10(link) / 4, -np.log10(core) / 4), abs=0.0101)


def test_a_loose_point_is_not_loosened() -> None:
    point = POINT.with_changes(threshold=-np.log10(0.05) / 4)
    link, core = find_thresholds(make_model(make_tradeoff()), point)
    assert link == pytest.approx(point.threshold, abs=0.01)
    assert link <= point.threshold
    assert core == pytest.approx(-np.log10(0.005) / 4, abs=0.0101)


def test_without_the_rates_of_its_score_the_point_alone_links() -> None:
    density = SimpleNamespace(kind="density")
    for tradeoffs in (
        [],
        [make_tradeoff(endpoint="match")],
        [make_tradeoff(score=density)],
        [make_tradeoff(far=None)],
    ):
        assert find_thresholds(make_model(*tradeoffs), POINT) == (POINT.threshold, None)
    assert find_thresholds(cast(LoadedModel, SimpleNamespace(report=None)), POINT) == (POINT.threshold, None)
