"""Engines of compressed vectors leave the float32 rows on disk; answers stay the same."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from index.gallery.gallery import Gallery
from index.search import page_release
from tests.index.conftest import MakeBundle, make_items, make_small_config, make_unit_rows


def measure_mapped(file: Path) -> int:
    """Bytes of a file that are mapped by this process and in memory."""
    total, is_own = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            is_own = line.endswith(str(file))
        elif is_own and line.startswith("Rss:"):
            total += 1024 * int(line.split()[1])
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
@pytest.mark.parametrize(("kind", "is_released"), [("ivf_pq", True), ("hnsw_sq8", True), ("hnsw", False)])
def test_rows_of_compressed_engines_do_not_stay_in_memory(
    make_bundle: MakeBundle, kind: str, is_released: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_release, "MOST_BYTES", 200 << 10)
    monkeypatch.setattr(page_release, "ROW_BYTES", 1 << 10)
    vectors = make_unit_rows(np.random.default_rng(0), 4_000, 64)
    path = make_bundle(make_items(vectors), make_small_config(kind))
    gallery = Gallery.open(path)
    file = path.resolve() / "vectors.npy"
    size = file.stat().st_size
    found = [hits[0].id for query in vectors[:50] for hits in gallery.search(query, 1)]
    assert found == [f"i{row}" for row in range(50)]
    assert gallery.search(vectors[7], 3, exact=True)[0][0].id == "i7"
    assert gallery.search(vectors[:400], 1)[9][0].id == "i9"
    assert (measure_mapped(file) < size / 4) == is_released
