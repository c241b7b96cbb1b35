"""Every node finds itself after an audit: by a link, or known to be missed."""

from __future__ import annotations

from typing import Any, cast

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from api_schemas.manifest import IndexKind
from common.progress import silent
from index.engines import self_recall
from index.engines.hnsw import HnswEngine
from index.engines.registry import ENGINES
from index.engines.self_recall import audit_self_recall, bound_missed_fraction, find_lost_nodes
from index.gallery.gallery import Gallery
from tests.index.conftest import MakeBundle, make_items, make_small_config, make_unit_rows

N = 2_000


def get_links(engine: HnswEngine) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """All links of a graph, to be changed in place, and where those of the bottom layer are [n, 2 m]."""
    hnsw = cast(Any, engine)._index.hnsw
    starts = faiss.vector_to_array(hnsw.offsets).astype(np.int64)[:-1]
    flat = faiss.rev_swig_ptr(hnsw.neighbors.data(), hnsw.neighbors.size())
    return flat, starts[:, None] + np.arange(hnsw.cum_nb_neighbors(1))


def strand_nodes(engine: HnswEngine, among: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Take every link to ``count`` of some nodes from the graph; returns them, ascending."""
    levels = faiss.vector_to_array(cast(Any, engine)._index.hnsw.levels)
    bottom = among[levels[among] == 1]  # no upper layer has them
    nodes = np.sort(np.random.default_rng(seed).choice(bottom, count, replace=False))
    flat, positions = get_links(engine)
    for own in positions:
        kept = flat[own][~np.isin(flat[own], nodes)]
        flat[own] = np.pad(kept, (0, len(own) - len(kept)), constant_values=-1)
    return nodes


def build_stranded(seed: int, lost: int) -> tuple[HnswEngine, NDArray[np.float32], NDArray[np.int64]]:
    """An engine over random vectors with some stranded nodes."""
    vectors = make_unit_rows(np.random.default_rng(seed), N)
    engine = HnswEngine.build(vectors, np.arange(N), make_small_config("hnsw", ef_search=256), silent)
    return engine, vectors, strand_nodes(engine, np.arange(N), lost, seed)


def test_nodes_without_a_way_in_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_recall, "LISTED_UP_TO", 30)
    engine, vectors, stranded = build_stranded(0, 40)
    assert find_lost_nodes(engine, vectors, np.arange(N)).tolist() == stranded.tolist()
    lost, record = audit_self_recall(engine, vectors, np.arange(N))
    assert lost.tolist() == []
    assert record.model_dump() == {"probed": N, "missed": 40, "linked": 40, "share_upper": 0.0}
    assert not len(find_lost_nodes(engine, vectors, np.arange(N)))


def test_few_nodes_without_a_way_in_are_listed_and_the_graph_is_left_alone() -> None:
    engine, vectors, stranded = build_stranded(0, 40)
    before = get_links(engine)[0].copy()
    lost, record = audit_self_recall(engine, vectors, np.arange(N))
    assert lost.tolist() == stranded.tolist()
    assert (record.missed, record.linked) == (40, 0)
    assert np.array_equal(get_links(engine)[0], before)


@pytest.mark.parametrize("listed_up_to", [0, 10_000])
@pytest.mark.parametrize("kind", ["hnsw", "hnsw_sq8", "ivf_pq"])
def test_among_near_copies_an_audit_names_all_that_a_search_misses(
    kind: IndexKind, listed_up_to: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_recall, "LISTED_UP_TO", listed_up_to)
    rng = np.random.default_rng(9)
    vectors = make_unit_rows(rng, 3_000, 32)
    copies = vectors[7] + rng.normal(size=(1_000, 32), scale=1e-4)
    vectors[1_000:2_000] = copies / np.linalg.norm(copies, axis=1, keepdims=True)
    rows = np.arange(3_000)
    engine = ENGINES[kind].build(vectors, rows, make_small_config(kind), silent)
    if isinstance(engine, HnswEngine):  # how many it misses by itself depends on the processor's rounding
        for among in (rows[:1_000], rows[1_000:2_000]):
            stranded = strand_nodes(engine, among, 40, seed=1)
            assert np.isin(stranded, find_lost_nodes(engine, vectors, rows)).all()
    assert len(find_lost_nodes(engine, vectors, rows)) >= 80
    lost, _ = audit_self_recall(engine, vectors, rows)
    assert lost.tolist() == find_lost_nodes(engine, vectors, rows).tolist()


def test_without_a_link_to_spare_a_node_stays_missed_and_no_link_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(self_recall, "LISTED_UP_TO", 0)
    engine, vectors, stranded = build_stranded(1, 5)
    flat, positions = get_links(engine)
    for node, own in enumerate(positions):  # fill every list with links that lead nowhere new
        flat[own[flat[own] < 0]] = (node + 1) % N if (node + 1) % N not in stranded else node
    before = flat.copy()
    lost, record = audit_self_recall(engine, vectors, np.arange(N))
    assert lost.tolist() == stranded.tolist()
    assert (record.missed, record.linked) == (5, 0)
    assert np.array_equal(flat, before)


@pytest.mark.parametrize(("missed", "probed"), [(0, 50), (1, 50), (7, 200), (199, 200)])
def test_the_bound_on_what_was_not_probed_holds_at_its_confidence(missed: int, probed: int) -> None:
    bound = bound_missed_fraction(missed, probed)
    assert binom.cdf(missed, probed, bound) == pytest.approx(0.05)
    assert bound_missed_fraction(5, 5) == 1.0


def test_a_large_set_is_audited_by_a_sample_unless_that_finds_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(self_recall, "ALL_UP_TO", 1_000)
    monkeypatch.setattr(self_recall, "SAMPLE", 500)
    monkeypatch.setattr(self_recall, "TOLERATED", 0.01)
    monkeypatch.setattr(self_recall, "LISTED_UP_TO", 30)
    engine, vectors, _ = build_stranded(2, 0)
    _, sound = audit_self_recall(engine, vectors, np.arange(N))
    assert (sound.probed, sound.missed) == (500, 0)
    assert sound.share_upper == pytest.approx(1 - 0.05 ** (1 / 500))
    engine, vectors, _ = build_stranded(2, 100)
    _, unsound = audit_self_recall(engine, vectors, np.arange(N))
    assert unsound.probed == N
    assert unsound.missed == unsound.linked == 100
    assert unsound.share_upper == 0.0


def test_what_the_audit_found_is_in_the_manifest_and_in_stats(make_bundle: MakeBundle) -> None:
    items = make_items(make_unit_rows(np.random.default_rng(0), 300))
    gallery = Gallery.open(make_bundle(items, make_small_config("hnsw")))
    record = gallery.manifest.index.self_recall
    assert record is not None
    assert (record.probed, record.share_upper) == (300, 0.0)
    stats = gallery.compute_stats()
    assert (stats["audited"], stats["missed"], stats["linked"]) == (300, record.missed, record.linked)
    assert Gallery.open(make_bundle(items, make_small_config("flat"))).manifest.index.self_recall is None
