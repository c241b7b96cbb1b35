"""What the rooms' tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # bit for bit is a promise of CPUs
os.environ.setdefault("OMP_NUM_THREADS", "1")  # more threads of parallel test workers wait for each other

# the same examples on every run, so that a change is judged by itself; the long forms draw new ones
settings.register_profile("limen", derandomize="LIMEN_RANDOM_EXAMPLES" not in os.environ)
settings.load_profile("limen")


# files and folders that take long, in any order; were they last, one worker would wait for another
LONG = (
    "browser",
    "crash",
    "docs/test_readme.py",
    "end_to_end",
    "evaluation",
    "limen",
    "service",
    "training/loop",
    "training/losses/test_split_classes.py",
    "training/runtime",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long; the rest keeps its order."""
    items.sort(key=lambda item: not item.path.relative_to(TESTS).as_posix().startswith(LONG))


def absent(part: str) -> None:
    """Skip for a part this machine lacks; fail where everything is required."""
    if os.environ.get("LIMEN_REQUIRE_ALL") == "1":
        pytest.fail(f"{part} is required here (LIMEN_REQUIRE_ALL=1)")
    pytest.skip(f"{part} is not here")


@pytest.fixture(scope="session")
def datasets() -> Path:
    """The folder of real data sets, LIMEN_DATASETS or ../shared/data beside the repository."""
    folder = Path(os.environ.get("LIMEN_DATASETS", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        absent(f"the folder of data sets {folder} (LIMEN_DATASETS)")
    return folder
