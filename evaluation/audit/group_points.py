"""Targets that hold in every group, or a point for each: sites, cameras, ages, languages.

A group is measured among its own items, where look-alikes are most likely: people of one age, photos of one
camera. The threshold of every group is then the highest that one of them needs, so that no group pays for the
mean of all (Cruz & Hardt 2024, Unprocessing Seven Years of Algorithmic Fairness: thresholds by group reach
what constrained training does). Bounds are each group's own, at the target's confidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from api_schemas.operating_point import (
    Aggregate,
    GroupTarget,
    Proof,
    ScoreChoice,
    Target,
)
from common.errors import CalibrationRefused, InputError
from common.progress import Track, silent
from decision.targets import name_target
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.calibrate import Calibration, Calibrator, StatusChoice
from evaluation.calibration.measure_threshold import measure_threshold
from evaluation.calibration.sets.sources import CalibrationSources, join_sets
from evaluation.pairs.group_column import list_groups, read_group_column

GroupMode = Literal["every", "own"]


class Group(NamedTuple):
    """The items that share a value of a column."""

    column: str
    value: str

    def __str__(self) -> str:
        return f"{self.column} = {self.value}"


@dataclass(frozen=True, eq=False)
class GroupCalibrator:
    """One score and 1:N rule, calibrated over all items and in each group.

    Attributes:
        columns: of the metadata.
        overall: over all items; the score is chosen there.
        groups: among the items of each group.
        refused: why nothing can be said of a group.
    """

    columns: tuple[str, ...]
    overall: Calibrator
    groups: Mapping[Group, Calibrator]
    refused: Mapping[Group, str]

    @classmethod
    def prepare(
        cls,
        sources: CalibrationSources,
        score: ScoreChoice,
        aggregate: Aggregate,
        columns: Sequence[str],
        model_hash: str,
        *,
        overall: Calibrator | None = None,
        seed: int = 0,
        track: Track = silent,
    ) -> GroupCalibrator:
        """Split the sets by columns; sets without one (training, a cohort, unknown queries) count everywhere.

        Args:
            overall: where it was prepared already.

        Raises:
            CalibrationRefused: too few classes in all.
            InputError: a column is not in the data, is empty in many rows or has one value.
        """
        members = [group for column in columns for group in list_members(sources.fit, column)]
        if overall is None:
            overall = Calibrator.prepare(sources, score, aggregate, model_hash, seed=seed, track=track)
        groups: dict[Group, Calibrator] = {}
        refused: dict[Group, str] = {}
        for group in track(members, "groups", len(members)):
            try:
                groups[group] = overall.restrict(select_group(overall.sources, group))
            except CalibrationRefused as refusal:
                refused[group] = str(refusal)
        return cls(tuple(columns), overall, groups, refused)

    def calibrate_every(
        self, target: Target, status: StatusChoice = "auto", name: str | None = None
    ) -> Calibration:
        """One point whose target is met in every group, by the threshold of the group that needs the highest.

        Its proof is that group's, its fit is over all items.

        Raises CalibrationRefused where a group is too small to say; the sentence names it.
        """
        if self.refused:
            raise CalibrationRefused(" ".join(self._explain(group) for group in self.refused))
        if status == "auto":
            try:
                return self.calibrate_every(target, "proven", name)
            except CalibrationRefused:
                return self.calibrate_every(target, "estimated", name)
        made: dict[Group, Calibration] = {}
        for group, calibrator in self.groups.items():
            try:
                made[group] = calibrator.calibrate(target, status)
            except CalibrationRefused as refusal:
                raise CalibrationRefused(f"In the group {group}: {refusal}") from refusal
        worst = max(made, key=lambda group: made[group].point.threshold)
        point, overall = made[worst].point, self.overall
        data = overall.data.with_target(point.target)
        search = overall.search if target.kind == "fpir" else None
        fit, per_class = measure_threshold(data, point.threshold, search=search)
        thresholds = ", ".join(f"{group} {made[group].point.threshold:.4f}" for group in made)
        kind = "bound" if status == "proven" else "estimate"
        note = (
            f"the target is met in every {' and '.join(self.columns)}, each by its own {kind} ({thresholds});"
            f" the highest threshold, of the worst group, {worst}, is taken, and what is shown as proof is "
            "of that group"
        )
        several = len(self.columns) > 1
        of_every = GroupTarget(
            column=", ".join(self.columns),
            values=[str(group) if several else group.value for group in made],
            mode="every",
        )
        held = point.target.model_copy(update={"group": of_every})
        changes: dict[str, Any] = {
            "name": name or f"{name_target(held, status)}-every-{'-'.join(self.columns)}",
            "data_hash": overall.data_hash,
            "target": held,
            "fit": fit.model_copy(update={"method": f"{note}; {fit.method}"}),
            "per_class": per_class,
            "probability": overall.probability,
            "answer": overall.answer if target.kind == "fpir" else None,
            "consistency": overall.consistency,
        }
        # without test classes what all classes of the group say of this very threshold: folds have others
        shown = point.proof
        if shown is None or getattr(shown, f"{target.kind}_upper") is None:
            folds = "" if shown is None else f"; {shown.method}"
            unknown = None if shown is None else shown.unknown
            shown = Proof(**point.fit.model_dump(), status=status).model_copy(update={"unknown": unknown})
            shown = shown.model_copy(update={"method": f"{shown.method}{folds}"})
        method = f"of {worst}, the worst of {len(made)} groups; {shown.method}"
        changes["proof"] = shown.model_copy(update={"method": method})
        return replace(made[worst], point=point.with_changes(**changes))

    def calibrate_own(
        self, target: Target, status: StatusChoice = "auto"
    ) -> tuple[list[Calibration], list[str]]:
        """A point for each group, which requests choose by ``group``; and why one is missing."""
        points, reasons = [], [self._explain(group) for group in self.refused]
        for group, calibrator in self.groups.items():
            own = GroupTarget(column=group.column, values=[group.value], mode="own")
            try:
                made = calibrator.calibrate(target.model_copy(update={"group": own}), status)
            except CalibrationRefused as refusal:
                reasons.append(f"In the group {group}: {refusal}")
                continue
            points.append(made)
        return points, reasons

    def _explain(self, group: Group) -> str:
        return (
            f"Nothing can be said of the group {group}: {self.refused[group]} Or put it together with a "
            "group like it, or leave its rows out."
        )


def list_members(items: EmbeddingSet, column: str) -> list[Group]:
    """The groups of a column; raises InputError for one group alone."""
    values = list_groups(read_group_column(items, column))
    if len(values) < 2:
        raise InputError(
            f"The column '{column}' has one value, '{values[0]}', so there are no groups to compare."
        )
    return [Group(column, value) for value in values]


def select_group(sources: CalibrationSources, group: Group) -> CalibrationSources:
    """The sets of a group; those without the column as they are. The gallery is as large as that of all."""

    def select(items: EmbeddingSet | None) -> EmbeddingSet | None:
        if items is None or group.column not in items.metadata:
            return items
        return items.subset(read_group_column(items, group.column) == group.value)

    unknown = sources.unknown
    if unknown is not None and sources.unknown_proof is not None:
        unknown = join_sets(unknown, sources.unknown_proof)  # halved again, within the group
    fit = select(sources.fit)
    assert fit is not None
    return replace(
        sources,
        fit=fit,
        proof=select(sources.proof),
        cohort=select(sources.cohort),
        unknown=select(unknown),
        unknown_proof=None,
        notes=(f"items of {group} alone",),
    )
