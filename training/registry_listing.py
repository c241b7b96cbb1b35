"""Registries: what the configuration gives for an entry, and the entries as lines that people read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

GIVEN = ("num_classes", "embedding_dim")  # the trainer knows them; nobody sets them


class Spec(Protocol):
    """A name and its parameters, as the configuration holds them."""

    @property
    def name(self) -> str:
        """The registered name."""
        ...

    @property
    def parameters(self) -> dict[str, Any]:
        """What was given besides the name."""
        ...


def catalogue_lines(entries: Mapping[str, tuple[Callable[..., Any], str]]) -> list[str]:
    """One line per entry of (what is built, paper)."""
    width = max(len(name) for name in entries)
    lines = []
    for name, (make, paper) in entries.items():
        settings = [
            f"{parameter.name}={parameter.default}"
            for parameter in inspect.signature(make).parameters.values()
            if parameter.name not in GIVEN
        ]
        lines.append(f"{name:<{width}}  {paper}  [{', '.join(settings)}]")
    return lines
