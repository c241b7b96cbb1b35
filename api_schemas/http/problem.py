"""The body of every HTTP error: problem details of RFC 9457, ``application/problem+json``."""

from __future__ import annotations

from pydantic import Field

from api_schemas.base import Schema

PROBLEM_MEDIA_TYPE = "application/problem+json"


class FieldProblem(Schema):
    """A field that cannot be used: its dotted path in the body or query string, and what to send instead."""

    path: str
    message: str


class ErrorObject(Schema):
    """The error as OpenAI's API gives it, so that its clients show the sentence."""

    message: str = Field(description="The same as `detail`.")
    type: str = Field(description="The end of the problem's `type`.")
    param: str | None = Field(description="The path of the first field in `errors`.")
    code: str


class Problem(Schema):
    """An error. Programs branch on ``type``, which never changes; ``detail`` is a sentence for people."""

    type: str = Field(examples=["/problems/no-operating-point"])
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    instance: str = Field(description="Path of the failed request.")
    request_id: str = Field(description="Also in the response header X-Request-Id and in the log.")
    errors: list[FieldProblem] = Field(default_factory=list)
    error: ErrorObject | None = None
