"""The tradeoff of an endpoint: rates, classes and groups over a grid of thresholds (``Tradeoff``).

Counted on the items that operating points are shown on: those of a run's test classes, else those of the fit
with scores that were fitted without the classes of a trial.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import pyarrow as pa

from api_schemas.operating_point import Aggregate, GallerySize, OperatingPoint
from api_schemas.tradeoff import ClassesOver, GroupCurves, RateName, Tradeoff
from common.array_types import Float32s, Float64s
from common.errors import InputError
from common.progress import Track, silent
from decision.describe_point import get_shown_rates
from decision.scorers import Scorer
from decision.targets import Endpoint, get_endpoint
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.calibrate import Calibrator
from evaluation.calibration.fpir_thresholds import SEARCH_RULES, plan_gallery
from evaluation.calibration.sets.search_trials import SearchTrials, split_search
from evaluation.calibration.sets.sources import sample_items
from evaluation.calibration.tradeoff.rate_curves import ClassEvents, FpirCurve, PairEvents, QueryEvents
from evaluation.pairs.group_column import list_groups, read_group_column
from evaluation.pairs.pairs import Pairs, arrange

GRID = 140  # thresholds, besides those of operating points
SAMPLE = 2000  # items whose pairs tell the range of a 1:1 threshold
LOWEST = 0.5  # the error of strangers at the lowest threshold
HIGHEST = 0.98  # the error of the known at the highest
LEVELS = (0.01, 0.03, 0.1, 0.3)  # of a class's rate
DIGITS = 7  # of a rate
MOST_COLUMNS, MOST_VALUES = 3, 12  # groups that are found unasked
LEAST_ITEMS, LEAST_CLASSES = 30, 5  # of a group


@dataclass(frozen=True, eq=False)
class MeasuredSets:
    """What a tradeoff is counted on.

    Attributes:
        items: the set that ``pairs`` are of.
        search: trials of the rule ``aggregate``.
        gallery: the size that FPIR is for; that of ``search`` if None.
    """

    items: EmbeddingSet
    pairs: Pairs
    search: SearchTrials
    aggregate: Aggregate
    gallery: GallerySize | None

    @classmethod
    def of_calibrator(cls, calibrator: Calibrator, endpoint: Endpoint) -> MeasuredSets:
        """The items that a calibrator's points are shown on."""
        shown = calibrator.proof_data or calibrator.data
        sources = calibrator.sources
        aggregate: Aggregate = calibrator.aggregate if endpoint == "match" else "nearest"
        rule = SEARCH_RULES[aggregate]
        is_of_fit = calibrator.proof_data is None
        search = split_search(
            shown.scored.score_trials(rule), calibrator.in_gallery if is_of_fit else None, None
        )
        if calibrator.strangers_to_prove is not None and endpoint == "match":
            search = replace(calibrator.search, unknown=calibrator.strangers_to_prove)
        items = sources.pool if sources.proof is None else sources.proof
        return cls(items, shown.pairs, search, aggregate, sources.gallery if endpoint == "match" else None)

    @classmethod
    def of_items(
        cls,
        items: EmbeddingSet,
        scorer: Scorer,
        aggregate: Aggregate,
        gallery: GallerySize | None,
        track: Track = silent,
    ) -> MeasuredSets:
        """Items whose classes the score was not fitted on, each class in turn unknown to the others."""
        items = sample_items(items, 0)
        pairs = arrange(items, scorer=scorer)
        trials = SEARCH_RULES[aggregate].score_trials(pairs, track)
        return cls(items, pairs, split_search(trials, None, None), aggregate, gallery)


def measure_tradeoff(
    sets: MeasuredSets, endpoint: Endpoint, points: Sequence[OperatingPoint] = (), confidence: float = 0.95
) -> Tradeoff | None:
    """The tradeoff of an endpoint; None where nothing is there to be counted.

    Args:
        points: their thresholds are in the grid, and the columns of their groups are measured.
    """
    pairs, search = sets.pairs, sets.search
    of_endpoint = [point for point in points if get_endpoint(point.target) == endpoint]
    thresholds = _build_grid(sets, endpoint, [point.threshold for point in of_endpoint])
    if thresholds is None:
        return None
    queries = QueryEvents.count(search, thresholds)
    plan = plan_gallery(search.known.gallery_items, search.known.n_classes, sets.gallery)
    curve = FpirCurve.plan(search, thresholds, plan, confidence)
    of_pairs = PairEvents.count(pairs, thresholds) if SEARCH_RULES[sets.aggregate].is_of_pairs else None
    counted = queries.fpir.rate
    fpir = None if counted is None else curve.compute(counted)
    far = None if of_pairs is None else of_pairs.far
    rates: dict[str, Float64s | None] = {
        "far": None if far is None else far.rate,
        "far_upper": None if far is None else far.bound(confidence),
        "frr": None if of_pairs is None else of_pairs.frr.rate,
        "fpir": fpir,
        "fpir_upper": None if fpir is None else curve.bound(fpir),
        "fnir": queries.fnir.rate,
    }
    false = "fpir" if endpoint == "match" else "far"
    rates[f"{false}_upper"] = _pin_bounds(rates[false], rates[f"{false}_upper"], thresholds, of_endpoint)
    by_class: dict[RateName, ClassEvents] = {"fnir": queries.fnir}
    if not search.has_strangers:
        by_class["fpir"] = queries.fpir
    if of_pairs is not None:
        by_class |= {"far": of_pairs.far, "frr": of_pairs.frr}
    columns = _choose_columns(sets.items, of_endpoint)
    # of two models (``sets.two_models``) the rows of one alone are queries
    has_groups = not search.has_strangers and len(search.pool) == len(pairs.a)
    return Tradeoff(
        endpoint=endpoint,
        score=pairs.scorer.score,
        aggregate=sets.aggregate,
        gallery=plan.wanted,
        n_items=len(pairs.a),
        n_classes=len(pairs.classes),
        n_genuine_pairs=pairs.n_genuine,
        n_impostor_pairs=pairs.n_impostor,
        n_unknown_queries=len(search.unknown),
        confidence=confidence,
        thresholds=[float(at) for at in thresholds],
        classes_over=list(_count_classes(by_class)),
        groups=list(_measure_groups(sets, thresholds, curve, columns)) if has_groups else [],
        method=_describe(sets, curve),
        **{name: _round(rate) for name, rate in rates.items()},
    )


def measure_tradeoffs(
    calibrators: dict[Endpoint, Calibrator], points: Sequence[OperatingPoint], confidence: float, track: Track
) -> list[Tradeoff]:
    """The tradeoff of every endpoint that has calibrated points."""
    of_endpoints: list[Tradeoff] = []
    for endpoint, calibrator in track(list(calibrators.items()), "tradeoffs", len(calibrators)):
        sets = MeasuredSets.of_calibrator(calibrator, endpoint)
        tradeoff = measure_tradeoff(sets, endpoint, points, confidence)
        if tradeoff is not None:
            of_endpoints.append(tradeoff)
    return of_endpoints


def _build_grid(sets: MeasuredSets, endpoint: Endpoint, chosen: Sequence[float]) -> Float32s | None:
    """float32 [k], ascending: evenly over the scores where rates change, with the thresholds of points."""
    if endpoint == "match":
        false, right = sets.search.unknown.best_other, sets.search.known.decisive
    else:
        part = sets.pairs.sample(SAMPLE)
        block = part.score_block(slice(0, len(part.a)), slice(0, len(part.b)))
        false = block.scores[part.a.codes[:, None] != part.b.codes[None, :]]
        genuine = [pairs.scores for pairs in part.iterate_genuine()]
        right = np.concatenate([np.zeros(0, dtype=np.float32), *genuine])
    false, right = false[np.isfinite(false)], right[np.isfinite(right)]
    if not len(false):
        return None
    ends = [float(np.quantile(false, 1 - LOWEST)), float(false.max())]
    if len(right):
        ends += [float(np.quantile(right, 0.005)), float(np.quantile(right, HIGHEST))]
    ends += chosen
    low, high = min(ends), max(ends)
    room = 0.01 * (high - low) or 1e-3
    grid = np.linspace(low - room, high + room, GRID)
    return np.unique(np.concatenate([grid, chosen]).astype(np.float32))


def _pin_bounds(
    rate: Float64s | None, upper: Float64s | None, thresholds: Float32s, points: Sequence[OperatingPoint]
) -> Float64s | None:
    """The bounds; at the thresholds of points those that are shown with them, which take longer to make."""
    if rate is None or upper is None:
        return upper
    pinned = upper.copy()
    for point in points:
        at_most = get_shown_rates(point).at_most
        if at_most is not None and point.target.group is None:
            at = int(np.searchsorted(thresholds, np.float32(point.threshold)))
            pinned[at] = max(at_most, rate[at])
    return pinned


def _count_classes(by_class: dict[RateName, ClassEvents]) -> Iterator[ClassesOver]:
    for rate in get_args(RateName):
        if rate not in by_class:
            continue
        for level in LEVELS:
            n, over = by_class[rate].count_over(level)
            yield ClassesOver(rate=rate, level=level, n_classes=n, classes=over.tolist())


def _choose_columns(items: EmbeddingSet, points: Sequence[OperatingPoint]) -> list[str]:
    """The columns that points have targets for, and further ones whose few values are all well filled."""
    asked = [
        column
        for point in points
        if point.target.group is not None
        for column in point.target.group.column.split(", ")
    ]
    found = [column for column in items.metadata if column not in asked and _makes_groups(items, column)]
    return [*dict.fromkeys(column for column in asked if column in items.metadata), *found[:MOST_COLUMNS]]


def _makes_groups(items: EmbeddingSet, column: str) -> bool:
    values = items.metadata[column]
    kind = values.type if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values[:1]).type
    if pa.types.is_floating(kind) or pa.types.is_nested(kind):
        return False
    try:
        texts = read_group_column(items, column)
    except InputError:
        return False
    groups = list_groups(texts)
    if not 2 <= len(groups) <= MOST_VALUES:
        return False
    sizes = [
        (int(members.sum()), len(np.unique(items.codes[members])))
        for members in (texts == group for group in groups)
    ]
    return all(n >= LEAST_ITEMS and classes >= LEAST_CLASSES for n, classes in sizes)


def _measure_groups(
    sets: MeasuredSets, thresholds: Float32s, curve: FpirCurve, columns: Iterable[str]
) -> Iterator[GroupCurves]:
    """Pairs have both ends in a group; its queries meet the whole gallery."""
    for column in columns:
        texts = read_group_column(sets.items, column)[sets.pairs.a.rows]
        for value in list_groups(texts):
            rows = np.flatnonzero(texts == value)
            part = sets.pairs.select_rows(rows)
            own = sets.search.pool.select_queries(rows)
            queries = QueryEvents.count(SearchTrials(own, own, own), thresholds)
            fpir = queries.fpir.rate
            of_pairs = (
                PairEvents.count(part, thresholds) if SEARCH_RULES[sets.aggregate].is_of_pairs else None
            )
            yield GroupCurves(
                column=column,
                value=value,
                n_items=len(rows),
                n_classes=len(np.unique(part.a.codes)),
                far=None if of_pairs is None else _round(of_pairs.far.rate),
                frr=None if of_pairs is None else _round(of_pairs.frr.rate),
                fpir=None if fpir is None else _round(curve.compute_of_group(fpir)),
                fnir=_round(queries.fnir.rate),
            )


def _describe(sets: MeasuredSets, curve: FpirCurve) -> str:
    pairs, search = sets.pairs, sets.search
    who = (
        f"{len(search.unknown):,} queries of classes that are in no gallery"
        if search.has_strangers
        else "each class in turn unknown to the others"
    )
    extended = (
        ""
        if curve.is_own or sets.gallery is None
        else (f"; FPIR extended from {search.known.n_classes:,} classes to {sets.gallery.classes:,}")
    )
    return (
        f"counted on {len(pairs.a):,} items of {len(pairs.classes):,} classes by "
        f"{SEARCH_RULES[sets.aggregate].description}, {who}{extended}; bounds over newly sampled classes"
    )


def _round(rates: Float64s | None) -> list[float] | None:
    """Seven significant digits: more are noise, and take room."""
    return None if rates is None else [float(f"{rate:.{DIGITS}g}") for rate in rates]
