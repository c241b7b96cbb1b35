"""Rules that turn readings into alerts: the defaults, and a file that changes them or adds others."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import Field

from api_schemas.base import Finite
from api_schemas.yaml_config import Part, read_mapping, suggest_key, validate_mapping
from common.errors import ConfigError

MOST_RULES = 64
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")


class AlertRule(Part):
    """An alert fires once a signal was above a value for some seconds, and ends once it was low for some.

    What is compared is the signal's lower bound, where it has one, so that noise is no alarm; the alert is
    over once the figure itself was at ``clear`` or below for ``clear_seconds``.
    """

    signal: str
    above: Finite
    clear: Finite
    seconds: Finite = Field(default=0.0, ge=0, le=86_400)
    clear_seconds: Finite = Field(default=300.0, ge=0, le=86_400)
    summary: str = Field(max_length=500)
    todo: str = Field(max_length=1_000)
    enabled: bool = True


def _rule(
    signal: str, above: float, clear: float, summary: str, todo: str, *, seconds: float = 0.0
) -> dict[str, Any]:
    return {
        "signal": signal,
        "above": above,
        "clear": clear,
        "summary": summary,
        "todo": todo,
        "seconds": seconds,
    }


DEFAULT_RULES: dict[str, dict[str, Any]] = {
    "score-drift": _rule(
        "score_stability", 0.05, 0.05,
        "Scores are not distributed as calibrated.",
        "Compare the histogram with what is expected: a shift to the left means queries have become harder "
        "(camera, light, language), one to the right that copies are asked. Judge some decisions near the "
        "threshold, compute the feedback report, and calibrate again on newer data if FAR or FRR is off.",
    ),
    "pair-score-drift": _rule(
        "pair_score_stability", 0.05, 0.05,
        "Scores of compared pairs are not distributed as calibrated.",
        "Compare the histogram of the 1:1 point with what is expected: to the left means that pairs of one "
        "class have become harder, to the right copies. Judge some pairs near the threshold, compute the "
        "feedback report, and calibrate again on newer data if FAR or FRR is off.",
    ),
    "query-drift": _rule(
        "query_drift", 0.55, 0.55,
        "Queries look different from the gallery's items of the same classes.",
        "Something between the sensor and the encoder has changed: check resizing, colour, cropping, the "
        "version of the encoder that clients use. If the change is meant to last, add items made the new way "
        "and calibrate again.",
    ),
    "unknown-share": _rule(
        "unknown_share_change", 0.02, 0.02,
        "The share of unknown has changed.",
        "More unknown: new identities (look at the unknowns, name the groups), or queries that have become "
        "harder (see the other alerts). Less unknown: check that impostors are not matched, by judging some "
        "recent matches.",
    ),
    "gallery-drift": _rule(
        "gallery_drift", 0.55, 0.55,
        "Items written since the bundle was made differ from those that the point was proven with.",
        "Check how the new items were made. If it is the new normal, export or build a bundle from the "
        "present gallery, whose points are then proven on it.",
    ),
    "feedback-rate": _rule(
        "feedback_rate", 0.0, 0.0,
        "Feedback shows more false matches than the operating point's target allows.",
        "Look at the false matches; unless they were picked because they were wrong, choose a higher "
        "threshold (the next rung of the ladder) or calibrate again with this feedback.",
    ),
    "beyond-proof": _rule(
        "beyond_proof", 1.1, 1.1,
        "The gallery has outgrown the proof of the operating point.",
        "FPIR grows with the gallery. Calibrate for the size that it has now: limen calibrate with the "
        "present items, or activate a point that is proven for a larger gallery.",
    ),
    "rebuild-failed": _rule(
        "rebuild_failed", 0.5, 0.5,
        "The last background rebuild of the index failed.",
        "/v1/info says why; most often the disk is full. Answers stay exact meanwhile, but slower.",
    ),
    "latency": _rule(
        "latency_p99", 1.0, 0.7,
        "One decision in a hundred takes longer than a second.",
        "Look for large batches, several vectors of each query, filters that exclude nearly everything, or a "
        "machine that others use as well.",
        seconds=60.0,
    ),
    "errors": _rule(
        "error_share", 0.01, 0.005,
        "Requests fail with errors of the service (5xx).",
        "The log has each under its request id.",
        seconds=60.0,
    ),
    "writes-failing": _rule(
        "writes_failing", 0.5, 0.5,
        "The database or the disk does not take writes.",
        "Make room on the disk or see to the database; what was not acknowledged must be sent again.",
    ),
}  # fmt: skip


def read_rules(file: Path | None, signals: Collection[str]) -> dict[str, AlertRule]:
    """The rules by name, disabled ones left out: the defaults with the changes of a YAML file.

    Under ``rules`` the file names each rule that it changes or adds; a new one gives all that has no default.

    Raises ConfigError, or InputError for a file that cannot be read.
    """
    merged: dict[str, dict[str, Any]] = {name: dict(rule) for name, rule in DEFAULT_RULES.items()}
    if file is not None:
        given = read_mapping(file)
        unknown = given.keys() - {"rules"}
        if unknown:
            raise ConfigError(f"{file}: unknown key '{min(unknown)}': {suggest_key(min(unknown), ['rules'])}")
        changes = given.get("rules")
        if not isinstance(changes, dict):
            raise ConfigError(f"{file}: rules must name rules with their changes.")
        for name, change in changes.items():
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise ConfigError(
                    f"{file}: rules.{name}: a name has up to 40 lower-case letters, digits and -."
                )
            if not isinstance(change, dict):
                raise ConfigError(f"{file}: rules.{name} must hold keys and values.")
            if name not in DEFAULT_RULES and "signal" not in change:
                raise ConfigError(
                    f"{file}: rules.{name} has no signal, so it is no new rule: "
                    f"{suggest_key(name, list(DEFAULT_RULES))}"
                )
            merged[name] = {**merged.get(name, {}), **change}
    if len(merged) > MOST_RULES:
        raise ConfigError(f"{file}: {len(merged)} rules, at most {MOST_RULES} are allowed.")
    rules = {
        name: validate_mapping(AlertRule, rule, [], f"{file or 'default'}: rules.{name}")
        for name, rule in merged.items()
    }
    for name, rule in rules.items():
        if rule.signal not in signals:
            raise ConfigError(
                f"{file}: rules.{name}.signal '{rule.signal}': {suggest_key(rule.signal, list(signals))}"
            )
        if rule.clear > rule.above:
            raise ConfigError(
                f"{file}: rules.{name}.clear is {rule.clear:g}, it must not be over above ({rule.above:g})."
            )
    return {name: rule for name, rule in rules.items() if rule.enabled}
