"""Servers that all tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines.milvus_server import URI, provide_milvus
from tests.index import postgres


@pytest.fixture(scope="session")
def milvus() -> Iterator[str]:
    """The address of Milvus, also in the environment."""
    with provide_milvus() as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv(URI, address)
        yield address


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    """The address of a PostgreSQL database."""
    with postgres.running() as address:
        yield address
