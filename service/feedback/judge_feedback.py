"""From a request of feedback to the entry that is stored: what was decided, and what a person says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from api_schemas.http.decisions import Reference
from api_schemas.http.gallery import Feedback, FeedbackRequest
from common.array_types import UnitVectors
from embeddings.fingerprints import compute_fingerprints
from embeddings.similarity import compute_pair_similarities
from service.auth.decision_tokens import SignedDecision
from service.errors.problems import (
    INVALID_REQUEST,
    MODEL_MISMATCH,
    NOT_FOUND,
    UNKNOWN_ITEM,
    ServiceProblem,
    build_field_problem,
)
from service.http.resolve_references import ResolvedQueries, prepare_references
from service.models.loaded_model import LoadedModel
from service.state import ServiceState


class Verdict(NamedTuple):
    """The entry, and what it is about, of which there is one verdict."""

    entry: Feedback
    subject: str


async def prepare_judgement(
    state: ServiceState, model: LoadedModel, body: FeedbackRequest
) -> Callable[[], Verdict]:
    """Encode inputs, if there are any; the result makes the verdict in a compute thread.

    Raises:
        ServiceProblem: a decision of another model, a query or class that is not there, or an input that
            cannot be used; so does what is returned.
    """
    same, label = body.same is True, body.not_label
    if body.decision_id is not None:
        decision = state.signer.read(body.decision_id)
        return lambda: _judge_decision(model, decision, same, label)
    if body.unknown is not None:
        await state.unknowns.flush()
        unknown = body.unknown
        return lambda: _judge_kept(model, unknown, same, label)
    if body.a is not None and body.b is not None:
        resolve = await prepare_references(
            state.encoding, model, [body.a, body.b], "ab".__getitem__, asks=lambda row: row == 0
        )
        return lambda: _judge_pair(model, resolve(), same)
    assert label is not None
    query = Reference.model_construct(vector=body.vector, input=body.input, id=body.id)
    resolve = await prepare_references(
        state.encoding, model, [query], lambda row: "(body)", lambda row: "vector"
    )
    return lambda: _correct_query(model, resolve(), label)


def _judge_decision(model: LoadedModel, decision: SignedDecision, same: bool, label: str | None) -> Verdict:
    """The verdict on a decision, or on its query and a class."""
    if decision.model_hash != model.model_hash:
        raise ServiceProblem(
            MODEL_MISMATCH,
            f"Model {decision.model_hash[:12]} made that decision; now {model.model_hash[:12]} decides.",
        )
    if decision.score is None:
        raise build_field_problem(
            INVALID_REQUEST, "decision_id", "that decision was compared with no item, so there is no pair"
        )
    entry = Feedback(
        at=datetime.now(UTC),
        model_hash=decision.model_hash,
        operating_point=decision.operating_point,
        decision=decision.decision,
        score=decision.score,
        a=decision.a,
        b=decision.b,
        same=same,
        source="match" if decision.endpoint == "match" else "verify",
    )
    if label is None:
        return Verdict(entry, decision.subject)
    _check_label(model, label)
    fingerprint = decision.fingerprint
    if decision.a is not None and fingerprint is None:
        vector = model.gallery.view.get_vector(decision.a)
        if vector is None:
            raise build_field_problem(UNKNOWN_ITEM, "decision_id", "the item that it was about is gone")
        fingerprint = compute_fingerprints(vector[None])[0]
    if fingerprint is None or decision.endpoint != "match":
        raise build_field_problem(
            INVALID_REQUEST, "decision_id", "that decision does not say what its query was: send id or vector"
        )
    candidate = None if decision.b is None else model.gallery.get(decision.b)
    about_label = candidate is not None and candidate.label == label
    return Verdict(_correct(entry, fingerprint, label, about_label=about_label), decision.subject)


def _judge_kept(model: LoadedModel, query_id: str, same: bool, label: str | None) -> Verdict:
    """The verdict on the decision that a kept query got, or on the query and a class."""
    query = model.get_live_gallery().unknowns.get(query_id)
    if query is None:
        raise ServiceProblem(NOT_FOUND, f"No kept query has the id '{query_id}'.")
    if query.candidate is None and label is None:
        raise build_field_problem(INVALID_REQUEST, "unknown", "the item that it was compared with is gone")
    entry = Feedback(
        at=datetime.now(UTC),
        model_hash=model.model_hash,
        operating_point=query.operating_point,
        decision=query.decision,
        score=query.score,
        a=None,
        b=query.candidate,
        same=same,
        source="match",
    )
    subject = query.subject or _hash("kept", query.id)
    if label is None:
        return Verdict(entry, subject)
    _check_label(model, label)
    fingerprint = compute_fingerprints(query.vector[None])[0]
    return Verdict(_correct(entry, fingerprint, label, about_label=query.label == label), subject)


def _judge_pair(model: LoadedModel, pair: ResolvedQueries, same: bool) -> Verdict:
    """The verdict on a pair, with the decision of the active operating point."""
    entry = _decide_pair(model, pair.vectors[:1], pair.vectors[1:]).model_copy(
        update={"a": pair.ids[0], "b": pair.ids[1], "same": same}
    )
    return Verdict(entry, _identify_pair(pair))


def _correct_query(model: LoadedModel, queries: ResolvedQueries, label: str) -> Verdict:
    """The correction of a query; what was decided is about the item of the class that is nearest to it."""
    nearest = model.gallery.search(queries.vectors, 1, filter={"label": label}, exclude_ids=queries.excluded)[
        0
    ]
    if not nearest:
        _check_label(model, label)
    fingerprint = compute_fingerprints(queries.vectors)[0]
    name = queries.ids[0] or fingerprint
    other = model.gallery.view.get_vector(nearest[0].id) if nearest else None
    entry = _decide_pair(model, queries.vectors, queries.vectors if other is None else other[None])
    entry = entry.model_copy(update={"a": queries.ids[0]})
    corrected = _correct(entry, fingerprint, label, about_label=other is not None)
    return Verdict(corrected, _hash("correction", name, label))


def _correct(entry: Feedback, fingerprint: str, label: str, *, about_label: bool) -> Feedback:
    """An entry as a correction; its score counts as a false match where it is about the class itself."""
    changes = {
        "same": False,
        "not_label": label,
        "fingerprint": fingerprint,
        "b": None,
        "source": "correction",
    }
    return entry.model_copy(update=changes if about_label else changes | {"score": None, "decision": None})


def _decide_pair(model: LoadedModel, a: UnitVectors, b: UnitVectors) -> Feedback:
    """What the active 1:1 point says of two unit rows, [1, d] each."""
    point = model.active_verify
    if point is None:
        score, decision = float(compute_pair_similarities(a, b)[0]), None
    else:
        verified = model.gallery.verify(a, b)[0]
        score, decision = verified.score, verified.decision
    return Feedback(
        at=datetime.now(UTC),
        model_hash=model.model_hash,
        operating_point=None if point is None else point.id,
        decision=decision,
        score=score,
        a=None,
        b=None,
        same=False,
        source="pair",
    )


def _check_label(model: LoadedModel, label: str) -> None:
    """Raises a problem for a class that the gallery does not have."""
    counting = model.gallery.view.select_counting({"label": label})
    if not any(rows is not None and rows.any() for _, rows in counting):
        raise build_field_problem(UNKNOWN_ITEM, "not_label", f"no item has the label '{label[:100]}'")


def _identify_pair(pair: ResolvedQueries) -> str:
    """A hash of the two, in either order: of their ids, or of the vectors of those that are no items."""
    ends = [
        b"vector " + pair.vectors[row].tobytes() if item_id is None else b"item " + item_id.encode()
        for row, item_id in enumerate(pair.ids)
    ]
    return hashlib.sha256(b"".join(sorted(hashlib.sha256(end).digest() for end in ends))).hexdigest()


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
