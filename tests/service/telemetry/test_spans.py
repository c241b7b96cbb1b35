"""Traces and the log of slow queries: the parts of a request, and nothing of its contents."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from common.spans import Span
from limen.client import Client
from service import app as service_app
from service.telemetry import logs
from service.telemetry.tracing import build_tracer
from tests.encoder.encoders import encode_data_uri, encode_png
from tests.service.bundles import make_grey_image, make_image_bundle, serve

otel = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What services that are started now have sent."""
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    from service.telemetry.tracing import Tracer

    kept = otel.InMemorySpanExporter()
    monkeypatch.setattr(
        service_app, "build_tracer", lambda address, share: Tracer(SimpleSpanProcessor(kept), share)
    )
    return kept


def find_parts(exporter: Any, name: str) -> tuple[Any, list[str]]:
    """The last request's span of this name, and the names of its parts in the order of their ends."""
    spans = exporter.get_finished_spans()
    request = [span for span in spans if span.name == name][-1]
    parts = [span for span in spans if span.parent and span.parent.span_id == request.context.span_id]
    for part in parts:
        assert request.start_time <= part.start_time <= part.end_time <= request.end_time
        assert part.context.trace_id == request.context.trace_id
    return request, [part.name for part in parts]


def test_requests_are_traced_with_their_parts(exporter: Any, tmp_path: Path) -> None:
    bundle = make_image_bundle(tmp_path / "images")
    picture = encode_data_uri(encode_png(make_grey_image(3)))
    with serve(bundle.path, data=tmp_path / "data") as at, Client(at, retries=0) as client:
        client.search([{"input": picture}])
        client.upsert([{"id": "new", "label": "0", "input": picture}])
        httpx.post(f"{at}/v1/search", json={"queries": [{"id": "nobody"}]})
    search, parts = find_parts(exporter, "POST /v1/search")
    assert search.attributes["http.response.status_code"] == 422
    assert search.attributes["limen.problem"] == "unknown-item"
    spans = exporter.get_finished_spans()
    first = next(span for span in spans if span.name == "POST /v1/search")
    names = [s.name for s in spans if s.parent and s.parent.span_id == first.context.span_id]
    assert [name for name in names if name != "wait"] == ["encode", "propose", "rescore"]
    assert (first.attributes["limen.queries"], first.attributes["limen.k"]) == (1, 10)
    assert first.attributes["http.route"] == "/v1/search"
    _, parts = find_parts(exporter, "PUT /v1/items")
    assert {"encode", "store"} <= set(parts)
    assert picture[30:60] not in "".join(span.to_json() for span in spans)


def test_a_match_continues_the_trace_of_its_sender(exporter: Any, bundle: Any) -> None:
    with serve(bundle.path) as at:
        body = {"queries": [{"id": "item-0"}]}
        for flags in ("01", "00"):
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-{flags}"}
            assert httpx.post(f"{at}/v1/match", json=body, headers=headers).status_code == 200
        pair = {"pairs": [{"a": {"id": "item-0"}, "b": {"id": "item-1"}}]}
        assert httpx.post(f"{at}/v1/verify", json=pair).status_code == 200
    request, parts = find_parts(exporter, "POST /v1/match")
    assert f"{request.context.trace_id:032x}" == TRACE
    assert f"{request.parent.span_id:016x}" == PARENT
    assert [part for part in parts if part != "wait"] == ["propose", "rescore", "decide"]
    matches = [span for span in exporter.get_finished_spans() if span.name == "POST /v1/match"]
    assert len(matches) == 1, "the sender of the other does not keep its trace"
    verified, parts = find_parts(exporter, "POST /v1/verify")
    assert verified.parent is None
    assert parts == ["wait", "rescore", "decide"]


def test_a_share_of_zero_traces_what_others_ask_for(exporter: Any, bundle: Any) -> None:
    with serve(bundle.path, trace_share=0.0) as at:
        httpx.get(f"{at}/v1/info")
        httpx.get(f"{at}/v1/info", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    infos = [span for span in exporter.get_finished_spans() if span.name == "GET /v1/info"]
    assert [f"{span.context.trace_id:032x}" for span in infos] == [TRACE]


def test_a_service_without_traces_imports_nothing_for_them() -> None:
    code = (
        "import sys\n"
        "from service.telemetry.tracing import build_tracer\n"
        "assert build_tracer(None, 1.0) is None\n"
        "names = ('opentelemetry.sdk', 'opentelemetry.exporter')\n"
        "assert not [name for name in sys.modules if name.startswith(names)]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def read_slow(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    return [line for line in lines if line["message"] == "slow query"]


def test_slow_queries_are_logged_without_what_was_asked(
    bundle: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("warning")
    query = {"queries": [{"vector": [0.987654321] * 16}], "k": 7, "filter": {"place": "north"}}
    with serve(bundle.path, slow_query=1e-9) as at:
        httpx.post(f"{at}/v1/search", json=query, headers={"X-Request-Id": "mine"})
        httpx.get(f"{at}/v1/items/item-0")
    slow = [line for line in read_slow(capsys) if line["route"].startswith("/v1/")]
    search, item = slow
    assert (search["request_id"], search["queries"], search["k"], search["filtered"]) == ("mine", 1, 7, True)
    assert {"propose", "rescore"} <= search["parts_ms"].keys()
    assert sum(search["parts_ms"].values()) <= search["ms"]
    assert item["route"] == "/v1/items/{item_id:text}"
    for never in ("0.98765", "north", "item-0"):
        assert never not in json.dumps(slow)


def test_quick_requests_are_not_logged_as_slow(bundle: Any, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning")
    with serve(bundle.path, slow_query=3600.0) as at:
        httpx.get(f"{at}/v1/info")
    assert read_slow(capsys) == []


def test_traces_reach_a_collector() -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            received.append((self.path, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        tracer = build_tracer(f"http://127.0.0.1:{server.server_port}/", 1.0)
        assert tracer is not None
        tracer.keep(Span("GET /v1/info", 1.0, 2.0), [Span("wait", 1.0, 1.5)], {}, {"limen.k": 3}, True)
        tracer.close()
        server.shutdown()
        thread.join()
    ((path, body),) = received
    assert path == "/v1/traces"
    (of_service,) = ExportTraceServiceRequest.FromString(body).resource_spans
    part, request = sorted(of_service.scope_spans[0].spans, key=lambda span: span.name == "GET /v1/info")
    assert (part.name, request.name) == ("wait", "GET /v1/info")
    assert part.parent_span_id == request.span_id
    assert request.end_time_unix_nano - request.start_time_unix_nano == pytest.approx(1e9, abs=1e3)
    assert request.status.code == 2
