"""What is wrong with a body, in words that say what to send instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from api_schemas.http.problem import FieldProblem

SHOWN = 10
_NUMBER, _WHOLE, _TRUTH, _OBJECT = (
    "send a number",
    "send a whole number",
    "send true or false",
    "send an object",
)
# by pydantic's types of error; {names} come from the error's context
_SENTENCES = {
    "missing": "this is needed",
    "missing_argument": "this is needed",
    "extra_forbidden": "nothing of this name is taken here; correct the name or leave it out",
    "string_type": "send text",
    "string_unicode": "send text in UTF-8",
    "string_too_short": "send at least {min_length} character(s)",
    "string_too_long": "send at most {max_length} characters",
    "string_pattern_mismatch": "send text of the form {pattern}",
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": "send a smaller whole number",
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "send a finite number; NaN and infinity cannot be used",
    "bool_type": _TRUTH,
    "bool_parsing": _TRUTH,
    "list_type": "send a list",
    "tuple_type": "send a list",
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
    "recursion_loop": "send less deeply nested values",
}


def build_field_problems(errors: Iterable[Mapping[str, Any]]) -> list[FieldProblem]:
    """The first ten fields that pydantic found wrong; what a field might be instead is joined by "or"."""
    found: dict[str, list[str]] = {}
    for one in errors:
        sentences = found.setdefault(_path(one["loc"]), [])
        sentence = _sentence(one)
        if sentence not in sentences:
            sentences.append(sentence)
    return [
        FieldProblem(path=path, message=", or ".join(sentences))
        for path, sentences in list(found.items())[:SHOWN]
    ]


def _sentence(error: Mapping[str, Any]) -> str:
    template = _SENTENCES.get(error["type"])
    if template is None:
        # our own validators speak for themselves
        return str(error["msg"]).removeprefix("Value error, ")
    return template.format_map(error.get("ctx", {}))


def _path(places: Iterable[str | int]) -> str:
    """A dotted path without pydantic's names for the members of a union."""
    return ".".join(str(one) for one in places if not _names_a_type(one)) or "(body)"


def _names_a_type(place: str | int) -> bool:
    return isinstance(place, str) and (place in {"str", "float", "int", "bool"} or place.startswith("list["))
