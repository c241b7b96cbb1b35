"""Every rule of a 1:N search is registered under the name that operating points give it."""

from __future__ import annotations

from typing import get_args

from api_schemas.operating_point import Aggregate
from index.search.match_rules import MATCH_RULES


def test_every_rule_is_registered() -> None:
    assert set(MATCH_RULES) == set(get_args(Aggregate))
    assert {aggregate: rule.reads_whole_classes for aggregate, rule in MATCH_RULES.items()} == {
        "nearest": False,
        "mean_of_class": True,
    }
