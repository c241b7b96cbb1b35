"""``/dashboard/classes``: every class, worst first; and the page of one class."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from api_schemas.http.classes import ClassDetail, ClassPage, ClassSource, ItemPair
from api_schemas.http.previews import Preview
from evaluation.report.glossary import TERMS
from evaluation.report.headline import format_number, format_percent
from service.errors.problems import INVALID_REQUEST, build_field_problem
from service.http.bodies import write_json_response
from service.models.loaded_model import LoadedModel
from service.routers.classes import build_table, describe_class
from service.routers.info import info
from service.routers.thumbnails import build_previews
from service.state import ActiveModel, CurrentState, ServiceState
from service.web.class_charts import build_class_url, draw_histogram
from service.web.page_routes import PageRoute
from service.web.pages import render_page

router = APIRouter(include_in_schema=False, route_class=PageRoute)
ROWS = 25
MOST_POINTS = 10_000
SHOWN_LABEL = 40  # characters of a label in the chart, so that its data stay below 2 MB
SHOWN_ITEMS = 24
USUAL_TIGHTNESS = "usual_tightness"


@router.get("/dashboard/classes")
async def classes(
    request: Request, model: ActiveModel, state: CurrentState, source: ClassSource | None = None
) -> Response:
    """The page; its chart comes from ``/dashboard/classes.json``, further rows from ``/v1/classes``."""
    chosen = source or "holdout"
    page = await state.looking.run(lambda: build_table(state, model, chosen).select("worst", "", 0, ROWS))
    return render_page(
        request,
        "classes.html",
        here="classes",
        info=await info(model, state),
        terms=TERMS,
        page=page,
        rows=ROWS,
        source=chosen,
        story=_tell_worst(page),
        class_url=build_class_url,
        percent=format_percent,
        number=format_number,
    )


@router.get("/dashboard/classes.json")
async def points(model: ActiveModel, state: CurrentState, source: ClassSource = "holdout") -> Response:
    """FAR, FRR and items of up to 10,000 measured classes, the worst, in columns."""
    return write_json_response(await state.looking.run(lambda: _list_points(state, model, source)))


@router.get("/dashboard/classes/{label:text}")
async def class_page(
    request: Request,
    model: ActiveModel,
    state: CurrentState,
    label: str,
    given: Annotated[str | None, Query(alias="label", max_length=512)] = None,
) -> Response:
    """The page of a class; ``?label=`` is for labels that no path can hold."""
    name = label or given or ""
    if not 0 < len(name) <= 512 or "\0" in name:
        raise build_field_problem(
            INVALID_REQUEST, "label", "a label has 1 to 512 characters, NUL not among them"
        )
    return await state.looking.run(lambda: _render_class(request, state, model, name))


def _render_class(request: Request, state: ServiceState, model: LoadedModel, label: str) -> Response:
    detail = describe_class(state, model, label)
    pairs = [*detail.hardest_genuine, *detail.hardest_impostor]
    ids = list(dict.fromkeys(end for pair in pairs for end in (pair.a, pair.b)))
    previews = {preview.id: preview for preview in build_previews(model.gallery, ids)}
    items = model.gallery.page_class(label, None, SHOWN_ITEMS + 1)
    shown = [item.id for item in items[:SHOWN_ITEMS]]
    return render_page(
        request,
        "class.html",
        here="classes",
        terms=TERMS,
        detail=detail,
        story=_tell_class(detail),
        facts=_list_facts(detail, model),
        drawing=None if detail.histogram is None else draw_histogram(detail.histogram, detail.threshold),
        genuine=[_show_pair(pair, previews) for pair in detail.hardest_genuine],
        impostor=[_show_pair(pair, previews) for pair in detail.hardest_impostor],
        items=build_previews(model.gallery, shown),
        cursor=shown[-1] if len(items) > SHOWN_ITEMS else None,
        class_url=build_class_url,
        percent=format_percent,
        number=format_number,
    )


def _show_pair(pair: ItemPair, previews: dict[str, Preview]) -> dict[str, Any]:
    return {"pair": pair, "a": previews.get(pair.a), "b": previews.get(pair.b)}


def _tell_worst(page: ClassPage) -> str:
    """The worst class in a sentence."""
    if not page.measured:
        return ""
    worst = page.classes[0]
    far, frr = format_percent(worst.far or 0.0), format_percent(worst.frr or 0.0)
    where = "at the active 1:1 threshold" if page.rates.at == "threshold" else "over the calibration range"
    return (
        f"is served least well: {where}, {far} of its pairs with other classes are accepted and {frr} of the "
        "pairs of its own items are rejected."
    )


def _tell_class(detail: ClassDetail) -> str:
    """What the active threshold does to a class, in plain words."""
    if not detail.items:
        return "The gallery has no item of it now. The hold-out report has measured it."
    if detail.threshold is None:
        return "No operating point decides 1:1, so that no pair is accepted or rejected."
    parts = []
    if detail.genuine_pairs:
        parts.append(
            f"{detail.genuine_rejected:,} of {detail.genuine_pairs:,} pairs of its own items are rejected "
            f"({format_percent((detail.genuine_rejected or 0) / detail.genuine_pairs)})"
        )
    if detail.impostor_pairs:
        parts.append(
            f"{detail.impostor_accepted:,} of {detail.impostor_pairs:,} pairs with items of other classes "
            f"are accepted ({format_percent((detail.impostor_accepted or 0) / detail.impostor_pairs)})"
        )
    return f"In the gallery as it is now, {', and '.join(parts)}." if parts else "It has no pairs yet."


def _list_facts(detail: ClassDetail, model: LoadedModel) -> list[tuple[str, str]]:
    """Names and figures, of the reports and of the evidence that a match weighs."""
    facts = [("items in the gallery", f"{detail.items:,}")]
    if detail.tightness is not None:
        facts.append(("mean similarity of two of its items", format_number(detail.tightness)))
    point = model.active_match
    usual = None if point is None else point.score.parameters.get(USUAL_TIGHTNESS)
    if isinstance(usual, float):
        facts.append(("usual of a class", format_number(usual)))
    for rates, source in zip(detail.rates, detail.rates_from, strict=True):
        where = "hold-out" if source.source == "holdout" else "gallery report"
        for name, value in (("FAR", rates.far), ("FRR", rates.frr)):
            if value is not None:
                facts.append((f"{name}, {where}", format_percent(value)))
        if rates.utility is not None:
            facts.append((f"utility, {where}", format_number(rates.utility)))
    return facts


def _list_points(state: ServiceState, model: LoadedModel, source: ClassSource) -> dict[str, Any]:
    table = build_table(state, model, source)
    page = table.select("worst", "", 0, MOST_POINTS)
    measured = [entry for entry in page.classes if entry.far is not None and entry.frr is not None]
    return {
        "labels": [entry.label[:SHOWN_LABEL] for entry in measured],
        "cut": [number for number, entry in enumerate(measured) if len(entry.label) > SHOWN_LABEL],
        "far": [float(f"{entry.far:.4g}") for entry in measured],
        "frr": [float(f"{entry.frr:.4g}") for entry in measured],
        "items": [entry.measured_items for entry in measured],
        "left_out": page.measured - len(measured),
    }
