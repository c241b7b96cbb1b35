"""The errors whose message is meant for a person.

LimenError
├── InputError          data, files or arrays that cannot be used
├── ConfigError         a configuration key or value
├── BundleError         a bundle, index or model file that fails its checks
├── CalibrationRefused  a target that the data cannot support
└── MissingExtra        a command whose optional packages are not installed

Each carries one sentence that names the file, key or row, what was expected, what was found,
and, where there is one, the next step. The command line prints it and exits with code 2;
the service answers with a problem document.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class LimenError(Exception):
    """Base of all errors whose message is meant for the person at the keyboard."""


class InputError(LimenError):
    """Data, a file or an array that cannot be used as it is."""


class ConfigError(LimenError):
    """A configuration key that does not exist or a value that is not allowed."""


class BundleError(LimenError):
    """A bundle, index or model file that is damaged, foreign or incomplete."""


class CalibrationRefused(LimenError):
    """The target cannot be proven with the data at hand; the message says what would be needed."""


class MissingExtra(LimenError):
    """A command needs optional packages that are not installed."""

    def __init__(self, command: str, extra: str) -> None:
        super().__init__(f"{command} needs the extra '{extra}': pip install 'limen[{extra}]'.")


@contextmanager
def needs(command: str, extra: str) -> Iterator[None]:
    """Around a command's imports: turns a missing package into advice to install its extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtra(command, extra) from error
