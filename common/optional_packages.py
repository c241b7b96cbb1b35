"""Optional packages that a command needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from common.errors import MissingExtra


@contextmanager
def needs(command: str, extra: str) -> Iterator[None]:
    """Around a command's imports: turns a missing package into advice to install its extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtra(command, extra) from error
