"""What every document that Limen writes has in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AllowInfNan, BaseModel, ConfigDict, ValidationError

from common.atomic_files import write_atomically
from common.errors import InputError

SCHEMA_VERSION: Literal[1] = 1


def _no_negative_zero(value: float) -> float:
    return value + 0.0


Finite = Annotated[float, AllowInfNan(False), AfterValidator(_no_negative_zero)]
"""A float that JSON can carry: NaN and infinity are refused where they arise."""


def first_problem(error: ValidationError) -> tuple[str, str]:
    """The dotted path and the message of the first thing a validation found wrong."""
    detail = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return ".".join(str(part) for part in detail["loc"]) or "(top level)", str(detail["msg"])


class Schema(BaseModel):
    """A document part: unknown keys are errors, values do not change after they were checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    def to_json(self) -> str:
        """The document as indented UTF-8 JSON that ends with a newline; NaN cannot occur."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def save(self, path: Path) -> None:
        """Write the document; a crash leaves the old file or none."""
        write_atomically(path, self.to_json().encode())

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
            where, what = first_problem(error)
            raise InputError(f"{path} is not a valid {cls.__name__}: {where}: {what}.") from None
