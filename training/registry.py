"""Registries: entries chosen by name in the configuration, built with parameters that are checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from api_schemas.yaml_config import NamedPart, suggest_key
from common.errors import ConfigError

T = TypeVar("T")
Registry: TypeAlias = Mapping[str, Callable[..., T]]
TRAINER_SETS = (
    *("num_classes", "class_names", "class_sizes", "class_paths", "teacher_directions"),
    "embedding_dim",
)
"""Parameters that no configuration sets."""


def build_from_spec(registry: Registry[T], spec: NamedPart, section: str, **given: Any) -> T:
    """Build the registered entry of that name with the configuration's parameters and the trainer's own.

    Raises:
        ConfigError: see ``select_entry`` and ``build_entry``.
    """
    make = select_entry(registry, spec.name, f"{section}.name")
    return build_entry(make, spec.parameters, f"{section} ({spec.name})", **given)


def select_entry(registry: Registry[T], name: str, where: str) -> Callable[..., T]:
    """The registered entry of that name; raises ConfigError naming the nearest one."""
    if name not in registry:
        raise ConfigError(f"{where}: unknown name '{name}': {suggest_key(name, list(registry))}")
    return registry[name]


def build_entry(make: Callable[..., T], parameters: Mapping[str, Any], where: str, **given: Any) -> T:
    """Call ``make`` with the configuration's parameters and the trainer's own.

    Raises:
        ConfigError: a parameter that ``make`` does not take (names the nearest), one that only the
            trainer may set, one that is missing, or a value of the wrong type or that ``make`` refuses.
    """
    check_parameters(make, parameters, where, list(given))
    own = {key: value for key, value in given.items() if key in inspect.signature(make).parameters}
    try:
        return make(**parameters, **own)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}.") from None


def check_parameters(
    make: Callable[..., object], parameters: Mapping[str, Any], where: str, given: Sequence[str]
) -> None:
    """Raises ConfigError for a parameter that ``make`` does not take, or of another type, or missing.

    Args:
        given: names that only the trainer may set.
    """
    signature = inspect.signature(make)
    free = [name for name in signature.parameters if name not in given]
    for key in parameters:
        if key not in free:
            known = suggest_key(key, free) if free else "it has none."
            raise ConfigError(f"{where}: unknown parameter '{key}': {known}")
    types = get_type_hints(getattr(make, "func", make).__init__)
    for key, value in parameters.items():
        is_number = type(signature.parameters[key].default) in (int, float)  # the library's have no types
        try:
            TypeAdapter(types.get(key, float if is_number else Any)).validate_python(value)
        except ValidationError as error:
            message = error.errors(include_url=False)[0]["msg"]
            raise ConfigError(f"{where}: {key}: {message}, found {value!r}.") from None
    for name in free:
        if signature.parameters[name].default is inspect.Parameter.empty and name not in parameters:
            raise ConfigError(f"{where}: parameter '{name}' must be given.")


def list_settings(make: Callable[..., Any]) -> dict[str, Any]:
    """Name and default of each parameter that a configuration may set."""
    parameters = inspect.signature(make).parameters.values()
    return {part.name: part.default for part in parameters if part.name not in TRAINER_SETS}


def format_entries(entries: Mapping[str, tuple[Callable[..., Any], str]]) -> list[str]:
    """One line per entry of (what is built, paper): name, paper, parameters with their defaults."""
    width = max(len(name) for name in entries)
    lines = []
    for name, (make, paper) in entries.items():
        settings = ", ".join(f"{key}={default}" for key, default in list_settings(make).items())
        lines.append(f"{name:<{width}}  {paper}  [{settings}]")
    return lines
