"""A bundle and a service for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from limen.client import Client
from tests.service.bundles import ServiceBundle, make_bundle, serve

Start = Callable[..., str]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ServiceBundle:
    """A bundle of vectors with both operating points."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "clusters")


@pytest.fixture(scope="session")
def bundle_without_points(tmp_path_factory: pytest.TempPathFactory) -> ServiceBundle:
    """A bundle whose data could not support a target."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "pointless", points=False)


@pytest.fixture(scope="session")
def two_bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ServiceBundle, ServiceBundle]:
    """A folder of two bundles of the same items and different models."""
    folder = tmp_path_factory.mktemp("side-by-side")
    return folder, make_bundle(folder / "one"), make_bundle(folder / "two", model="others")


@pytest.fixture(scope="session")
def address(bundle: ServiceBundle) -> Iterator[str]:
    """A read-only service of `bundle`."""
    with serve(bundle.path) as at:
        yield at


@pytest.fixture(scope="session")
def client(address: str) -> Iterator[Client]:
    """A client of `address` that does not try again."""
    with Client(address, retries=0) as connected:
        yield connected


@pytest.fixture
def start() -> Iterator[Start]:
    """Start further services; they end with the test."""
    with ExitStack() as stack:
        yield lambda bundle, **given: stack.enter_context(serve(bundle, **given))
