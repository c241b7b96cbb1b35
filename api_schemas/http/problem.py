"""What an error of the service looks like: RFC 9457 problem details, ``application/problem+json``."""

from __future__ import annotations

from pydantic import Field

from api_schemas.base import Schema

PROBLEM_MEDIA_TYPE = "application/problem+json"


class FieldProblem(Schema):
    """One offending field: its dotted path in the body or query string, and what is wrong with it."""

    path: str
    message: str


class Problem(Schema):
    """``type`` is stable and what programs branch on; ``detail`` is a sentence for people."""

    type: str = Field(examples=["/problems/no-operating-point"])
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    instance: str = Field(description="Path of the request.")
    request_id: str = Field(description="Also in the response header X-Request-Id and in the log.")
    errors: list[FieldProblem] = Field(default_factory=list)
