"""The service as a process: how it starts, refuses to start, and stops."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import multiprocess

from common.errors import ConfigError
from limen.client import Client
from service.server import SharedPort, Supervisor, open_listener
from tests.limen.conftest import run_limen
from tests.service.monitoring.test_webhook import SECRET, receive
from tests.service.processes import COMMAND, check_refusal, read_refusal, run_service


def copy_with_a_changed_byte(bundle: Path, broken: Path) -> Path:
    shutil.copytree(bundle, broken)
    content = bytearray((broken / "vectors.npy").read_bytes())
    content[-5] ^= 1
    (broken / "vectors.npy").unlink()
    (broken / "vectors.npy").write_bytes(content)
    return broken


def wait_until_refused(address: str) -> None:
    """Return once no process takes connections at the address; fails while one still does."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{address}/livez", timeout=10)
        except httpx.HTTPError:
            return
        time.sleep(0.05)
    pytest.fail("a process still answers")


def test_a_port_in_use(bundle: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*COMMAND, str(bundle.path), "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
    words = check_refusal(done.returncode, done.stderr)
    assert f"Port {port} on 127.0.0.1" in words
    assert "--port" in words


def test_a_bundle_with_one_byte_changed(bundle: Any, tmp_path: Path) -> None:
    broken = copy_with_a_changed_byte(bundle.path, tmp_path / "broken")
    words = read_refusal(str(broken), "--port", "0")
    assert "vectors.npy" in words


def test_what_is_no_bundle_is_refused_as_verify_refuses_it(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nope"):
        verify = run_limen("verify", path)
        assert read_refusal(str(path)) == verify.err.strip()
        assert str(path) in verify.err
    assert "limen keys create" in read_refusal(str(tmp_path), "--host", "0.0.0.0")


def test_sigterm_lets_a_running_request_end_and_takes_no_more(bundle: Any) -> None:
    # a small body is read before the request counts as one in progress
    body = b'{"queries": [{"id": "item-0"}]}' + b" " * 70_000
    head = (
        "POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with run_service(str(bundle.path)) as (process, address):
        port = int(address.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=15) as begun:
            begun.sendall(head.encode() + body[:10])
            # the request is in progress once its metric says so
            while "limen_inflight_requests 1.0" not in httpx.get(f"{address}/metrics").text:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            wait_until_refused(address)
            begun.sendall(body[10:])
            answer = b""
            while part := begun.recv(65536):
                answer += part
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"}")
        assert process.wait(15) in {0, -signal.SIGTERM}


@pytest.mark.skipif(sys.platform != "linux", reason="workers share a listening socket")
def test_two_workers_answer_as_one(bundle: Any) -> None:
    with run_service(str(bundle.path), "--workers", "2") as (process, address):
        tokens = set()
        for _ in range(20):
            with Client(address) as client:
                tokens.add(client.match([{"id": "item-0"}]).results[0].score)
        assert len(tokens) == 1
        text = httpx.get(f"{address}/metrics").text
        counted = [
            line for line in text.splitlines() if 'route="/v1/match"' in line and "requests_total" in line
        ]
        assert len(counted) == 1, "every answer was a 200: a worker takes requests once it can answer them"
        assert float(counted[0].rsplit(" ", 1)[1]) == 20.0
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels spread connections otherwise")
def test_connections_are_spread_over_the_processes_that_listen() -> None:
    with SharedPort(open_listener("127.0.0.1", 0)) as port, ExitStack() as stack:
        of_workers = [stack.enter_context(pickle.loads(pickle.dumps(port))) for _ in range(3)]
        address = of_workers[0].getsockname()
        for listener in of_workers[:2]:
            listener.listen()
            listener.setblocking(False)
        with pytest.raises(ConfigError, match="cannot be listened on"):
            open_listener(*address)
        for _ in range(64):
            stack.enter_context(socket.create_connection(address, timeout=5))
        accepted = []
        for listener in of_workers[:2]:
            taken = 0
            with suppress(BlockingIOError):
                while True:
                    stack.enter_context(listener.accept()[0])
                    taken += 1
            accepted.append(taken)
    assert sum(accepted) == 64, "none waits for the third, which is not listening"
    assert min(accepted) >= 8


@pytest.mark.skipif(sys.platform != "linux", reason="workers share a listening socket")
def test_workers_monitor_as_one(bundle: Any, tmp_path: Path) -> None:
    """Whichever answers, the series are those of all; an alert that all would raise is sent once."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "rules: {latency: {enabled: false}, errors: {enabled: false}, any: {signal: error_share, above: -1,"
        " clear: -1, summary: a request was answered, todo: nothing}}"
    )
    with receive() as receiver:
        settings = {
            "LIMEN_MONITOR_INTERVAL": "0.2",
            "LIMEN_ALERTS_FILE": str(rules),
            "LIMEN_WEBHOOK_URL": receiver.url,
            "LIMEN_WEBHOOK_SECRET": SECRET.decode(),
        }
        with run_service(str(bundle.path), "--workers", "2", **settings) as (process, address):

            def ask() -> tuple[int, tuple[str, ...], tuple[str, ...]]:
                with Client(address) as client:
                    series, alerts = client.monitoring(), client.alerts()
                    return (
                        sum(series.match.decisions),
                        tuple(alert.id for alert in alerts.alerts if alert.rule == "any"),
                        tuple(rule.rule for rule in alerts.rules if rule.state == "firing"),
                    )

            for _ in range(30):
                with Client(address) as client:
                    client.match([{"id": "item-0"}])
            # both have saved, and both have seen the alert of the one that leads
            while len({answer := ask() for _ in range(12)}) > 1 or answer[0] < 30:
                time.sleep(0.2)
            assert answer[0] == 30
            assert len(answer[1]) == 1
            assert answer[2] == ("any",)
            receiver.wait_for(1)
            time.sleep(1)  # a second delivery would have come by now
            process.send_signal(signal.SIGTERM)
            process.wait(20)
    assert len(receiver.received) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="workers share a listening socket")
def test_workers_end_when_what_started_them_is_killed(bundle: Any) -> None:
    with run_service(str(bundle.path), "--workers", "2") as (process, address):
        process.kill()
        process.wait(10)
        wait_until_refused(address)


def test_a_worker_that_ends_before_it_answers_a_health_check_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    config = uvicorn.Config("no app", workers=1, timeout_worker_healthcheck=5, log_config=None)
    supervisor = Supervisor(config, [])
    worker = multiprocess.Process(config, [])
    supervisor.processes = [worker]
    end = Connection(os.dup(worker.child_conn.fileno()))  # as the process inherits it
    noticed: list[bool] = []

    def send(ping: bytes) -> None:
        Connection.send(worker.parent_conn, ping)
        end.recv()
        end.close()

    def poll(timeout: float) -> bool:
        noticed.append(Connection.poll(worker.parent_conn, timeout))
        return noticed[-1]

    monkeypatch.setattr(worker.parent_conn, "send", send, raising=False)
    monkeypatch.setattr(worker.parent_conn, "poll", poll, raising=False)
    ended = SimpleNamespace(
        is_alive=lambda: True, kill=lambda: None, join=lambda: None, exitcode=STARTUP_FAILURE, pid=1
    )
    worker.process = ended  # type: ignore[assignment]
    supervisor.keep_subprocess_alive()
    assert noticed == [True]
    assert supervisor.should_exit.is_set()


@pytest.mark.skipif(sys.platform != "linux", reason="workers share a listening socket")
def test_workers_that_cannot_load_the_bundle_stop_the_service(bundle: Any, tmp_path: Path) -> None:
    broken = copy_with_a_changed_byte(bundle.path, tmp_path / "broken")
    done = subprocess.run(
        [*COMMAND, str(broken), "--port", "0", "--workers", "2"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "vectors.npy" in done.stderr
    assert "listening" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "worker could not start" in done.stderr.strip().splitlines()[-1]
