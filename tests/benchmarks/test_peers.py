"""What of the comparison with peers needs none of them: registry, ratios, bars, tables, guard, decision."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import process_time
from typing import Any

import numpy as np
import pytest

from benchmarks.peers import registry
from benchmarks.peers.__main__ import read_arguments
from benchmarks.peers.bench import Bench
from benchmarks.peers.client_load import Load, build_json_request, measure_calls, measure_http
from benchmarks.peers.dataset import FILTERS, Dataset, K, write_dataset
from benchmarks.peers.decision import THRESHOLD, decide
from benchmarks.peers.engines.faiss_graph import FaissGraph
from benchmarks.peers.jobs import JOBS
from benchmarks.peers.questions import Truth, judge, write_clinc150, write_grocery
from benchmarks.peers.registry import ENGINES, Entry, explain_absence
from benchmarks.peers.report.figures import BARS, Bar, Spread, collect, compare, measure_bar
from benchmarks.peers.report.guard import compute_ratios, find_losses, write_reference
from benchmarks.peers.report.plot import draw_ratios
from benchmarks.peers.report.table import (
    BEGIN,
    END,
    write_bars,
    write_into,
    write_job,
    write_scripts,
    write_section,
)
from benchmarks.peers.results import Record, Results, measure_rounds
from benchmarks.peers.scripts import FOLDER, SCRIPTS, count_lines
from benchmarks.peers.server_process import list_tree, measure_cpu
from benchmarks.peers.worker import carry_out

SIZE = "5,000 x 32"
CASE = "8 clients, single"
PROGRAMS = ["threads", *(["wrk"] if shutil.which("wrk") else [])]


def build_records(**rates: list[float]) -> list[Record]:
    """Searches of eight clients, a rate a round."""
    return [
        {
            "job": "search",
            "size": SIZE,
            "engine": engine,
            "round": number,
            "figures": {CASE: {"rate": rate, "p50": 1.0, "p99": 2.0, "cpu": 1000 / rate}},
        }
        for engine, values in rates.items()
        for number, rate in enumerate(values)
    ]


def test_every_engine_names_a_class_that_is_there() -> None:
    for name, entry in ENGINES.items():
        module, _, cls = entry.engine.partition(":")
        tree = ast.parse((registry.ROOT / "benchmarks/peers/engines" / f"{module}.py").read_text())
        assert cls in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}, name
        assert set(entry.jobs) <= set(JOBS)
        assert entry.same_files in ("", *ENGINES)
    assert {entry.title for entry in ENGINES.values() if not entry.needs} >= {"Limen, JSON"}


def test_an_absent_peer_is_skipped_with_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "PEERS_PYTHON", tmp_path / "python")
    sentence = explain_absence(ENGINES["chroma"])
    assert sentence == "chroma's server is not at hand: install the peers with `make bench-peers`."
    assert explain_absence(ENGINES["limen"]) is None


def test_a_peer_whose_server_is_missing_is_skipped_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 0\n")
    python.chmod(0o755)
    monkeypatch.setattr(registry, "PEERS_PYTHON", python)
    entry = Entry("PostgreSQL + pgvector", "pgvector:PgVector", ("psycopg",), here=lambda: False)
    assert "extension `vector`" in (explain_absence(entry) or "")
    python.write_text("#!/bin/sh\nexit 1\n")
    assert ".venv-peers lacks psycopg" in (explain_absence(entry) or "")


def test_ratios_are_taken_within_a_round() -> None:
    records = build_records(limen=[100, 400, 90], chroma=[50, 200, 30])
    ours, theirs = (collect(records, "search", SIZE, name, CASE, "rate") for name in ("limen", "chroma"))
    assert compare(ours, theirs) == Spread(2.0, 2.0, 3.0, 3)
    assert compare(ours, {}) is None


@pytest.mark.parametrize(("rate", "word"), [(260.0, "met"), (240.0, "**missed**")])
def test_a_bar_is_met_or_missed(rate: float, word: str) -> None:
    row = next(
        line
        for line in write_bars(build_records(limen=[rate] * 3, chroma=[100.0] * 3), [SIZE]).splitlines()
        if "rate" in line
    )
    assert row.endswith(f"| >= 2.5 x | {word} |")


def test_the_best_peer_is_the_hardest_one() -> None:
    records: list[Record] = [
        {"job": "restart", "size": SIZE, "engine": name, "round": 0, "figures": {"restart": {"seconds": s}}}
        for name, s in (("limen", 1.0), ("chroma", 4.0), ("pgvector", 0.5), ("faiss", 0.1))
    ]
    bar = Bar("restart", "restart", "best", at_most=0.5, figure="seconds")
    assert measure_bar(records, bar, SIZE) == (Spread(2.0, 2.0, 2.0, 1), "pgvector")


def test_every_bar_is_of_a_job_and_engines_that_are_there() -> None:
    for bar in BARS:
        assert bar.job in JOBS
        assert bar.job in ENGINES[bar.ours].jobs
        assert bar.peer in ("", "best", "limen-raw empty endpoint") or bar.job in ENGINES[bar.peer].jobs
        assert (bar.at_least is None) != (bar.at_most is None)


def test_a_table_says_figure_spread_and_ratio() -> None:
    table = write_job(build_records(limen=[1000, 1200, 1100], chroma=[500, 400, 550]), "search", SIZE)
    assert "| Limen, JSON | 1,100 queries/s (1,000 to 1,200), 2.00 ms p99, 0.91 ms of CPU |" in table
    theirs = "500 queries/s (400 to 550), 2.00 ms p99, 2.00 ms of CPU, **2.00 x (2.00 to 3.00)**"
    assert f"| chroma's server | {theirs} |" in table


def test_a_page_keeps_what_is_not_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    results = {
        "measured": {f"search, {SIZE}": "1 May 2026: two cores", "first decision, ": "2 May 2026: four"},
        "failed": {f"search, {SIZE}": {"milvus": "no"}},
        "versions": {"limen": "limen 1"},
        "absent": ["chroma's server is not at hand."],
        "tuned": {SIZE: {"limen": {"recall": 0.961, "effort": 16}}},
        "records": build_records(limen=[100.0], faiss=[200.0]),
    }
    for _ in range(2):
        write_into(page, write_section(results))
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n\n- Measured on 1 May 2026: two cores: search, {SIZE}.\n")
    assert "\n- Measured on 2 May 2026: four: first decision.\n" in text
    assert f"milvus-lite's server did not finish search, {SIZE}." in text
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert text.count("| FAISS in process |") == 1
    assert "| Limen, JSON | 0.961, 16 |" in text
    assert "chroma's server is not at hand." in text
    page.write_text("nothing")
    with pytest.raises(SystemExit, match="put the lines"):
        write_into(page, "section")


def build_costs(*costs: float) -> list[Record]:
    """Searches of one client, milliseconds of processor time a round, and FAISS's of 0.5."""
    return [
        {
            "job": "search",
            "size": SIZE,
            "engine": engine,
            "round": number,
            "figures": {"1 client, single": {"cpu": cost if engine == "limen" else 0.5}},
        }
        for number, cost in enumerate(costs)
        for engine in ("limen", "faiss", "chroma")
    ]


def test_the_guard_allows_twice_the_spread_and_leaves_the_first_round_out(tmp_path: Path) -> None:
    file = tmp_path / "reference.json"
    write_reference(compute_ratios(build_costs(9, 1.0, 0.9, 1.1)), file)
    above = compute_ratios(build_costs(0, 1.21, 1.21, 1.21))
    assert find_losses(compute_ratios(build_costs(9, 1.19, 1.19, 1.19)), file) == []
    assert find_losses(above, file) == [
        f"search, {SIZE}, 1 client, single, limen: 2.42 x FAISS, above 2.40 x (2.00 x usually)."
    ]
    assert find_losses(above, tmp_path / "absent.json") == []


def test_what_varies_from_run_to_run_is_part_of_the_spread(tmp_path: Path) -> None:
    file = tmp_path / "reference.json"
    for cost in (1.0, 1.5, 1.0):
        write_reference(compute_ratios(build_costs(9, cost, cost)), file)
    assert find_losses(compute_ratios(build_costs(0, 1.49, 1.49)), file) == []
    assert find_losses(compute_ratios(build_costs(0, 1.51, 1.51)), file) != []


def test_the_processor_time_of_an_answer_is_that_of_the_engine(tmp_path: Path) -> None:
    class Busy(FaissGraph):
        def measure_match(self, seconds: float) -> Load:
            end = process_time() + 0.2
            while process_time() < end:
                pass
            return {"count": 4, "rate": 1.0, "p50": 1.0, "p99": 1.0}

    write_dataset(tmp_path, 100, 4)
    load = carry_out(Busy(tmp_path, Dataset.load(tmp_path)), {"do": "match"}, [])
    assert 40 <= load["cpu"] <= 100


def test_a_plot_is_drawn_where_a_peer_was_measured(tmp_path: Path) -> None:
    case = "1 client, single"
    records = build_records(limen=[100.0, 110.0], chroma=[50.0, 40.0])
    for record in records:
        record["figures"][case] = record["figures"][CASE]
    assert not draw_ratios([], SIZE, tmp_path / "none.png")
    assert draw_ratios(records, SIZE, tmp_path / "pictures" / "peers.png")
    assert (tmp_path / "pictures" / "peers.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "none.png").exists()


def measure_some(results: Results, answers: dict[str, list[float]], rounds: int = 2) -> list[str]:
    """Rounds of searches whose rates are given; what was asked, in order."""
    asked: list[str] = []

    def measure(engine: str) -> dict[str, dict[str, float]]:
        asked.append(engine)
        if not answers[engine]:
            raise RuntimeError(f"{engine} ended")
        return {CASE: {"rate": answers[engine].pop(0)}}

    results.begin("search", SIZE, "today")
    measure_rounds(results, "search", SIZE, list(answers), rounds, measure, lambda text: None)
    return asked


def test_engines_take_turns_and_one_that_fails_is_left_out(tmp_path: Path) -> None:
    results = Results(tmp_path / "figures.json")
    asked = measure_some(results, {"limen": [1, 2, 3], "chroma": [4], "faiss": [5, 6, 7]}, rounds=3)
    assert asked == ["limen", "chroma", "faiss", "faiss", "chroma", "limen", "limen", "faiss"]
    assert results.content["failed"] == {f"search, {SIZE}": {"chroma": "chroma ended"}}
    assert collect(results.content["records"], "search", SIZE, "faiss", CASE, "rate") == {0: 5, 1: 6, 2: 7}


def test_each_round_is_in_the_file_when_a_run_is_cut_and_the_next_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"

    def measure(engine: str) -> dict[str, dict[str, float]]:
        if engine == "faiss":
            raise KeyboardInterrupt
        return {CASE: {"rate": 1.0}}

    first = Results(file)
    first.begin("search", SIZE, "today")
    with pytest.raises(KeyboardInterrupt):
        measure_rounds(first, "search", SIZE, ["limen", "faiss"], 2, measure, lambda text: None)
    asked = measure_some(Results(file, resume=True), {"limen": [2, 2], "faiss": [3, 3]})
    assert asked == ["faiss", "faiss", "limen"]
    records = Results(file).content["records"]
    assert collect(records, "search", SIZE, "limen", CASE, "rate") == {0: 1.0, 1: 2}
    assert measure_some(Results(file), {"limen": [4], "faiss": [5]}, rounds=1) == ["limen", "faiss"]
    records = Results(file).content["records"]
    assert collect(records, "search", SIZE, "limen", CASE, "rate") == {0: 4}


def test_two_runs_write_to_one_file(tmp_path: Path) -> None:
    runs = [Results(tmp_path / "figures.json") for _ in range(2)]
    for job, run in zip(("search", "match"), runs, strict=True):
        run.begin(job, SIZE, "today")
        run.add(job, SIZE, "limen", 0, {CASE: {"rate": 1.0}})
        run.note_engines(SIZE, {job: "1"}, {})
    content = Results(tmp_path / "figures.json").content
    assert [record["job"] for record in content["records"]] == ["search", "match"]
    assert content["versions"] == {"search": "1", "match": "1"}
    assert set(content["measured"]) == {f"search, {SIZE}", f"match, {SIZE}"}


def test_the_build_that_searches_need_is_a_round_of_ingest_once(tmp_path: Path) -> None:
    write_dataset(tmp_path / "100x4" / "data", 100, 4)
    (tmp_path / "100x4" / "limen").mkdir()
    (tmp_path / "100x4" / "limen" / "built").write_text("2.5")
    bench = Bench(tmp_path, 100, 4, {})
    assert bench.size == "100 x 4"
    assert bench.take_build_seconds("limen") == 2.5
    assert Bench(tmp_path, 100, 4, {}).take_build_seconds("limen") is None


def test_the_dataset_knows_its_true_neighbours(tmp_path: Path) -> None:
    write_dataset(tmp_path, 600, 8)
    data = Dataset.load(tmp_path)
    assert data.rows.shape == (600, 8)
    np.testing.assert_allclose(np.linalg.norm(data.rows, axis=1), 1, atol=1e-6)
    query = data.queries[3]
    assert data.neighbours[3].tolist() == np.argsort(-(data.rows @ query), kind="stable")[:K].tolist()
    for name in FILTERS:
        (condition,) = data.draw_conditions(name, 1)
        exact = data.find_exact(query, condition)
        if name == "label":
            assert {str(data.labels[row]) for row in exact} == {condition["label"]}
        else:
            low, high = condition["value"]
            assert high - low == {"range 1 %": 100, "range 10 %": 1000}[name]
            assert all(low <= data.values[row] < high for row in exact)
    assert len(data.find_exact(query, data.draw_conditions("range 10 %", 1)[0])) == K


def test_a_decision_takes_the_best_class_and_its_distance_to_the_next() -> None:
    decision = decide([(7, 0.9, "a"), (8, 0.8, "a"), (9, 0.6, "b")])
    assert (decision["decision"], decision["label"], decision["id"]) == ("match", "a", 7)
    assert decision["margin"] == pytest.approx(0.3)
    assert decision["probability"] > 0.9
    unknown = decide([(7, THRESHOLD - 0.3, "a")])
    assert unknown["decision"] == "unknown"


def test_a_load_counts_calls_and_passes_errors_on() -> None:
    numbers: list[int] = []
    load = measure_calls(numbers.append, clients=2, seconds=0.05)
    assert load["rate"] > 0
    assert load["p50"] <= load["p99"]
    assert {0, 1, 2, 3} <= set(numbers)

    def fail(_: int) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        measure_calls(fail, clients=1, seconds=0.05)


def test_processes_that_have_ended_take_no_more_processor_time() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert list_tree(ended.pid) == []
    assert measure_cpu([ended.pid]) == 0
    assert list_tree(os.getpid())[0] == os.getpid()
    assert measure_cpu([os.getpid()]) > 0


@contextmanager
def serve(status: int) -> Iterator[tuple[int, list[bytes]]]:
    """A server that answers every POST alike, and the bodies that it got."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], bodies
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(params=PROGRAMS)
def client_program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load by each program that there is."""
    if request.param == "threads":
        monkeypatch.setenv("PATH", "/nothing")


@pytest.mark.usefixtures("client_program")
def test_prepared_requests_are_sent_in_turn() -> None:
    requests = [build_json_request("/search", {"number": number}) for number in range(3)]
    with serve(200) as (port, bodies):
        load = measure_http(requests, port, clients=2, seconds=0.3)
    assert load["rate"] > 0
    assert set(bodies) == {b'{"number": 0}', b'{"number": 1}', b'{"number": 2}'}


@pytest.mark.usefixtures("client_program")
def test_refused_requests_are_an_error() -> None:
    with (
        serve(429) as (port, _),
        pytest.raises(RuntimeError, match="not answered with success"),
    ):
        measure_http([build_json_request("/search", {})], port, clients=1, seconds=1)


def test_scripts_are_there_and_their_lines_are_counted(tmp_path: Path) -> None:
    assert all((FOLDER / script.file).exists() for script in SCRIPTS.values())
    script = tmp_path / "script.py"
    script.write_text('"""Says what."""\n\n# why\nimport os\n\nprint(os.name)\n')
    assert count_lines(script) == 2


def test_answers_are_judged_by_known_and_unknown_queries() -> None:
    truth = ["a", "a", "b", None, None]
    assert judge(["a", None, "a", None, "b"], truth) == {"right": 1 / 3, "false": 0.5}
    table = write_scripts(
        [
            {
                "engine": "Grocery: Limen",
                "figures": {"all": {"seconds": s, "lines": 9, "right": 0.5, "false": 0.25}},
            }
            for s in (2.0, 4.0)
        ]
    )
    assert table.endswith("| Grocery: Limen | 3.00 s (2.00 to 4.00) | 9 | 0.500 | 0.250 |")


@pytest.mark.parametrize("write", [write_grocery, write_clinc150])
def test_queries_of_unknown_classes_have_no_class_in_the_training_data(
    write: Callable[[Path, Path], Truth], datasets: Path, tmp_path: Path
) -> None:
    truth = write(datasets, tmp_path)
    if write is write_grocery:
        shown = {folder.name for folder in (tmp_path / "photos").iterdir()}
        assert len(list((tmp_path / "queries").iterdir())) == len(truth)
    else:
        rows = [json.loads(line) for line in (tmp_path / "texts.jsonl").read_text().splitlines()]
        shown = {row["label"] for row in rows}
        assert len((tmp_path / "queries.jsonl").read_text().splitlines()) == len(truth)
    known = {label for label in truth if label is not None}
    assert known <= shown - {"oos"}
    assert 0.2 < truth.count(None) / len(truth) < 0.6


def test_the_small_form_is_small() -> None:
    given = read_arguments(["--small"])
    assert (given.items, given.dims, given.rounds) == (5_000, [32], 3)
    assert given.jobs == ["search", "match"]
