"""A package that is not installed becomes advice to install its extra."""

from __future__ import annotations

import importlib

import pytest

from common.errors import MissingExtra, needs


def test_a_missing_package_names_the_command_and_the_extra() -> None:
    with (
        pytest.raises(
            MissingExtra, match=r"^limen fly needs the extra 'wings': pip install 'limen\[wings\]'\.$"
        ),
        needs("limen fly", "wings"),
    ):
        importlib.import_module("no_such_package_anywhere")
    with needs("limen walk", "legs"):
        importlib.import_module("json")
