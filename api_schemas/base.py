"""The base of every document that Limen reads and writes: JSON, checked, written atomically."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AllowInfNan, BaseModel, ConfigDict, ValidationError

from common.atomic_files import write_atomically
from common.errors import InputError

SCHEMA_VERSION: Literal[1] = 1


def _drop_negative_zero(value: float) -> float:
    return value + 0.0


Finite = Annotated[float, AllowInfNan(False), AfterValidator(_drop_negative_zero)]
"""A finite float; NaN and infinity raise where they arise, minus zero becomes zero."""


def describe_first_problem(error: ValidationError) -> tuple[str, str]:
    """The dotted path and the message of the first problem that a validation found."""
    detail = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return ".".join(str(part) for part in detail["loc"]) or "(top level)", str(detail["msg"])


class Schema(BaseModel):
    """A document or a part of one: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    def to_json(self) -> str:
        """The document as indented UTF-8 JSON that ends with a newline; NaN cannot occur."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def save(self, path: Path, *, private: bool = False) -> None:
        """Write the document; a crash leaves the old file or none. ``private``: for its owner alone."""
        write_atomically(path, self.to_json().encode(), private=private)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and check a document; raises InputError naming the file and the offending key."""
        try:
            text = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}.") from None
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            where, what = describe_first_problem(error)
            raise InputError(f"{path} is not a valid {cls.__name__}: {where}: {what}.") from None
