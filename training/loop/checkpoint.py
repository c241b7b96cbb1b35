"""Checkpoints: one safetensors file each, tensors in its body, progress and configuration in its header.

One file is whole or absent after a crash, so that tensors and progress can never be of different steps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
from pydantic import ValidationError
from torch import Tensor

from api_schemas.config import Config
from common.atomic_files import write_atomically
from common.errors import ConfigError, InputError
from training.loop.train_state import Progress, TrainState
from training.run_folder.layout import CLASS_FILES, STEP_FILES, get_class_pattern

RESUME_MAY_CHANGE = frozenset(("name", "calibration", "index", "data.memory_gb", "data.cache_gb"))


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint file."""

    tensors: dict[str, Tensor]
    progress: Progress
    config: dict[str, object]
    fingerprint: str


def save_checkpoint(path: Path, state: TrainState, config: Config, fingerprint: str) -> None:
    """Write atomically: a crash or a full disk leaves older checkpoints as they are."""
    header = {
        "progress": state.progress.to_json(),
        "config": json.dumps(config.model_dump(mode="json")),
        "fingerprint": fingerprint,
    }
    write_atomically(path, safetensors.torch.save(state.collect_tensors(), metadata=header))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; raises InputError naming a missing or damaged file."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        return Checkpoint(
            tensors,
            Progress.from_json(header["progress"]),
            dict(json.loads(header["config"])),
            header["fingerprint"],
        )
    except (OSError, AttributeError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise InputError(
            f"{path} cannot be read as a checkpoint: {error}. Remove it to go on without it."
        ) from None


def find_latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the latest step; names sort by step."""
    return max(folder.glob(STEP_FILES), default=None)


def remove_old_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the latest ``keep`` checkpoints; the best weights are a file of their own."""
    checkpoints = sorted(folder.glob(STEP_FILES))
    for path in checkpoints[:-keep]:
        path.unlink(missing_ok=True)
    kept = {shard for path in checkpoints[-keep:] for shard in folder.glob(get_class_pattern(path))}
    for path in set(folder.glob(CLASS_FILES)) - kept:
        path.unlink(missing_ok=True)


def check_same_run(checkpoint: Checkpoint, config: Config, fingerprint: str, path: Path) -> None:
    """Check that a run would be resumed with its own data and configuration.

    Raises:
        ConfigError: names the first key that differs.
        InputError: the data changed since the checkpoint was written.
    """
    then = checkpoint.config
    with suppress(ValidationError):  # an older version had fewer keys, which are at their defaults
        then = Config.model_validate(then).model_dump(mode="json")
    now, then = (_leave_out(document) for document in (config.model_dump(mode="json"), then))
    if key := _find_difference(now, then):
        raise ConfigError(
            f"{path} was written with another '{key}': resume with the same configuration, or start a new "
            "run in another --out."
        )
    # older ones have no sum of ids
    if checkpoint.fingerprint not in (fingerprint, fingerprint.partition("+")[0]):
        raise InputError(
            f"The training data changed since {path} was written: start a new run in another --out."
        )


def _leave_out(document: Mapping[str, object], above: str = "") -> dict[str, object]:
    """All of a document but what may change."""
    return {
        key: _leave_out(value, f"{above}{key}.") if isinstance(value, dict) else value
        for key, value in document.items()
        if above + key not in RESUME_MAY_CHANGE
    }


def _find_difference(now: Mapping[str, object], then: Mapping[str, object]) -> str | None:
    """The dotted key of the first value that differs, in the order of ``now``."""
    for key in [*now, *(key for key in then if key not in now)]:
        new, old = now.get(key), then.get(key)
        if new != old:
            inner = _find_difference(new, old) if isinstance(new, dict) and isinstance(old, dict) else None
            return f"{key}.{inner}" if inner else key  # also of a key null in one and absent in the other
    return None
