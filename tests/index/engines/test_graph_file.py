"""A graph on disk: what FAISS finds with it, over vectors that are held once, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from api_schemas.build_config import IndexConfig
from api_schemas.manifest import GRAPH_FILE, IndexDescription, IndexKind
from common.errors import BundleError
from common.progress import silent
from index.engines.distinct_vectors import Nodes, find_distinct_vectors
from index.engines.engine import AllowedNodes, NodeSource
from index.engines.graph_file import Graph
from index.engines.hnsw import HnswEngine
from index.engines.registry import ENGINES, open_engine
from index.engines.sampled_recall import require_on_sample
from tests.index.conftest import make_small_config, make_unit_rows

GRAPHS: tuple[IndexKind, ...] = ("hnsw", "hnsw_sq8")


def make_source(vectors: NDArray[np.float32]) -> tuple[NodeSource, NDArray[np.int64]]:
    """A set as a generation describes it, and the first row of each node."""
    firsts, node_of_row = find_distinct_vectors(vectors)
    nodes = Nodes.from_node_of_row(node_of_row, np.arange(len(vectors)))
    source = NodeSource(
        vectors, firsts, None if nodes.is_plain else node_of_row, lambda rows: [], frozenset(), "m", silent
    )
    return source, firsts


def save_and_open(
    folder: Path, kind: IndexKind, vectors: NDArray[np.float32], config: IndexConfig
) -> tuple[HnswEngine, HnswEngine]:
    """A built engine, and what is opened of it."""
    source, firsts = make_source(vectors)
    built = ENGINES[kind].build(vectors, firsts, config, silent)
    built.save(folder)
    description = IndexDescription(kind=kind, parameters=dict(built.parameters), measured=built.measured)
    return cast(HnswEngine, built), cast(HnswEngine, open_engine(folder, description, source))


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("n_copies", [0, 300])
@pytest.mark.parametrize("measured", [False, True], ids=["beam set", "beam measured"])
def test_what_is_opened_finds_what_was_built(
    kind: IndexKind, n_copies: int, measured: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(n_copies)
    vectors = make_unit_rows(rng, 2_600)
    vectors[rng.integers(0, 2_600, n_copies)] = vectors[rng.integers(0, 5, n_copies)]
    config = make_small_config(kind)
    if measured:
        config = config.model_copy(update={"ef_search": None})
    built, opened = save_and_open(tmp_path, kind, vectors, config)
    assert len(opened) == len(built)
    assert opened.parameters == built.parameters
    assert ("recall" in built.parameters) == measured
    queries = make_unit_rows(rng, 50)
    allowed = AllowedNodes(rng.random(len(built)) < 0.3)
    for effort, few in ((1.0, None), (0.5, None), (4.0, allowed)):
        expected = built.search(queries, 20, effort, few)
        found = opened.search(queries, 20, effort, few)
        assert np.array_equal(found[1], expected[1])
        assert np.array_equal(found[0], expected[0])
        if few is not None:
            assert few.nodes[found[1][found[1] >= 0]].all()


def test_vectors_written_by_columns_are_searched_all_the_same(tmp_path: Path) -> None:
    vectors = make_unit_rows(np.random.default_rng(0), 300)
    built, _ = save_and_open(tmp_path, "hnsw", vectors, make_small_config("hnsw"))
    description = IndexDescription(kind="hnsw", parameters=dict(built.parameters))
    opened = open_engine(tmp_path, description, make_source(np.asfortranarray(vectors))[0])
    assert np.array_equal(opened.search(vectors, 5)[1], built.search(vectors, 5)[1])


def test_vectors_are_held_once_and_links_take_no_unused_room(tmp_path: Path) -> None:
    vectors = make_unit_rows(np.random.default_rng(0), 3_000)
    built, opened = save_and_open(tmp_path, "hnsw", vectors, make_small_config("hnsw"))
    index = cast(Any, opened)._index
    storage = faiss.downcast_index(index.storage)
    assert int(storage.codes.data()) == vectors.ctypes.data
    links = faiss.rev_swig_ptr(
        cast(Any, built)._index.hnsw.neighbors.data(), cast(Any, built)._index.hnsw.neighbors.size()
    )
    kept = index.hnsw.neighbors.size()
    assert int((links >= 0).sum()) < kept < len(links)
    assert (tmp_path / GRAPH_FILE).stat().st_size < 4 * kept + 12 * 3_000 + 1_000


def list_links(graph: Graph, node: int, layer: int) -> list[int]:
    """The links of a node, read as FAISS does: up to the first -1 of so many."""
    width = 2 * graph.m if layer == 0 else graph.m
    start = int(graph.offsets[node]) + (0 if layer == 0 else graph.m * (layer + 1))
    return [int(link) for link in graph.links[start : start + width].tolist()]


def test_every_list_is_that_of_faiss_under_other_numbers(tmp_path: Path) -> None:
    vectors = make_unit_rows(np.random.default_rng(1), 1_500)
    index = faiss.IndexHNSWFlat(16, 6, faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)
    numbers = np.random.default_rng(2).permutation(2_000)[:1_500]
    written = Graph.read_index(index, numbers, 2_000)
    written.save(tmp_path / "graph.npy")
    graph, _ = Graph.open(tmp_path / "graph.npy")
    hnsw = index.hnsw
    all_links = faiss.rev_swig_ptr(hnsw.neighbors.data(), hnsw.neighbors.size())
    starts = faiss.vector_to_array(hnsw.offsets).astype(np.int64)
    levels = faiss.vector_to_array(hnsw.levels)
    assert levels.max() > 1
    for node in range(1_500):
        for layer in range(int(levels[node])):
            begin = starts[node] + hnsw.cum_nb_neighbors(layer)
            of_faiss = all_links[begin : begin + hnsw.nb_neighbors(layer)]
            expected = [int(numbers[link]) for link in of_faiss if link >= 0]
            found = list_links(graph, int(numbers[node]), layer)
            assert (found[: found.index(-1)] if -1 in found else found) == expected
    assert graph.entry_point == numbers[hnsw.entry_point]
    assert (graph.levels[np.setdiff1d(np.arange(2_000), numbers)] == 0).all()


def set_value(field: str, position: int, value: int) -> Callable[[dict[str, Any]], None]:
    def change(fields: dict[str, Any]) -> None:
        fields[field] = fields[field].copy()
        fields[field][position] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        set_value("links", 7, 300),
        set_value("links", 7, -2),
        set_value("offsets", 3, -1),
        set_value("offsets", 3, 10**9),
        set_value("offsets", 299, 10**6),
        set_value("levels", 0, 40),
        lambda fields: fields.update(entry_point=300),
        lambda fields: fields.update(max_level=33),
        lambda fields: fields.update(m=0),
        lambda fields: fields.update(offsets=fields["offsets"][:-1]),
    ],
)
def test_a_graph_that_leads_astray_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    vectors = make_unit_rows(np.random.default_rng(0), 300)
    save_and_open(tmp_path, "hnsw", vectors, make_small_config("hnsw"))
    graph, _ = Graph.open(tmp_path / GRAPH_FILE)
    fields = dict(vars(graph))
    change(fields)
    Graph(**fields).save(tmp_path / "changed.npy")
    with pytest.raises(BundleError, match="lead out of it"):
        Graph.open(tmp_path / "changed.npy")


@pytest.mark.parametrize("size", [0, 10, 200, 3_000])
def test_a_graph_that_is_cut_off_is_refused(tmp_path: Path, size: int) -> None:
    save_and_open(tmp_path, "hnsw", make_unit_rows(np.random.default_rng(0), 300), make_small_config("hnsw"))
    (tmp_path / "cut.npy").write_bytes((tmp_path / GRAPH_FILE).read_bytes()[:size])
    with pytest.raises(BundleError, match="not a graph that can be read"):
        Graph.open(tmp_path / "cut.npy")


def test_a_graph_of_another_set_is_refused(tmp_path: Path) -> None:
    vectors = make_unit_rows(np.random.default_rng(0), 300)
    built, _ = save_and_open(tmp_path, "hnsw", vectors, make_small_config("hnsw"))
    description = IndexDescription(kind="hnsw", parameters=dict(built.parameters))
    with pytest.raises(BundleError, match="numbers 300 vectors, the bundle has 299"):
        open_engine(tmp_path, description, make_source(vectors[:299])[0])


def test_the_beam_is_the_narrowest_with_the_recall_and_serving_may_ask_for_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = make_unit_rows(np.random.default_rng(0), 6_000, 24)
    beams = {}
    for recall in (0.9, 0.98):
        config = IndexConfig(kind="hnsw", m=12, ef_construction=60, recall=recall)
        built, opened = save_and_open(tmp_path, "hnsw", vectors, config)
        beam = beams[recall] = built.parameters["ef_search"]
        assert built.parameters["target_recall"] == recall
        assert all(each.recall < require_on_sample(recall) for each in built.measured if each.effort < beam)
        queries = make_unit_rows(np.random.default_rng(1), 300, 24)
        nearest = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
        found = opened.search(queries, 16)[1]
        assert (nearest[:, :, None] == found[:, None, :]).any(axis=2).mean() >= recall - 0.01
        requested = HnswEngine.select_requested_parameters(built.parameters, 6_000)
        assert requested == {"m": 12, "ef_construction": 60, "recall": recall}
    assert beams[0.9] < beams[0.98]
    monkeypatch.setenv("LIMEN_RECALL", "0.95")
    description = IndexDescription(kind="hnsw", parameters=dict(built.parameters), measured=built.measured)
    source = make_source(vectors)[0]
    assert open_engine(tmp_path, description, source).parameters == built.parameters, "it already finds more"
    monkeypatch.setenv("LIMEN_RECALL", "0.99")
    wider = open_engine(tmp_path, description, source).parameters
    assert wider["ef_search"] > beams[0.98]
    assert wider["recall"] >= 0.99
