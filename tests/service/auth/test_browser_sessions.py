"""Sessions of browsers: what a cookie may do, what it may not, and when it is over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.auth import browser_sessions
from service.auth.api_keys import create_key, revoke_keys
from service.auth.browser_sessions import BrowserSessions
from service.auth.sign_in_limit import MOST_ADDRESSES, SignInLimit
from service.errors.problems import ServiceProblem
from tests.service.bundles import ServiceBundle

HTML = {"Accept": "text/html"}


@contextmanager
def sign_in(address: str, secret: str) -> Iterator[httpx.Client]:
    """A browser that signed in, with its cookie."""
    with httpx.Client(base_url=address, headers=HTML) as browser:
        answer = browser.post("/dashboard/sign-in", data={"key": secret})
        assert answer.status_code == 303, answer.text
        yield browser


def read_token(browser: httpx.Client) -> str:
    return browser.get("/dashboard").text.partition('name="csrf-token" content="')[2].partition('"')[0]


def test_a_cookie_has_the_scope_of_its_key(start: Any, bundle: ServiceBundle, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    writer, admin = (create_key(file, scope, scope) for scope in ("write", "admin"))  # type: ignore[arg-type]
    address = start(bundle.path, data=tmp_path / "data", api_keys_file=file)
    item = {"items": [{"id": "new", "label": "a", "vector": bundle.get_vector(0)}]}
    with sign_in(address, writer) as browser:
        assert browser.get("/v1/info").status_code == 200
        token = {"X-CSRF-Token": read_token(browser)}
        assert (
            browser.post("/v1/match", json={"queries": [{"id": "item-0"}]}, headers=token).status_code == 200
        )
        assert browser.put("/v1/items", json=item, headers=token).status_code == 200
        point = bundle.points["match"].id
        refused = browser.post(f"/v1/operating-points/{point}/activate", headers=token)
        assert (refused.status_code, refused.json()["type"]) == (403, "/problems/forbidden")
        # a header wins over the cookie
        as_admin = {"Authorization": f"Bearer {admin}"}
        assert browser.post(f"/v1/operating-points/{point}/activate", headers=as_admin).status_code == 200
        assert browser.get("/v1/info", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_a_change_without_the_pages_token_is_refused(
    start: Any, bundle: ServiceBundle, tmp_path: Path
) -> None:
    file = tmp_path / "keys.json"
    secret = create_key(file, "admin", "admin")
    address = start(bundle.path, data=tmp_path / "data", api_keys_file=file)
    body = {"queries": [{"id": "item-0"}]}
    with sign_in(address, secret) as browser, sign_in(address, secret) as other:
        own = read_token(browser)
        for headers in (
            {},
            {"X-CSRF-Token": ""},
            {"X-CSRF-Token": read_token(other)},
            {"X-CSRF-Token": own[:-1]},
        ):
            answer = browser.post("/v1/match", json=body, headers=headers)
            assert (answer.status_code, answer.json()["type"]) == (403, "/problems/csrf"), headers
        for site in ("cross-site", "same-site"):
            answer = browser.post(
                "/v1/match", json=body, headers={"X-CSRF-Token": own, "Sec-Fetch-Site": site}
            )
            assert (answer.status_code, answer.json()["type"]) == (403, "/problems/foreign-origin")
        assert browser.post("/v1/match", json=body, headers={"X-CSRF-Token": own}).status_code == 200
        assert browser.post("/dashboard/sign-out", data={"csrf_token": "x"}).status_code == 403
        assert browser.get("/v1/info").status_code == 200, "another site cannot sign anybody out"
        assert browser.post("/dashboard/sign-out", data={"csrf_token": own}).status_code == 303
        assert browser.get("/v1/info").status_code == 401


def test_pages_lead_to_the_form_and_back(start: Any, bundle: ServiceBundle, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    secret = create_key(file, "reader", "read")
    address = start(bundle.path, api_keys_file=file)
    asked = httpx.get(f"{address}/dashboard/threshold?endpoint=verify", headers=HTML)
    assert asked.status_code == 303
    assert asked.headers["location"] == "/dashboard/sign-in?next=%2Fdashboard%2Fthreshold%3Fendpoint%3Dverify"
    assert httpx.get(f"{address}/dashboard").status_code == 401, "a program gets a problem, no form"
    form = httpx.get(address + asked.headers["location"], headers=HTML)
    assert 'value="/dashboard/threshold?endpoint=verify"' in form.text
    with httpx.Client(base_url=address, headers=HTML) as browser:
        for target, leads_to in (
            ("/dashboard/threshold?endpoint=verify", "/dashboard/threshold?endpoint=verify"),
            ("https://evil.example/", "/dashboard"),
            ("//evil.example", "/dashboard"),
            ("/dashboard\\evil.example", "/dashboard"),
            ("/dashboard.evil.example", "/dashboard"),
            ("/dashboard/sign-in", "/dashboard"),
        ):
            answer = browser.post("/dashboard/sign-in", data={"key": secret, "next": target})
            assert (answer.status_code, answer.headers["location"]) == (303, leads_to)
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert "max-age=43200" in cookie
        assert secret.lower() not in cookie
        assert browser.get("/dashboard/sign-in").headers["location"] == "/dashboard"
        assert "; secure" not in cookie
        for headers in ({"X-Forwarded-Proto": "https"}, {"Origin": "https://limen.example"}):
            answer = browser.post("/dashboard/sign-in", data={"key": secret}, headers=headers)
            assert "; secure" in answer.headers["set-cookie"].lower(), headers
    over = httpx.post(
        f"{address}/dashboard/sign-in", data={"key": secret}, headers={**HTML, "Sec-Fetch-Site": "cross-site"}
    )
    assert over.status_code == 403, "another site cannot sign a browser in"
    large = httpx.post(f"{address}/dashboard/sign-in", data={"key": "x" * 20_000})
    assert large.status_code == 413


def test_wrong_keys_are_limited_and_never_shown(
    start: Any, bundle: ServiceBundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.json"
    secret = create_key(file, "reader", "read")
    address = start(bundle.path, api_keys_file=file, max_wrong_keys=3)
    for _ in range(3):
        answer = httpx.post(f"{address}/dashboard/sign-in", data={"key": "limen_guess"}, headers=HTML)
        assert answer.status_code == 401
        assert "limen_guess" not in answer.text
    for key in ("limen_guess", secret):
        answer = httpx.post(f"{address}/dashboard/sign-in", data={"key": key}, headers=HTML)
        assert answer.status_code == 429, "which key is right cannot be told either"
        assert 0 < int(answer.headers["retry-after"]) <= 60
    assert httpx.get(f"{address}/v1/info", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
    assert "limen_guess" not in caplog.text
    assert secret not in caplog.text


def test_a_revoked_key_ends_its_sessions(start: Any, bundle: ServiceBundle, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    kept, gone = create_key(file, "kept", "read"), create_key(file, "gone", "read")
    address = start(bundle.path, api_keys_file=file)
    with sign_in(address, kept) as first, sign_in(address, gone) as second:
        revoke_keys(file, "gone")
        assert first.get("/v1/info").status_code == 200
        assert second.get("/v1/info").status_code == 401


def test_without_keys_nobody_signs_in(address: str) -> None:
    assert httpx.get(f"{address}/dashboard/sign-in", headers=HTML).headers["location"] == "/dashboard"
    page = httpx.get(f"{address}/dashboard", headers=HTML).text
    assert "csrf-token" not in page
    assert "Sign out" not in page


def test_a_cookie_is_bound_to_service_key_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions, twin, other = (BrowserSessions(key, 3600) for key in (b"a" * 32, b"a" * 32, b"b" * 32))
    digest = "0" * 64
    cookie = sessions.issue(digest)
    found = sessions.read(cookie, ["1" * 64, digest])
    assert found is not None
    assert found == twin.read(cookie, [digest]), "another worker of the same service reads it"
    assert sessions.read(cookie, []) is None
    assert sessions.read(cookie, ["1" * 64]) is None
    assert other.read(cookie, [digest]) is None
    assert other.cookie_name != sessions.cookie_name
    for position in range(0, len(cookie), 7):
        changed = cookie[:position] + ("A" if cookie[position] != "A" else "B") + cookie[position + 1 :]
        assert sessions.read(changed, [digest]) is None
    for forged in ("", "x", "ä", "=" * 40, cookie * 2):
        assert sessions.read(forged, [digest]) is None
    now = browser_sessions.time()
    monkeypatch.setattr(browser_sessions, "time", lambda: now + 3599)
    assert sessions.read(cookie, [digest]) is not None
    monkeypatch.setattr(browser_sessions, "time", lambda: now + 3602)
    assert sessions.read(cookie, [digest]) is None


def test_the_limit_forgets_and_remembers_so_many_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("service.auth.sign_in_limit.monotonic", lambda: clock[0])
    limit = SignInLimit(2)
    limit.count_failure("a")
    limit.check("a")
    limit.count_failure("a")
    with pytest.raises(ServiceProblem, match="try again in 60 s"):
        limit.check("a")
    limit.check("b")
    clock[0] += 61
    limit.check("a")
    for number in range(2 * MOST_ADDRESSES):
        limit.count_failure(str(number))
    assert len(limit._failures) == MOST_ADDRESSES
