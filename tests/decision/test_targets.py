"""Targets: which endpoint each decides, what they are called, and which flags make one."""

from __future__ import annotations

from typing import get_args

import pytest

from api_schemas.operating_point import GroupTarget, Target, TargetKind
from common.errors import ConfigError
from decision.targets import (
    ENDPOINT_OF_TARGET,
    ENDPOINTS,
    build_target,
    get_endpoint,
    name_target,
    parse_costs,
    select_active,
    select_given_targets,
)
from tests.index.conftest import point


def test_every_target_decides_one_endpoint() -> None:
    assert set(ENDPOINT_OF_TARGET) == set(get_args(TargetKind))
    assert set(ENDPOINT_OF_TARGET.values()) == set(ENDPOINTS)
    assert get_endpoint(Target(kind="fpir", value=0.01)) == "match"
    assert get_endpoint(Target(kind="eer")) == "verify"


def test_the_first_point_of_each_endpoint_is_active() -> None:
    points = [point("frr", 0.1), point("fpir", 0.2), point("far", 0.3), point("fpir", 0.4)]
    assert select_active(points) == {"verify": points[0].id, "match": points[1].id}
    assert select_active(points[1:2]) == {"verify": None, "match": points[1].id}


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (Target(kind="far", value=0.01), "far-1%"),
        (Target(kind="eer"), "eer"),
        (Target(kind="fpir", value=0.005), "fpir-0.5%"),
        (Target(kind="fpir", value=0.01, aggregate="mean_of_class"), "fpir-1%-mean"),
    ],
)
def test_a_target_names_its_point(target: Target, name: str) -> None:
    assert name_target(target) == name


def test_two_points_of_one_target_have_two_names() -> None:
    target = Target(kind="fpir", value=0.01, aggregate="evidence")
    strict = target.model_copy(update={"confidence": 0.99})
    own = target.model_copy(update={"group": GroupTarget(column="site", values=["north"], mode="own")})
    assert [
        name_target(target, "estimated"),
        name_target(target, "proven"),
        name_target(strict, "proven"),
        name_target(own, "proven"),
    ] == [
        "fpir-1%-evidence-estimated",
        "fpir-1%-evidence-proven",
        "fpir-1%-evidence-proven-at-99%",
        "fpir-1%-evidence-site-north-proven",
    ]


def test_flags_that_make_no_target_are_refused() -> None:
    with pytest.raises(ConfigError, match="exactly one target"):
        build_target(0.95)
    with pytest.raises(ConfigError, match="exactly one target"):
        build_target(0.95, far=0.1, eer=True)
    with pytest.raises(ConfigError, match="must be between 0 and 1"):
        build_target(0.95, far=1.0)
    with pytest.raises(ConfigError, match="needs a target FPIR"):
        build_target(0.95, far=0.1, aggregate="mean_of_class")
    with pytest.raises(ConfigError, match="two positive costs"):
        build_target(0.95, cost=(1, 0, 0.5))
    with pytest.raises(ConfigError, match="--cost needs"):
        parse_costs("1,2")
    assert select_given_targets(0.1, None) == {"far": 0.1}
