"""``diagnosis.json``: the figures of a report broken down by class, group and pair.

It is written beside ``report.json``; nothing is decided by it.
"""

from __future__ import annotations

from api_schemas.base import Finite, Schema
from api_schemas.report import Measurement


class Thresholds(Schema):
    """The thresholds at which group rates are given, by the pooled FAR or FPIR that each keeps within."""

    far: dict[str, Finite]
    fpir: dict[str, Finite]


class GroupDiagnosis(Schema):
    """The items that share one value of a column (``label``: one class).

    ``far`` and ``frr`` are over pairs whose two ends are in the group (against a gallery: whose query
    is), at the pooled thresholds; for a class, ``far`` is over pairs with one end in it. ``fpir`` and
    ``fnir`` are over its queries, each class left out of the gallery in turn.
    """

    column: str
    value: str
    n_items: int
    n_classes: int
    genuine_pairs: int
    impostor_pairs: int
    far: dict[str, Finite | None]
    frr: dict[str, Finite | None]
    fpir: dict[str, Finite | None]
    fnir: dict[str, Finite | None]
    recall_at_1: Finite | None
    r_precision: Finite | None
    map_at_r: Finite | None


class ClassSpread(Schema):
    """Spread of a class and distance to the others, as squared distances.

    ``intra``: mean to the class's own mean. ``inter``: from its mean to the mean of all classes.
    ``collapse``: intra / inter, 0 at neural collapse. ``nearest``: the class with the nearest mean;
    ``separation``: the two classes' mean intra over the squared distance of their means (the
    class-distance normalised variance of Galanti et al., arXiv 2112.15121, equation 2).
    """

    label: str
    n_items: int
    intra: Finite | None
    inter: Finite
    collapse: Finite | None
    nearest: str
    separation: Finite | None


class WorstPair(Schema):
    """A hard pair (genuine with a low score, impostor with a high one), by the ids of its items."""

    a: str
    b: str
    label_a: str
    label_b: str
    score: Finite


class ReliabilityDiagram(Schema):
    """Reliability diagram of an operating point's match probability, with pairs weighted to a prior.

    ``predicted``, ``observed`` and ``share``: mean probability, fraction of matches and weight of each of 15
    bins of equal weight (fewer where probabilities tie). ``ece``: weighted mean gap between the first
    two; ``brier``: mean squared error; ``log_loss`` in nats.
    """

    kind: str
    prior: Finite
    predicted: list[Finite]
    observed: list[Finite]
    share: list[Finite]
    ece: Finite
    brier: Finite
    log_loss: Finite


class Diagnosis(Measurement):
    """The diagnosis. A figure that the data cannot give is null, and a sentence in ``reasons`` says why.

    ``utilization`` (Metrix, arXiv 2106.04990): mean squared distance of a tested item to its nearest
    training item. ``neural_collapse``: trace of within-class covariance times the pseudo-inverse of
    between-class covariance, over the number of classes (NC1 of Papyan et al., arXiv 2008.08186).
    """

    thresholds: Thresholds
    groups: list[GroupDiagnosis]
    spread: list[ClassSpread]
    neural_collapse: Finite | None
    utilization: Finite | None
    reliability: ReliabilityDiagram | None = None
    hardest_genuine: list[WorstPair]
    hardest_impostor: list[WorstPair]
