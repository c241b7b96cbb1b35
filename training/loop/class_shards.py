"""Class vectors that are split over processes: beside each checkpoint, a file of each process's classes."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from common.atomic_files import fsync_folder
from common.errors import InputError
from training.run_folder.layout import get_class_pattern

Shards = Mapping[str, tuple[int, Tensor]]
"""By name: the class of the first row, and rows of consecutive classes [c, d]."""


def save_class_shards(checkpoint: Path, rank: int, shards: Shards) -> None:
    """Write this process's rows, straight from where they are; the file is whole or absent."""
    path = checkpoint.with_name(get_class_pattern(checkpoint).replace("*", f"{rank:05d}"))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    tensors = {name: rows.detach().contiguous() for name, (_, rows) in shards.items()}
    first = json.dumps({name: number for name, (number, _) in shards.items()})
    try:
        safetensors.torch.save_file(tensors, temporary, metadata={"first": first})
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def load_class_shards(checkpoint: Path, shards: Shards) -> None:
    """Fill this process's rows from the files of however many processes wrote them.

    Raises:
        InputError: rows that no file has, or a damaged file.
    """
    if not shards:
        return
    missing = {name: len(rows) for name, (_, rows) in shards.items()}
    pattern = get_class_pattern(checkpoint)
    for path in sorted(checkpoint.parent.glob(pattern)):
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                starts = json.loads(file.metadata()["first"])
                for name, (first, rows) in shards.items():
                    part, start = file.get_slice(name), starts[name]
                    begin, end = max(first, start), min(first + len(rows), start + part.get_shape()[0])
                    if begin < end:
                        rows[begin - first : end - first] = part[begin - start : end - start].to(rows)
                        missing[name] -= end - begin
        except (OSError, TypeError, KeyError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
            raise InputError(f"{path} cannot be read as class vectors: {error}.") from None
    if any(missing.values()):
        raise InputError(
            f"{checkpoint.parent / pattern}: vectors of {max(missing.values())} classes are missing: all "
            "processes must see the same --out, on a disk that they share."
        )
