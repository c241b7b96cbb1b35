"""The bundles of the index's tests."""

from tests.index.conftest import make_bundle

__all__ = ["make_bundle"]
