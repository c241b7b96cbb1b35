"""``/v1/match``: 1:N, "who is this, or is it unknown?"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

from fastapi import APIRouter, Request, Response

from api_schemas.http.decisions import MatchOptions, MatchQuery, MatchRequest, MatchResponse, Reference
from decision.decider import MatchDecision
from index.search.match_rules import MATCH_RULES
from service.auth.api_keys import check_key
from service.errors.problems import INVALID_REQUEST, LIMIT_EXCEEDED, build_field_problem
from service.feedback.obey_corrections import identify_queries, obey_corrections
from service.http.fast_routes import FastRoute
from service.http.openapi import BODY_STATUSES, describe_body, describe_problems
from service.http.query_answers import answer_queries, check_answer, write_decision, write_results
from service.http.query_requests import read_queries
from service.http.resolve_references import ResolvedQueries
from service.models.loaded_model import LoadedModel
from service.state import ServiceState, get_deciding_model, get_state
from service.telemetry import prometheus

router = APIRouter(tags=["decide"], route_class=FastRoute)
_EXAMPLES = {
    "by id": {"queries": [{"id": "0"}]},
    "by vector": {"queries": [{"vector": [0.6, 0.8]}], "k": 50},
    "two frames of a track": {"queries": [{"vectors": [[0.6, 0.8], [0.8, 0.6]]}], "candidates": 2},
}


@router.post(
    "/v1/match",
    summary="Identify, or answer unknown",
    response_model=MatchResponse,
    responses=describe_problems(*BODY_STATUSES, 409),
    openapi_extra=describe_body(MatchRequest, _EXAMPLES, raw_rows=True),
)
async def match(request: Request) -> Response:
    """One decision per query by the active `fpir` operating point: `match` if and only if score >= threshold.

    The best candidate is given even when the decision is `unknown`. `margin` is its score minus the best
    score of another label. `beyond_proof` is true once the gallery has over 1.1 times the items that the
    point is proven for. Takes raw float32 rows like `/v1/search`.

    `probability` is that of this answer being right: of the label where it is a match, of the query being of
    no class in the gallery where it is `unknown`. It depends on the share of unknown queries
    (`unknown_share`) and on how many classes the gallery has now.

    A point calibrated for `mean_of_class` scores a class by the mean over all its items (that pass the
    filter), one for `evidence` by what the gallery knows of the whole class; candidates are the classes of
    the `k` nearest items. `candidates: 5` names the five best.

    A query of several `vectors` of one object gets one decision: by the means of what the point weighs if it
    was made for several vectors, else by the mean of their scores.

    `explain` adds what the score of the answer's class is made of.

    `joint` chooses the classes of the queries of this request together, by their likeness to each other too
    (at most five best classes of each). The threshold holds for the score of the class chosen as ever; the
    point's proof does not.
    """
    started = perf_counter()
    check_key(request, "read")
    state, model = get_state(request), get_deciding_model(request)
    point = model.get_deciding_point("match")
    queries = await read_queries(request, MatchOptions, model, state, started)
    check_answer(queries.count, queries.options.candidates, 0, model, state.settings)

    options = queries.options
    if options.explain and queries.count > state.settings.max_explained:
        raise build_field_problem(
            LIMIT_EXCEEDED,
            "queries",
            f"{queries.count} given, at most {state.settings.max_explained} are explained in one request "
            "(LIMEN_MAX_EXPLAINED)",
        )
    if options.joint:
        _check_joint(queries.queries or ())
    keeps = state.unknowns.is_on and options.keep and not model.has_query_tower

    def match_queries(resolved: ResolvedQueries, condition: Mapping[str, Any] | None) -> list[MatchDecision]:
        return _match(model, resolved, options, condition, state)

    def match_together(resolved: ResolvedQueries) -> list[MatchDecision]:
        return _match(model, resolved, options, options.filter, state, joint=options.joint)

    def search(resolved: ResolvedQueries) -> list[dict[str, Any]]:
        decisions = match_together(resolved)
        fingerprints = identify_queries(model, resolved)
        decisions = obey_corrections(model, resolved, fingerprints, options, decisions, match_queries)
        prometheus.observe_scores(
            state.settings.gallery,
            [decision.score for decision in decisions],
            [decision.margin for decision in decisions],
        )
        state.monitor.recorder.observe_match(
            model.points.get(decisions[0].operating_point, point),
            decisions,
            resolved.vectors if _is_comparable(resolved, options) else None,
        )
        written = [
            write_decision(
                decision,
                endpoint="match",
                state=state,
                model=model,
                point=model.points.get(decision.operating_point, point),
                a=item_id,
                b=decision.id,
                fingerprint=fingerprint,
            )
            for decision, item_id, fingerprint in zip(decisions, resolved.ids, fingerprints, strict=True)
        ]
        if keeps:
            tokens = [result["decision_id"] for result in written]
            state.unknowns.offer(
                model,
                resolved.vectors,
                resolved.sizes,
                resolved.ids,
                queries.queries,
                decisions,
                tokens,
            )
        return written

    return await answer_queries(
        state,
        queries,
        search,
        lambda results, took_ms: write_results(results, model, took_ms, state.settings),
        light=options.filter is None
        and not options.explain
        and not options.joint
        and not MATCH_RULES[point.target.aggregate].reads_whole_classes,
    )


def _match(
    model: LoadedModel,
    queries: ResolvedQueries,
    options: MatchOptions,
    condition: Mapping[str, Any] | None,
    state: ServiceState,
    joint: bool = False,
) -> list[MatchDecision]:
    return model.gallery.match(
        queries.vectors,
        k=options.k,
        filter=condition,
        aggregate=options.aggregate,
        exclude_ids=queries.excluded,
        candidates=options.candidates,
        sizes=queries.sizes,
        unknown_share=state.settings.unknown_share
        if options.unknown_share is None
        else options.unknown_share,
        group=options.group,
        explain=options.explain,
        joint=joint,
    )


def _check_joint(queries: Sequence[Reference]) -> None:
    """Raises a problem that names a query by an item, which would vote for its own class, or of several
    vectors."""
    for number, query in enumerate(queries):
        if query.id is not None or (isinstance(query, MatchQuery) and query.vectors is not None):
            raise build_field_problem(
                INVALID_REQUEST,
                f"queries.{number}",
                "with joint a query is one vector or input, no item of the gallery and no several vectors",
            )


def _is_comparable(queries: ResolvedQueries, options: MatchOptions) -> bool:
    """Whether the queries meet the gallery as the point's calibration did: all of it, one vector each."""
    restricted = options.filter is not None or options.group is not None or options.joint
    return queries.excluded is None and queries.sizes is None and not restricted
