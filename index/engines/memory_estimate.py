"""How much memory and disk an index takes, told before it is begun."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from api_schemas.config import IndexConfig
from api_schemas.manifest import IndexKind
from common.errors import InputError
from index.engines.hnsw import SQ8_SAMPLE
from index.engines.ivf_pq import SAMPLE_PER_CELL, cells_for, codes_for

FLAT_UP_TO = 20_000  # distinct vectors that exact search answers in about a millisecond
NODE_BYTES = 16  # level, offset and the links of the upper layers, on average
ID_BYTES = 8  # of a row in a cell
SPARE_CODES = 16  # of a cell, on average: it has room for a multiple of 32
SHARE = 0.8  # of the free memory that a build may take
ITEM_BYTES = 64  # on disk: id, label, a little metadata, and where the item is
CONTROL_GROUP = Path("/sys/fs/cgroup")


def build_bytes(kind: IndexKind, nodes: int, dim: int, m: int) -> int:
    """Bytes of memory that building an engine takes: what it holds, or before that, what it is trained on."""
    sample = {"hnsw_sq8": SQ8_SAMPLE, "ivf_pq": SAMPLE_PER_CELL * cells_for(nodes)}.get(kind, 0)
    copies = 2 if kind == "ivf_pq" else 1  # rows, and what is left of them beside the centre of their cell
    return max(held_bytes(kind, nodes, dim, m), copies * 4 * dim * min(nodes, sample))


def held_bytes(kind: IndexKind, nodes: int, dim: int, m: int) -> int:
    """Bytes an engine holds over its distinct vectors; m is HNSW's links a node, twice that at the bottom."""
    if kind == "ivf_pq":
        codes = -(-codes_for(dim) // 2)
        return nodes * (codes + ID_BYTES) + cells_for(nodes) * (4 * dim + SPARE_CODES * codes)
    numbers = dim if kind == "hnsw_sq8" else 4 * dim
    links = 0 if kind == "flat" else 2 * m * 4 + NODE_BYTES
    return nodes * (numbers + links)


@dataclass(frozen=True)
class Estimate:
    """What building an index over so many rows will take, in bytes: ``memory`` at most, ``disk`` for good."""

    kind: IndexKind
    memory: int
    disk: int

    def __str__(self) -> str:
        return f"{self.kind}, about {_size(self.memory)} of memory and {_size(self.disk)} on disk"


def estimate(config: IndexConfig, rows: int, dim: int, free: int, free_disk: int) -> Estimate:
    """What a bundle of ``rows`` vectors that are all distinct takes.

    Args:
        free: bytes of memory to be had.
        free_disk: bytes to be had where the bundle is to be.

    Raises:
        InputError: it does not fit in memory or on the disk; says what would.
    """
    kind, _ = choose_kind(config, rows, dim, free)
    memory = {one: build_bytes(one, rows, dim, config.m) for one in _KINDS}
    disk = {one: rows * (4 * dim + ITEM_BYTES) + memory[one] for one in _KINDS}
    if disk[kind] > free_disk:
        smaller = min(_KINDS, key=disk.__getitem__)
        instead = (
            f"index.kind={smaller} ({_size(disk[smaller])}) fits; or " if disk[smaller] <= free_disk else ""
        )
        raise InputError(
            f"a bundle of kind {kind} over {rows:,} vectors of {dim} numbers needs about {_size(disk[kind])} "
            f"on disk and {_size(free_disk)} is free there: {instead}make room, or choose another disk."
        )
    return Estimate(kind, memory[kind], disk[kind])


def free_bytes() -> int:
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


def choose_kind(config: IndexConfig, nodes: int, dim: int, free: int) -> tuple[IndexKind, str | None]:
    """The kind to build, and why where the configuration leaves it open.

    Args:
        config: ``kind`` may be ``auto``.
        nodes: distinct vectors.
        dim: numbers a vector.
        free: bytes of memory to be had.

    Raises:
        InputError: what is asked for does not fit; says what would.
    """
    needs = {kind: build_bytes(kind, nodes, dim, config.m) for kind in _KINDS}
    room = int(SHARE * free)
    if config.kind != "auto":
        _refuse(config.kind, nodes, dim, needs, room)
        return config.kind, None
    if nodes <= FLAT_UP_TO:
        return "flat", f"{nodes:,} distinct vectors are compared exactly in about a millisecond"
    if needs["hnsw"] <= room:
        return "hnsw", f"{nodes:,} distinct vectors are more than the {FLAT_UP_TO:,} that flat is kept for"
    kind: IndexKind = "hnsw_sq8" if needs["hnsw_sq8"] <= room else "ivf_pq"
    _refuse(kind, nodes, dim, needs, room)
    larger: IndexKind = "hnsw" if kind == "hnsw_sq8" else "hnsw_sq8"
    return kind, f"{larger} would need {_size(needs[larger])} of memory, {_size(room)} may be taken"


_KINDS: tuple[IndexKind, ...] = ("flat", "hnsw", "hnsw_sq8", "ivf_pq")
_SMALLER: tuple[IndexKind, ...] = ("hnsw_sq8", "ivf_pq")


def _refuse(kind: IndexKind, nodes: int, dim: int, needs: dict[IndexKind, int], room: int) -> None:
    if needs[kind] <= room:
        return
    smaller = [other for other in _SMALLER if needs[other] <= room]
    instead = f"index.kind={smaller[0]} ({_size(needs[smaller[0]])}) fits" if smaller else "no kind fits here"
    raise InputError(
        f"an index of kind {kind} over {nodes:,} vectors of {dim} numbers needs about {_size(needs[kind])} "
        f"of memory while it is built and {_size(room)} may be taken: {instead}, or use a larger machine."
    )


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"
