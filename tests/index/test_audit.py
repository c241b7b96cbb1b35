"""Every node finds itself after an audit: by a link, or known to be missed."""

from __future__ import annotations

from typing import Any, cast

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from api_schemas.manifest import IndexKind
from index.engines import self_recall
from index.engines.hnsw import HnswEngine
from index.engines.registry import Approximate, build_engine
from index.engines.self_recall import audited, lost_nodes, upper_share
from index.gallery.gallery import Gallery
from tests.index.conftest import MakeBundle, items_of, small, unit

N = 2_000


def links_of(engine: HnswEngine) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """All links of a graph, to be changed in place, and where those of the bottom layer are [n, 2 m]."""
    hnsw = cast(Any, engine)._index.hnsw
    starts = faiss.vector_to_array(hnsw.offsets).astype(np.int64)[:-1]
    flat = faiss.rev_swig_ptr(hnsw.neighbors.data(), hnsw.neighbors.size())
    return flat, starts[:, None] + np.arange(hnsw.cum_nb_neighbors(1))


def stranded(seed: int, lost: int) -> tuple[HnswEngine, NDArray[np.float32], NDArray[np.int64]]:
    """An engine from whose bottom layer every link to some nodes was taken."""
    rng = np.random.default_rng(seed)
    vectors = unit(rng, N)
    engine = HnswEngine.build(vectors, np.arange(N), small("hnsw"), "hnsw")
    index = cast(Any, engine)._index
    levels = faiss.vector_to_array(index.hnsw.levels)
    chosen = np.sort(rng.choice(np.flatnonzero(levels == 1), lost, replace=False))  # no upper layer has them
    flat, places = links_of(engine)
    for own in places:
        kept = flat[own][~np.isin(flat[own], chosen)]
        flat[own] = np.pad(kept, (0, len(own) - len(kept)), constant_values=-1)
    return engine, vectors, chosen


def test_nodes_without_a_way_in_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_recall, "FEW", 30)
    engine, vectors, chosen = stranded(0, 40)
    assert lost_nodes(engine, vectors, np.arange(N)).tolist() == chosen.tolist()
    found = audited(engine, vectors, np.arange(N))
    assert found.lost.tolist() == []
    assert found.record.model_dump() == {"probed": N, "missed": 40, "linked": 40, "share_upper": 0.0}
    assert not len(lost_nodes(engine, vectors, np.arange(N)))


def test_few_nodes_without_a_way_in_are_listed_and_the_graph_is_left_alone() -> None:
    engine, vectors, chosen = stranded(0, 40)
    before = links_of(engine)[0].copy()
    found = audited(engine, vectors, np.arange(N))
    assert found.lost.tolist() == chosen.tolist()
    assert (found.record.missed, found.record.linked) == (40, 0)
    assert np.array_equal(links_of(engine)[0], before)


@pytest.mark.parametrize("few", [0, 10_000])
@pytest.mark.parametrize("kind", ["hnsw", "hnsw_sq8", "ivf_pq"])
def test_in_a_crowd_of_near_copies_an_audit_names_all_that_a_search_misses(
    kind: IndexKind, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_recall, "FEW", few)
    rng = np.random.default_rng(9)
    vectors = unit(rng, 3_000, 32)
    crowd = vectors[7] + rng.normal(size=(1_000, 32), scale=1e-4)
    vectors[1_000:2_000] = crowd / np.linalg.norm(crowd, axis=1, keepdims=True)
    rows = np.arange(3_000)
    engine = build_engine(vectors, rows, small(kind), kind)
    assert isinstance(engine, Approximate)
    assert len(lost_nodes(engine, vectors, rows)) >= 30
    found = audited(engine, vectors, rows)
    assert found.lost.tolist() == lost_nodes(engine, vectors, rows).tolist()


def test_without_a_link_to_spare_a_node_stays_missed_and_no_link_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(self_recall, "FEW", 0)
    engine, vectors, chosen = stranded(1, 5)
    flat, places = links_of(engine)
    for node, own in enumerate(places):  # fill every list with links that lead nowhere new
        flat[own[flat[own] < 0]] = (node + 1) % N if (node + 1) % N not in chosen else node
    before = flat.copy()
    found = audited(engine, vectors, np.arange(N))
    assert found.lost.tolist() == chosen.tolist()
    assert (found.record.missed, found.record.linked) == (5, 0)
    assert np.array_equal(flat, before)


@pytest.mark.parametrize(("missed", "probed"), [(0, 50), (1, 50), (7, 200), (199, 200)])
def test_the_bound_on_what_was_not_probed_holds_at_its_confidence(missed: int, probed: int) -> None:
    bound = upper_share(missed, probed)
    assert binom.cdf(missed, probed, bound) == pytest.approx(0.05)
    assert upper_share(5, 5) == 1.0


def test_a_large_set_is_audited_by_a_sample_unless_that_finds_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(self_recall, "ALL_UP_TO", 1_000)
    monkeypatch.setattr(self_recall, "SAMPLE", 500)
    monkeypatch.setattr(self_recall, "TOLERATED", 0.01)
    monkeypatch.setattr(self_recall, "FEW", 30)
    engine, vectors, _ = stranded(2, 0)
    sound = audited(engine, vectors, np.arange(N)).record
    assert (sound.probed, sound.missed) == (500, 0)
    assert sound.share_upper == pytest.approx(1 - 0.05 ** (1 / 500))
    engine, vectors, _ = stranded(2, 100)
    unsound = audited(engine, vectors, np.arange(N))
    assert unsound.record.probed == N
    assert unsound.record.missed == unsound.record.linked == 100
    assert unsound.record.share_upper == 0.0


def test_what_the_audit_found_is_in_the_manifest_and_in_stats(make_bundle: MakeBundle) -> None:
    items = items_of(unit(np.random.default_rng(0), 300))
    gallery = Gallery.open(make_bundle(items, small("hnsw")))
    record = gallery.manifest.index.self_recall
    assert record is not None
    assert (record.probed, record.share_upper) == (300, 0.0)
    stats = gallery.stats()
    assert (stats["audited"], stats["missed"], stats["linked"]) == (300, record.missed, record.linked)
    assert Gallery.open(make_bundle(items, small("flat"))).manifest.index.self_recall is None
