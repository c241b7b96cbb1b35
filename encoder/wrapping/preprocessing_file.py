"""``preprocessing.yaml``: how somebody says what an encoder's inputs are prepared like."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from api_schemas.wrap_config import (
    AudioPreprocessingConfig,
    ImagePreprocessingConfig,
    PreprocessingConfig,
    TextPreprocessingConfig,
    VectorPreprocessingConfig,
)
from api_schemas.yaml_config import read_mapping, suggest_key, validate_mapping
from common.errors import ConfigError
from encoder.wrapping.presets import PRESETS

CONFIGS: dict[str, type[PreprocessingConfig]] = {
    "image": ImagePreprocessingConfig,
    "audio": AudioPreprocessingConfig,
    "text": TextPreprocessingConfig,
    "vector": VectorPreprocessingConfig,
}


def read_preprocessing(given: str | Mapping[str, Any] | None) -> tuple[dict[str, Any], str]:
    """The keys that were given, a tokenizer's path from the working directory on, and where they stand.

    Args:
        given: a YAML file, the name of a preset, or keys.

    Raises:
        InputError: the file cannot be read. ConfigError: no file and no preset has this name.
    """
    if given is None:
        return {}, "the preprocessing"
    if not isinstance(given, str):
        keys = dict(given)
        below, source = read_preprocessing(keys.pop("name", None))  # which `--set` makes of a file or preset
        return merge_keys(below, keys), source if below else "encoder.preprocessing"
    path = Path(given)
    if given in PRESETS and not path.exists():
        return {"preset": given}, f"--preprocessing {given}"
    if not path.exists() and path.suffix not in (".yaml", ".yml"):
        raise ConfigError(
            f"--preprocessing {given}: neither a YAML file nor a preset; {suggest_key(given, list(PRESETS))}"
        )
    keys = read_mapping(path)
    if isinstance(keys.get("tokenizer"), str):
        keys["tokenizer"] = str(path.parent / keys["tokenizer"])
    return keys, given


def parse_preprocessing(keys: Mapping[str, Any], source: str) -> PreprocessingConfig:
    """Keys, those of their preset below them, as a checked configuration.

    Raises:
        ConfigError: an unknown preset, kind or key, a missing one, or a value that is not allowed.
    """
    name = keys.get("preset")
    if name is not None and name not in PRESETS:
        raise ConfigError(f"{source}: preset: '{name}' is unknown; {suggest_key(str(name), list(PRESETS))}")
    merged = merge_keys(PRESETS[name] if name is not None else {}, keys)
    kind = merged.get("kind")
    if kind not in CONFIGS:
        found = "is missing" if kind is None else f"is '{kind}'"
        raise ConfigError(
            f"{source}: kind {found}: give one of {', '.join(CONFIGS)}, or a preset ({', '.join(PRESETS)})."
        )
    return validate_mapping(CONFIGS[kind], merged, [], source)


def merge_keys(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Keys over others, sections key by key."""
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        merged[key] = merge_keys(inner, value) if both else value  # type: ignore[arg-type]
    return merged
