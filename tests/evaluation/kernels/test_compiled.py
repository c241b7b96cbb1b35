"""Compiled kernels are kept in the cache folder, and work where nothing can be kept."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from evaluation.kernels import compiled as decorators


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setenv("LIMEN_CACHE", str(tmp_path / "cache"))
    decorators._find_kernel_folder.cache_clear()
    yield tmp_path / "cache"
    decorators._find_kernel_folder.cache_clear()


def write_kernel(file: Path) -> Any:
    """A function that doubles a number, as if it stood in that file."""
    scope: dict[str, Any] = {}
    exec(compile("def double(x):\n    return 2 * x\n", str(file), "exec"), scope)
    return scope["double"]


def test_what_is_compiled_is_kept_in_the_cache_folder(fresh_cache: Path, tmp_path: Path) -> None:
    source = tmp_path / "kernels" / "double.py"
    source.parent.mkdir()
    source.touch()
    first, again = (decorators.compiled(write_kernel(source)) for _ in range(2))
    assert first(21) == 42
    assert len(list(fresh_cache.rglob("*.nbc"))) == 1
    assert [path.name for path in source.parent.iterdir()] == ["double.py"], "nothing is written beside it"
    assert again(21) == 42
    assert sum(again.stats.cache_hits.values()) == 1
    assert numba.config.CACHE_DIR == "", "kernels of others are kept where they were"


def test_nothing_is_said_where_nothing_can_be_kept(
    fresh_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LIMEN_CACHE", str(tmp_path / "file"))  # no folder can be made in it
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        double = decorators.compiled(write_kernel(tmp_path / "gone" / "double.py"))
        twice = decorators.elementwise(write_kernel(tmp_path / "gone" / "double.py"))
    assert double(21) == 42
    np.testing.assert_array_equal(twice(np.array([1.0, 2.0])), [2.0, 4.0])
    assert list(fresh_cache.rglob("*.nbc")) == []
