"""What a split will carry is said before training."""

from __future__ import annotations

from evaluation.calibration.planning.split_plan import plan_split

USUAL = (0.6, 0.2, 0.2)


def test_a_hundred_identities_are_proven_with_the_usual_split() -> None:
    plan = plan_split(100, USUAL, 20)
    assert plan.proven
    assert plan.estimated
    assert "40 classes to choose thresholds on (20 of validation and 20 of test" in plan.sentences[0]
    assert "estimated and proven" in plan.sentences[0]
    assert plan.strictest_far == 0.001
    assert plan_split(1000, USUAL, 20).sentences[0].startswith("200 classes to choose thresholds on (200 of")


def test_fewer_are_told_the_split_that_would_do() -> None:
    plan = plan_split(45, USUAL, 10)
    assert not plan.proven
    assert plan.estimated
    assert "will be estimated, with wide intervals" in plan.sentences[0]
    assert "A split of 0.5 / 0.35 / 0.15 would carry proven points with these 45 classes." in plan.sentences
    assert plan.suggested == (0.5, 0.35, 0.15)
    assert plan_split(45, plan.suggested, 10).proven


def test_very_few_are_told_how_many_it_takes() -> None:
    plan = plan_split(10, USUAL, 10)
    assert not plan.estimated
    assert "too few for any operating point" in plan.sentences[0]
    assert "Proven points take about 40 classes in all" in plan.sentences[1]
    assert plan.strictest_far is None
    assert plan.suggested is None
