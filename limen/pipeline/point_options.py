"""What a command's flags say about the operating points of a bundle, besides targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from api_schemas.build_config import BuildConfig
from api_schemas.operating_point import AggregateChoice
from common.console import say
from common.errors import ConfigError
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import read_embeddings
from limen.pipeline.evaluation_source import EvaluationSource
from limen.pipeline.label_options import apply_label_options

Settings = TypeVar("Settings", bound=BuildConfig)


@dataclass(frozen=True)
class PointOptions:
    """Flags that replace settings (None leaves a setting alone), further data, and how labels are read.

    Attributes:
        cohort: vectors of people or things that are in no gallery, as impostors.
        unknown: real queries whose class is in no gallery.
        unknown_labels: labels of no identity; their items are unknown queries and in no gallery.
        fold_labels: labels that differ in case, blanks, invisible characters or Unicode form alone are one.
        exclude_same: what excluded pairs share.
        vectors: of one object that a 1:N query has.
    """

    aggregate: AggregateChoice | None = None
    false_match_cost: float | None = None
    unknown_share: float | None = None
    proven_only: bool = False
    group: Sequence[str] = ()
    cohort: EmbeddingSet | None = None
    unknown: EmbeddingSet | None = None
    unknown_labels: Sequence[str] = ()
    fold_labels: bool = False
    exclude_same: Sequence[str] = ()
    vectors: int | None = None

    @classmethod
    def read(
        cls,
        *,
        cohort: Path | None,
        unknown: Path | None,
        cost: float | None,
        unknown_share: float | None,
        aggregate: AggregateChoice | None,
        proven_only: bool,
        group: Sequence[str] | None,
        unknown_label: Sequence[str] | None,
        fold_labels: bool,
        exclude_same: Sequence[str] | None,
        vectors: int | None,
    ) -> PointOptions:
        """Read the files and check the numbers; raises ConfigError naming the flag."""
        if cost is not None and not cost > 0:
            raise ConfigError(
                f"--cost must be above 0 (how many misses one false match costs), found {cost:g}."
            )
        if unknown_share is not None and not 0 < unknown_share < 1:
            raise ConfigError(
                f"--unknown-share must be above 0 and below 1, found {unknown_share:g}: where no query or "
                "every query is unknown there is nothing to decide."
            )
        return cls(
            aggregate,
            cost,
            unknown_share,
            proven_only,
            group or (),
            None if cohort is None else read_embeddings(cohort, say),
            None if unknown is None else read_embeddings(unknown, say),
            unknown_label or (),
            fold_labels,
            exclude_same or (),
            vectors,
        )

    def list_flags_of_one_set(self) -> list[str]:
        """Flags given that need items which are compared with each other, of one model and in one role."""
        given = {
            "--cohort": self.cohort is not None,
            "--unknown": self.unknown is not None or bool(self.unknown_labels),
            "--group": bool(self.group),
            "--vectors": (self.vectors or 1) > 1,
            "--aggregate": self.aggregate not in (None, "auto", "nearest"),
        }
        return [flag for flag, is_given in given.items() if is_given]

    def apply(self, settings: Settings) -> Settings:
        """The settings with these flags."""
        flags = {
            "aggregate": self.aggregate,
            "false_match_cost": self.false_match_cost,
            "unknown_share": self.unknown_share,
            "proven_only": self.proven_only or None,
            "group": list(self.group) or None,
            "exclude_same": list(self.exclude_same) or None,
            "vectors": self.vectors,
        }
        given = {name: value for name, value in flags.items() if value is not None}
        return settings.model_copy(update={"calibration": settings.calibration.model_copy(update=given)})

    def read_labels(
        self, source: EvaluationSource, gallery: EmbeddingSet | None = None
    ) -> tuple[EvaluationSource, EmbeddingSet | None, EmbeddingSet | None]:
        """Source, unknown queries and gallery as the labels are to be read (``apply_label_options``)."""
        return apply_label_options(
            source,
            fold=self.fold_labels,
            unknown_labels=self.unknown_labels,
            unknown=self.unknown,
            gallery=gallery,
        )


DEFAULT_OPTIONS = PointOptions()
