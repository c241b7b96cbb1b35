"""Registries as lines that people read: name first, then paper, parameters and defaults."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

GIVEN = ("num_classes", "embedding_dim")  # the trainer knows them; nobody sets them


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
