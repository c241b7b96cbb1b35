"""The HTTP errors of the service: their kinds, the exception that carries one, and its RFC 9457 document.

``type`` is ``/problems/<slug>``, a path that the service itself answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from api_schemas.http.problem import PROBLEM_MEDIA_TYPE, FieldProblem
from common.errors import BundleError, LimenError
from decision.errors import NoOperatingPoint, OtherGroup, OtherRule
from index.engines.engine import EngineUnavailable
from index.gallery.gallery_items import Closed
from index.store.document_store import StoreFailed, StoreUnavailable
from index.store.idempotency import AlreadyDone
from index.store.write_order import Withdrawn
from service.errors.validation_messages import build_field_problems


@dataclass(frozen=True)
class ProblemKind:
    """A kind of error: ``slug`` is the end of the problem's ``type``, which programs branch on."""

    slug: str
    status: int
    title: str


INVALID_REQUEST = ProblemKind("invalid-request", 422, "The request has a field that cannot be used")
INVALID_INPUT = ProblemKind("invalid-input", 422, "An input cannot be used")
WRONG_DIMENSION = ProblemKind("wrong-dimension", 422, "A vector has the wrong dimension")
LIMIT_EXCEEDED = ProblemKind("limit-exceeded", 422, "The request asks for more than the limits allow")
UNKNOWN_MODEL = ProblemKind("unknown-model", 404, "No loaded model has that name")
NO_ENCODER = ProblemKind("no-encoder", 422, "This bundle has no encoder")
UNKNOWN_ITEM = ProblemKind("unknown-item", 422, "A query refers to an item that is not stored")
NOT_JSON = ProblemKind("not-json", 400, "The body is not JSON")
BAD_REQUEST = ProblemKind("bad-request", 400, "The request cannot be read")
UNAUTHENTICATED = ProblemKind("unauthenticated", 401, "A key is needed")
FORBIDDEN = ProblemKind("forbidden", 403, "The key does not allow this")
FOREIGN_ORIGIN = ProblemKind("foreign-origin", 403, "The request comes from another site")
CSRF = ProblemKind("csrf", 403, "The request lacks the token of its page")
NOT_FOUND = ProblemKind("not-found", 404, "Not found")
METHOD_NOT_ALLOWED = ProblemKind("method-not-allowed", 405, "This path does not allow that method")
BODY_TIMEOUT = ProblemKind("body-timeout", 408, "The body did not arrive in time")
NO_OPERATING_POINT = ProblemKind("no-operating-point", 409, "No operating point is active for this")
READ_ONLY = ProblemKind("read-only", 409, "The service is read-only")
MODEL_MISMATCH = ProblemKind("model-mismatch", 409, "The request is about another model")
CONFLICT = ProblemKind("conflict", 409, "Not possible in the current state")
KEY_REUSED = ProblemKind("key-reused", 422, "The Idempotency-Key came with another request before")
BODY_TOO_LARGE = ProblemKind("body-too-large", 413, "The body is too large")
UNSUPPORTED_MEDIA_TYPE = ProblemKind(
    "unsupported-media-type", 415, "The body has a media type that is not supported"
)
HEADERS_TOO_LARGE = ProblemKind("headers-too-large", 431, "The headers are too large")
OVERLOADED = ProblemKind("overloaded", 429, "The service is at its limit")
RATE_LIMITED = ProblemKind("rate-limited", 429, "The key is at its limit")
INTERNAL = ProblemKind("internal-error", 500, "Internal error")
NOT_READY = ProblemKind("not-ready", 503, "The service is not ready")
WRITE_FAILED = ProblemKind("write-failed", 503, "The write could not be stored")
STORE_UNAVAILABLE = ProblemKind("store-unavailable", 503, "The item store cannot be reached")
ENGINE_UNAVAILABLE = ProblemKind("engine-unavailable", 503, "The search engine cannot be reached")
STALE = ProblemKind("stale", 503, "The process does not know what others have written")
DEADLINE = ProblemKind("deadline-exceeded", 503, "The answer took too long")

KINDS = {kind.slug: kind for kind in list(globals().values()) if isinstance(kind, ProblemKind)}
_BY_STATUS = {
    404: NOT_FOUND,
    405: METHOD_NOT_ALLOWED,
    413: BODY_TOO_LARGE,
    401: UNAUTHENTICATED,
    403: FORBIDDEN,
}


class KeysUnreadable(LimenError):
    """No key is accepted, because the file of the keys cannot be read."""


class ServiceProblem(Exception):
    """Raised anywhere in a request; becomes the problem document of its kind."""

    def __init__(
        self,
        kind: ProblemKind,
        detail: str,
        *,
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.errors, self.headers = kind, detail, list(errors), dict(headers or {})

    @classmethod
    def from_validation_error(
        cls, error: ValidationError, field: str | None = None, first: int = 0
    ) -> ServiceProblem:
        """The problem of a body that is not valid; names up to ten fields.

        Args:
            field, first: what was validated are elements of this list, from this one on.
        """
        errors = error.errors(include_url=False, include_input=False)
        if errors[0]["type"] == "json_invalid":
            where = "" if field is None else f" in {field}, from {first} on"
            return cls(NOT_JSON, f"The body is not JSON{where}: {errors[0]['msg']}.")
        if field is not None:
            for detail in errors:
                number, *inner = detail["loc"]
                detail["loc"] = (field, first + int(number), *inner)
        return cls.from_fields(build_field_problems(errors))

    @classmethod
    def from_fields(cls, fields: Sequence[FieldProblem]) -> ServiceProblem:
        """The problem of fields that cannot be used: the first is in the sentence, all are in ``errors``."""
        more = f" ({len(fields)} fields in all)" if len(fields) > 1 else ""
        return cls(INVALID_REQUEST, f"{fields[0].path}: {fields[0].message}{more}.", errors=fields)


def build_field_problem(kind: ProblemKind, path: str, message: str) -> ServiceProblem:
    """The problem of one field."""
    return ServiceProblem(kind, f"{path}: {message}.", errors=[FieldProblem(path=path, message=message)])


def build_overloaded(why: str) -> ServiceProblem:
    """The problem of a request that a load limit refuses."""
    return ServiceProblem(
        OVERLOADED,
        f"The service is at its limit ({why}): try again in a second.",
        headers={"Retry-After": "1"},
    )


def build_deadline(seconds: float) -> ServiceProblem:
    """The problem of a request that took too long."""
    return ServiceProblem(
        DEADLINE,
        f"The answer took over {seconds:g} s (LIMEN_DEADLINE): ask for less at once.",
        headers={"Retry-After": "5"},
    )


def build_withdrawn(seconds: float) -> ServiceProblem:
    """The problem of a write that could not begin its commit in time, and will not."""
    return ServiceProblem(
        DEADLINE,
        f"The write could not be stored within {seconds:g} s (LIMEN_DEADLINE) and was withdrawn: nothing was "
        "changed. Send it again.",
        headers={"Retry-After": "5"},
    )


def write_problem(
    kind: ProblemKind, detail: str, path: str, request_id: str, errors: Sequence[FieldProblem] = ()
) -> bytes:
    """The problem document as JSON; text that is not valid Unicode is replaced."""
    # the fields of `Problem` without building the model, which takes longer than the rest of a refusal
    sentence = _replace_invalid(detail)
    document = {
        "type": f"/problems/{kind.slug}",
        "title": kind.title,
        "status": kind.status,
        "detail": sentence,
        "instance": _replace_invalid(path),
        "request_id": request_id,
        "errors": [
            {"path": _replace_invalid(field.path), "message": _replace_invalid(field.message)}
            for field in errors
        ],
        "error": {
            "message": sentence,
            "type": kind.slug,
            "param": _replace_invalid(errors[0].path) if errors else None,
            "code": kind.slug,
        },
    }
    return orjson.dumps(document)


def build_problem_response(request: Request, problem: ServiceProblem) -> Response:
    """The response that reports a problem of this request."""
    request.state.problem = problem.kind.slug
    return Response(
        write_problem(
            problem.kind,
            problem.detail,
            request.url.path,
            getattr(request.state, "request_id", "-"),
            problem.errors,
        ),
        status_code=problem.kind.status,
        media_type=PROBLEM_MEDIA_TYPE,
        headers=problem.headers,
    )


def to_service_problem(error: LimenError) -> ServiceProblem:
    """The problem of a LimenError; its sentence is kept."""
    if isinstance(error, StoreFailed):
        return ServiceProblem(WRITE_FAILED, str(error), headers={"Retry-After": "30"})
    if isinstance(error, StoreUnavailable):
        return ServiceProblem(STORE_UNAVAILABLE, str(error), headers={"Retry-After": "5"})
    if isinstance(error, EngineUnavailable):
        return ServiceProblem(ENGINE_UNAVAILABLE, str(error), headers={"Retry-After": "5"})
    if isinstance(error, AlreadyDone):
        return ServiceProblem(CONFLICT, str(error), headers={"Retry-After": "1"})
    if isinstance(error, Withdrawn):
        return ServiceProblem(DEADLINE, str(error), headers={"Retry-After": "5"})
    if isinstance(error, (Closed, KeysUnreadable)):
        return ServiceProblem(NOT_READY, str(error), headers={"Retry-After": "1"})
    if isinstance(error, (NoOperatingPoint, OtherGroup, OtherRule)):
        return ServiceProblem(NO_OPERATING_POINT, str(error))
    return ServiceProblem(CONFLICT if isinstance(error, BundleError) else INVALID_INPUT, str(error))


def install_error_handlers(app: FastAPI) -> None:
    """Answer every error of the app with a problem document."""

    async def service_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, ServiceProblem)
        return build_problem_response(request, error)

    async def limen_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, LimenError)
        return build_problem_response(request, to_service_problem(error))

    async def http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = _BY_STATUS.get(error.status_code, BAD_REQUEST)
        detail = {
            404: f"{request.url.path} does not exist; the endpoints are listed at /docs.",
            405: f"{request.url.path} does not allow {request.method}.",
        }.get(error.status_code, str(error.detail or HTTPStatus(error.status_code).phrase))
        return build_problem_response(request, ServiceProblem(kind, detail, headers=error.headers))

    async def query_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return build_problem_response(
            request, ServiceProblem.from_fields(build_field_problems(error.errors()))
        )

    async def internal_error(request: Request, error: Exception) -> Response:
        detail = "The request failed; the log has it under this request_id."
        return build_problem_response(request, ServiceProblem(INTERNAL, detail))

    app.add_exception_handler(Exception, internal_error)
    app.add_exception_handler(ServiceProblem, service_problem)
    app.add_exception_handler(LimenError, limen_error)
    app.add_exception_handler(HTTPException, http_exception)
    app.add_exception_handler(RequestValidationError, query_validation)


def _replace_invalid(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
