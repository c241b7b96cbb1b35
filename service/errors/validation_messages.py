"""Sentences for validation errors: what to send instead of what pydantic found wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from api_schemas.http.problem import FieldProblem

SHOWN = 10
_NUMBER, _INTEGER, _BOOLEAN = "send a number", "send a whole number", "send true or false"
_LIST, _OBJECT = "send a list", "send an object"
_TIME = "send a time such as 2026-11-30T14:00:00Z, or a day such as 2026-11-30"
# by pydantic's error type; {names} come from the error's context
_SENTENCES = {
    "missing": "this field is required",
    "missing_argument": "this field is required",
    "extra_forbidden": "unknown field; correct its name or leave it out",
    "string_type": "send text",
    "string_unicode": "send text that is valid UTF-8",
    "string_too_short": "send at least {min_length} character(s)",
    "string_too_long": "send at most {max_length} characters",
    "string_pattern_mismatch": "send text of the form {pattern}",
    "int_type": _INTEGER,
    "int_parsing": _INTEGER,
    "int_parsing_size": "send a smaller whole number",
    "int_from_float": _INTEGER,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "send a finite number; NaN and infinity cannot be used",
    "bool_type": _BOOLEAN,
    "bool_parsing": _BOOLEAN,
    "list_type": _LIST,
    "tuple_type": _LIST,
    "dict_type": _OBJECT,
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "none_required": "send null",
    "too_short": "send at least {min_length}",
    "too_long": "send at most {max_length}",
    "greater_than": "send more than {gt}",
    "greater_than_equal": "send {ge} or more",
    "less_than": "send less than {lt}",
    "less_than_equal": "send {le} or less",
    "literal_error": "send {expected}",
    "datetime_parsing": _TIME,
    "datetime_from_date_parsing": _TIME,
    "datetime_object_invalid": _TIME,
    "recursion_loop": "send less deeply nested values",
}


def build_field_problems(errors: Iterable[Mapping[str, Any]]) -> list[FieldProblem]:
    """The first ten fields that pydantic refused; alternatives for a field are joined by "or"."""
    sentences_of: dict[str, list[str]] = {}
    for error in errors:
        sentences = sentences_of.setdefault(_join_path(error["loc"]), [])
        sentence = _write_sentence(error)
        if sentence not in sentences:
            sentences.append(sentence)
    return [
        FieldProblem(path=path, message=", or ".join(sentences))
        for path, sentences in list(sentences_of.items())[:SHOWN]
    ]


def _write_sentence(error: Mapping[str, Any]) -> str:
    template = _SENTENCES.get(error["type"])
    if template is None:
        # the message of one of our own validators
        return str(error["msg"]).removeprefix("Value error, ")
    return template.format_map(error.get("ctx", {}))


def _join_path(parts: Iterable[str | int]) -> str:
    """A dotted path without pydantic's names for the members of a union."""
    return ".".join(str(part) for part in parts if not _is_type_name(part)) or "(body)"


def _is_type_name(part: str | int) -> bool:
    return isinstance(part, str) and (
        part in {"str", "float", "int", "bool"} or part.startswith(("list[", "literal[", "function-after["))
    )
