"""The flags about operating points that several commands have: declared once, given to a command together."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter
from types import MappingProxyType
from typing import Any

from limen.cli import options

PointFlags = Mapping[str, Any]
"""By name what was given, as ``PointOptions.read`` takes it."""
NO_FLAGS: PointFlags = MappingProxyType({})

_FLAGS = {
    "aggregate": (options.AggregateOption, None),
    "cost": (options.Cost, None),
    "unknown_share": (options.UnknownShare, None),
    "proven_only": (options.ProvenOnly, False),
    "cohort": (options.Cohort, None),
    "unknown": (options.Unknown, None),
    "unknown_label": (options.UnknownLabel, None),
    "fold_labels": (options.FoldLabels, False),
    "group": (options.Group, None),
    "exclude_same": (options.ExcludeSame, None),
    "vectors": (options.Vectors, None),
}


def takes_point_flags(command: Callable[..., None]) -> Callable[..., None]:
    """The command with these flags in place of its parameter ``flags``, by which it receives them.

    A flag that the command declares itself, with another meaning, is its own and not among them.
    """
    signature = inspect.signature(command, eval_str=True)
    shared = {name: flag for name, flag in _FLAGS.items() if name not in signature.parameters}
    parameters: list[Parameter] = []
    for name, parameter in signature.parameters.items():
        if name != "flags":
            parameters.append(parameter)
            continue
        parameters += [
            Parameter(flag, parameter.kind, annotation=annotation, default=default)
            for flag, (annotation, default) in shared.items()
        ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        flags = {name: given.pop(name) for name in shared}
        command(**given, flags=flags)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
