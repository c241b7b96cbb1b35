"""Configuration files: YAML and ``key.path=value`` overrides, checked against a pydantic model."""

from __future__ import annotations

import difflib
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from api_schemas.base import Finite, Schema
from common.errors import ConfigError, InputError

_VARIABLE = re.compile(r"\$\$(?=\{)|\$\{(\w+)(?::-([^}]*))?\}")


M = TypeVar("M", bound=BaseModel)
Parameter = bool | int | Finite | str | None | list[Any] | dict[str, Any]


class Part(Schema):
    """A section of the configuration: unknown keys and values of the wrong type are errors."""

    model_config = ConfigDict(strict=True, validate_default=True)


class OpenPart(Part):
    """A section whose other keys are free parameters, which are checked against what they are for."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Parameter] = Field(init=False)

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The free parameters, as given."""
        return dict(self.__pydantic_extra__)


class NamedPart(OpenPart):
    """An entry of a registry by name; every other key is one of its own parameters."""

    name: str = Field(min_length=1)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but 1e-3 is a number (YAML 1.1 needs a dot) and a repeated key an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for position, (key, _) in enumerate(node.value):
            if key.value in keys[:position] and key.value != "<<":
                raise yaml.constructor.ConstructorError(
                    problem=f"the key '{key.value}' is given twice", problem_mark=key.start_mark
                )
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which quotes the texts that ``_Loader`` would take for numbers."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+0123456789."),
    )


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Between double quotes where a character needs an escape."""
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def parse_yaml(text: str) -> Any:
    """YAML text as plain Python values; raises yaml.YAMLError."""
    return yaml.load(text, Loader=_Loader)  # a SafeLoader subclass


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping a YAML file holds; raises InputError naming the file and, where known, the line."""
    if path.is_dir():
        raise InputError(
            f"{path} is a folder, expected a YAML file; to train on what is in it, write its path under data."
        )
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a YAML file: it is not UTF-8 text.") from None
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise InputError(f"{path} is not valid YAML{where}: {getattr(error, 'problem', error)}.") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} must hold keys and values, found {type(value).__name__}.")
    return value


def format_yaml(value: Mapping[str, Any]) -> str:
    """A mapping as YAML text, keys in the order given, that ``validate_mapping`` reads equal."""
    text: str = yaml.dump(_keep_dollars(dict(value)), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def _keep_dollars(value: Any) -> Any:
    """``${`` as ``$${``, which is no variable."""
    if isinstance(value, dict):
        return {key: _keep_dollars(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_keep_dollars(part) for part in value]
    return value.replace("${", "$${") if isinstance(value, str) else value


def validate_mapping(model: type[M], value: Mapping[str, Any], overrides: Sequence[str], source: str) -> M:
    """Apply overrides, replace ``${NAME:-default}``, check every key and value; raises ConfigError.

    ``$${`` stands for ``${`` itself.
    """
    merged = dict(value)
    for override in overrides:
        _apply_override(merged, override)
    merged = _expand_variables(merged, source)
    _check_keys(model, merged, "", source)
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        # of the forms that a value may have, the one that goes deepest is the one that was meant
        detail = max(error.errors(include_url=False), key=lambda detail: len(detail["loc"]))
        where, what = _format_location(detail["loc"], merged), detail["msg"].removeprefix("Value error, ")
        actual = "" if detail["type"] in ("value_error", "missing") else f", found {detail['input']!r}"
        raise ConfigError(f"{source}: {where}: {what}{actual}.") from None


def _format_location(location: Sequence[int | str], value: Any) -> str:
    """The dotted path of what was given, without pydantic's names for forms that a value may have."""
    path = []
    for part in location:
        if isinstance(value, dict) and (part in value or part == location[-1]):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            continue
        path.append(str(part))
    return ".".join(path) or "(top level)"


def suggest_key(key: str, valid: Sequence[str]) -> str:
    """A hint: the valid key most like the one given, or all of them when none is close."""
    close = difflib.get_close_matches(key, valid, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"valid are: {', '.join(sorted(valid))}."


def _apply_override(target: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise ConfigError(f"--set {override}: expected key.path=value.")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: the value is not valid YAML.") from None
    for position, key in enumerate(keys[:-1]):
        inner = target.get(key)
        if isinstance(inner, str):  # `loss: triplet` is short for {name: triplet}
            inner = {"name": inner}
        elif isinstance(inner, list):
            raise ConfigError(
                f"--set {override}: {'.'.join(keys[: position + 1])} is a list; set the whole of it, "
                "e.g. 'loss=[{name: triplet}]'."
            )
        target[key] = dict(inner) if isinstance(inner, dict) else {}
        target = target[key]
    target[keys[-1]] = value


def _expand_variables(value: Any, source: str) -> Any:
    if isinstance(value, dict):
        return {key: _expand_variables(part, source) for key, part in value.items()}
    if isinstance(value, list):
        return [_expand_variables(part, source) for part in value]
    if not isinstance(value, str):
        return value

    def look_up(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        replacement = os.environ.get(match[1], match[2])
        if replacement is None:
            raise ConfigError(f"{source}: the environment variable {match[1]} is not set.")
        return replacement

    return _VARIABLE.sub(look_up, value)


def _check_keys(model: type[BaseModel], value: Any, path: str, source: str) -> None:
    """Raises ConfigError that suggests a key for an unknown one; pydantic names it alone."""
    if not isinstance(value, Mapping):
        return
    fields = model.model_fields
    for key, part in value.items():
        where = f"{path}.{key}" if path else str(key)
        if key in fields:
            for inner in _list_models(fields[key].annotation):
                for item in part if isinstance(part, list) else [part]:
                    _check_keys(inner, item, where, source)
        elif model.model_config.get("extra") != "allow":
            raise ConfigError(f"{source}: unknown key '{where}': {suggest_key(str(key), list(fields))}")


def _list_models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (list, types.UnionType, typing.Union):
        return [model for inner in typing.get_args(annotation) for model in _list_models(inner)]
    return []
