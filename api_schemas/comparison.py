"""``comparison.json``: two models measured on the same items, and whether one can replace the other."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from api_schemas.base import SCHEMA_VERSION, Finite, Schema
from api_schemas.diagnosis import WorstPair
from api_schemas.operating_point import Score
from api_schemas.report import Difference


class Flips(Schema):
    """Decisions that change between two models, each at its own threshold.

    ``gained``: pairs that b decides correctly and a does not; ``lost``: the reverse. Examples are the lost
    pairs whose scores are farthest from b's threshold, with b's score.
    """

    threshold_a: Finite
    threshold_b: Finite
    genuine_gained: int
    genuine_lost: int
    impostor_gained: int
    impostor_lost: int
    examples_genuine_lost: list[WorstPair]
    examples_impostor_lost: list[WorstPair]


class Compatibility(Schema):
    """New queries (b) against the old gallery (a): does the gallery have to be embedded again?

    ``compatible``: recall@1 of new queries against the old gallery is at least that of old queries against
    it. (The empirical criterion of Shen et al., arXiv 2003.11942, section 3.3, asks for more than that, which
    a model that is compared with itself cannot give, nor one where both find everything.)
    ``far_at_old_threshold`` is the FAR of such mixed pairs at a's threshold. ``genuine_kept`` and
    ``impostor_kept`` are the fractions of pairs that meet the definition's two inequalities: genuine pairs
    at least as near, impostor pairs at least as far as they were. ``fpir`` and ``fnir``: what a search at
    a's threshold does, each query with its own item left out of the gallery: with its class left out too, how
    often another class is matched; with it, how often its own is not.
    """

    recall_at_1_old_old: Finite
    recall_at_1_new_old: Finite
    recall_at_1_new_new: Finite
    compatible: bool
    far_at_old_threshold: Finite
    genuine_kept: Finite
    impostor_kept: Finite
    fpir_old_old: Finite | None = None
    fpir_new_old: Finite | None = None
    fnir_old_old: Finite | None = None
    fnir_new_old: Finite | None = None


class Comparison(Schema):
    """The comparison. A figure that the data cannot give is null, and a sentence in ``reasons`` says why."""

    schema_version: Literal[1] = SCHEMA_VERSION
    created_at: datetime
    model_hash_a: str
    model_hash_b: str
    score_a: Score
    score_b: Score
    n_items: int
    n_classes: int
    far: Finite
    reasons: list[str]
    differences: list[Difference]
    flips: Flips
    compatibility: Compatibility | None
