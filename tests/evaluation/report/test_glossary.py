"""The terms of reports and pages: the glossary's sentences, and targets without terms."""

from __future__ import annotations

import pytest

from api_schemas.operating_point import Target
from evaluation.report.glossary import TERMS, describe_target
from tests.conftest import ROOT


def test_the_glossary_of_the_documentation_has_the_same_sentences() -> None:
    rows = (ROOT / "docs" / "glossary.md").read_text().splitlines()
    written = [f"| {term} | {sentence} |" for term, sentence in TERMS.items()]
    assert [row for row in written if row not in rows] == []


@pytest.mark.parametrize(
    ("kind", "value", "sentence"),
    [
        ("fpir", 0.01, "Of 1,000 queries of no class in the gallery, at most 10 are matched to one."),
        ("far", 0.0001, "Of 10,000 pairs that are not the same, at most 1 are taken to be the same."),
        ("frr", 0.0125, "Of 1,000 pairs that are the same, at most 12.5 are turned away."),
    ],
)
def test_a_target_is_counted_in_thousands(kind: str, value: float, sentence: str) -> None:
    assert describe_target(Target(kind=kind, value=value)) == sentence


def test_an_estimated_threshold_promises_no_bound() -> None:
    target = Target(kind="fpir", value=0.03)
    expected = "Of 1,000 queries of no class in the gallery, about 30 are matched to one."
    assert describe_target(target, "estimated") == describe_target(target, "chosen") == expected


def test_targets_without_a_rate_are_described_too() -> None:
    assert "turned away" in describe_target(Target(kind="eer", value=None))
    assert "cost" in describe_target(Target(kind="cost", value=0.3))
