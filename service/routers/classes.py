"""``/v1/classes``: how each class is served by one threshold, and why."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query, Response

from api_schemas.http.classes import (
    ClassDetail,
    ClassPage,
    ClassSort,
    ClassSource,
    ItemPair,
    Lookalike,
    ScoreHistogram,
)
from api_schemas.http.decisions import ItemId
from api_schemas.operating_point import OperatingPoint
from common.array_types import Float32s
from decision.scorers import accepts
from index.search.class_comparison import ClassComparison, HardPair
from service.errors.problems import NOT_FOUND, ServiceProblem
from service.http.bodies import write_json_response
from service.http.openapi import READ_STATUSES, describe_problems
from service.models.class_table import ClassTable
from service.models.loaded_model import LoadedModel
from service.routers.reports import read_report
from service.state import ActiveModel, CurrentState, ServiceState

router = APIRouter(tags=["inspect"])
SOURCES: tuple[ClassSource, ...] = ("holdout", "gallery")
MOST_CLASSES = 1_000
MOST_OFFSET = 10_000_000
BINS = 48


@router.get(
    "/v1/classes",
    summary="List classes, worst first",
    response_model=ClassPage,
    responses=describe_problems(*READ_STATUSES),
)
async def classes(
    model: ActiveModel,
    state: CurrentState,
    source: ClassSource = "holdout",
    sort: ClassSort = "worst",
    search: Annotated[str, Query(max_length=512)] = "",
    offset: Annotated[int, Query(ge=0, le=MOST_OFFSET)] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_CLASSES)] = 100,
) -> Response:
    """The classes of the gallery and of the report, each with its items and its FAR, FRR and utility.

    `search` keeps those whose label holds it, whatever the case; those that were not measured come last.
    """
    page = await state.looking.run(
        lambda: build_table(state, model, source).select(sort, search, offset, limit)
    )
    return write_json_response(page)


@router.get(
    "/v1/classes/{label:text}",
    summary="Describe a class",
    response_model=ClassDetail,
    responses=describe_problems(*READ_STATUSES, 404),
)
async def class_detail(label: ItemId, model: ActiveModel, state: CurrentState) -> Response:
    """How the gallery's items of a class score with each other and with those of other classes.

    Of a large class an even sample is compared (`LIMEN_CLASS_ITEMS`, `LIMEN_CLASS_OTHERS`), and the answer
    says how many. Its items are at `GET /v1/items?label=`.
    """
    return write_json_response(await state.looking.run(lambda: describe_class(state, model, label)))


def build_table(state: ServiceState, model: LoadedModel, source: ClassSource) -> ClassTable:
    """Every class with the rates of a source; without rates where there is no report of it."""
    report = read_report(state, model, source)
    return model.class_tables.get(source, model.gallery.view, report, model.active_verify)


def describe_class(state: ServiceState, model: LoadedModel, label: str) -> ClassDetail:
    """A class as it is now; raises the problem ``not-found`` for one that nothing is known of."""
    tables = [build_table(state, model, source) for source in SOURCES]
    measured = [(table.find(label), table.rates) for table in tables]
    rates = [(summary, source) for summary, source in measured if summary is not None]
    settings = state.settings
    compared = model.gallery.compare_class(label, settings.class_items, settings.class_others)
    if compared is None and not rates:
        raise ServiceProblem(NOT_FOUND, f"No item has the label '{label[:100]}', and no report names it.")
    point = model.active_verify
    n_others = 0 if compared is None else compared.n_others
    genuine = np.empty(0, np.float32) if compared is None else compared.genuine
    impostor = np.empty(0, np.float32) if compared is None else compared.impostor
    return ClassDetail(
        label=label,
        items=0 if compared is None else compared.n_items,
        tightness=None if compared is None else compared.tightness,
        rates=[summary for summary, _ in rates],
        rates_from=[source for _, source in rates],
        score_kind=model.gallery.scorer.score.kind,
        operating_point=None if point is None else point.id,
        threshold=None if point is None else point.threshold,
        compared_items=0 if compared is None else len(compared.ids),
        compared_others=n_others,
        genuine_pairs=len(genuine),
        impostor_pairs=len(impostor),
        genuine_rejected=None if point is None else int((~accepts(genuine, point.threshold)).sum()),
        impostor_accepted=None if point is None else int(accepts(impostor, point.threshold).sum()),
        histogram=_count_scores(genuine, impostor, point),
        hardest_genuine=[_write_pair(pair, point) for pair in compared.hardest_genuine] if compared else [],
        hardest_impostor=[_write_pair(pair, point) for pair in compared.hardest_impostor] if compared else [],
        lookalikes=[] if compared is None else _list_lookalikes(tables[0], compared, point),
    )


def _count_scores(
    genuine: Float32s, impostor: Float32s, point: OperatingPoint | None
) -> ScoreHistogram | None:
    """Counts of both kinds of pairs in equal steps, with the threshold in the picture."""
    if not len(genuine) and not len(impostor):
        return None
    seen = np.concatenate([genuine, impostor]).astype(np.float64)
    ends = [float(seen.min()), float(seen.max())]
    if point is not None:
        ends.append(point.threshold)
    low, high = min(ends), max(ends)
    edges = np.linspace(low, high if high > low else low + 1e-3, BINS + 1)
    counts = [np.histogram(np.clip(scores, edges[0], edges[-1]), edges)[0] for scores in (genuine, impostor)]
    return ScoreHistogram(edges=edges.tolist(), genuine=counts[0].tolist(), impostor=counts[1].tolist())


def _write_pair(pair: HardPair, point: OperatingPoint | None) -> ItemPair:
    accepted = None if point is None else bool(accepts(pair.score, point.threshold))
    return ItemPair(**pair._asdict(), accepted=accepted)


def _list_lookalikes(
    table: ClassTable, compared: ClassComparison, point: OperatingPoint | None
) -> list[Lookalike]:
    return [
        Lookalike(
            label=label,
            items=table.count_items(label),
            score=max(scores),
            accepted=None if point is None else int(accepts(scores, point.threshold).sum()),
        )
        for label, scores in compared.lookalikes
    ]
