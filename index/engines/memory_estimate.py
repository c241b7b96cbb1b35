"""Memory and disk an index takes, estimated before it is built, and the engine kind that fits."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from api_schemas.build_config import IndexConfig
from api_schemas.manifest import IndexKind
from common.errors import InputError
from index.engines.registry import ENGINES

AUTOMATIC = {kind: engine for kind, engine in ENGINES.items() if engine.is_automatic}
USABLE_FRACTION = 0.8  # of the free memory that a build may take
ITEM_BYTES = 64  # on disk: id, label, a little metadata, and where the item is
CONTROL_GROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class BuildEstimate:
    """Bytes that building an index takes: ``memory`` at its peak, ``disk`` for good."""

    kind: IndexKind
    memory: int
    disk: int

    def __str__(self) -> str:
        return f"{self.kind}, about {_format(self.memory)} of memory and {_format(self.disk)} on disk"


def estimate_build(config: IndexConfig, rows: int, dim: int, free: int, free_disk: int) -> BuildEstimate:
    """Memory and disk of a bundle of ``rows`` vectors that are all distinct.

    Raises InputError if it does not fit into the bytes of memory or disk that are ``free``; says what would.
    """
    kind, _ = select_kind(config, rows, dim, free)
    memory = _estimate_build_bytes(config, rows, dim)
    disk = {
        name: rows * (4 * dim + ITEM_BYTES) + engine.estimate_file_bytes(rows, dim, config)
        for name, engine in ENGINES.items()
    }
    if disk[kind] > free_disk:
        smaller = min(AUTOMATIC, key=disk.__getitem__)
        instead = (
            f"index.kind={smaller} ({_format(disk[smaller])}) fits; or " if disk[smaller] <= free_disk else ""
        )
        raise InputError(
            f"a bundle of kind {kind} over {rows:,} vectors of {dim} numbers needs about "
            f"{_format(disk[kind])} on disk and {_format(free_disk)} is free there: "
            f"{instead}make room, or choose another disk."
        )
    return BuildEstimate(kind, memory[kind], disk[kind])


def measure_free_memory() -> int:
    """Memory that can be had without swapping, within the limits of a container."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    try:
        limit = (CONTROL_GROUP / "memory.max").read_text().strip()
        used = int((CONTROL_GROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, int(limit) - used)


def select_kind(config: IndexConfig, nodes: int, dim: int, free: int) -> tuple[IndexKind, str | None]:
    """The kind to build over so many nodes, and why where the configuration leaves it open.

    Raises InputError if the requested kind does not fit into the bytes of memory ``free``; says what would.
    """
    needed = _estimate_build_bytes(config, nodes, dim)
    usable = int(USABLE_FRACTION * free)
    if config.kind != "auto":
        if needed[config.kind] > usable:
            raise _build_memory_error(config.kind, nodes, dim, needed, usable)
        return config.kind, None
    reason = ""
    for kind, engine in AUTOMATIC.items():
        if engine.auto_up_to is not None:
            if nodes <= engine.auto_up_to:
                return kind, f"{nodes:,} distinct vectors are compared exactly in about a millisecond"
            reason = (
                f"{nodes:,} distinct vectors are more than the {engine.auto_up_to:,} that {kind} is kept for"
            )
        elif needed[kind] <= usable:
            return kind, reason
        else:
            reason = f"{kind} would need {_format(needed[kind])} of memory, {_format(usable)} may be taken"
    raise _build_memory_error(kind, nodes, dim, needed, usable)


def _estimate_build_bytes(config: IndexConfig, nodes: int, dim: int) -> dict[IndexKind, int]:
    return {kind: engine.estimate_build_bytes(nodes, dim, config) for kind, engine in ENGINES.items()}


def _build_memory_error(
    kind: IndexKind, nodes: int, dim: int, needed: dict[IndexKind, int], usable: int
) -> InputError:
    # an engine that ``auto`` keeps for small sets would answer too slowly
    fitting = [
        name
        for name, engine in AUTOMATIC.items()
        if needed[name] <= usable and (engine.auto_up_to is None or nodes <= engine.auto_up_to)
    ]
    instead = (
        f"index.kind={fitting[0]} ({_format(needed[fitting[0]])}) fits" if fitting else "no kind fits here"
    )
    return InputError(
        f"an index of kind {kind} over {nodes:,} vectors of {dim} numbers needs about "
        f"{_format(needed[kind])} of memory while it is built and {_format(usable)} may be taken: "
        f"{instead}, or use a larger machine."
    )


def _format(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"
