"""``/dashboard/sign-in``: a key opens a session of the browser; ``/dashboard/sign-out`` ends it."""

from __future__ import annotations

import re
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from service.auth.api_keys import KeyRing, check_own_page, find_key
from service.auth.browser_sessions import BrowserSessions
from service.auth.sign_in_limit import SignInLimit
from service.auth.viewer import find_viewer
from service.errors.problems import BODY_TOO_LARGE, FOREIGN_ORIGIN, ServiceProblem
from service.http.bodies import read_body
from service.state import CurrentState, log_action
from service.web.page_routes import SIGN_IN_PATH, PageRoute
from service.web.pages import render_page

router = APIRouter(include_in_schema=False, route_class=PageRoute)
HOME = "/dashboard"
MOST_FORM_BYTES = 8192
WRONG_KEY = "This is no key of this service: check that all of it was pasted, or ask whoever runs it."
# a page of this service and nothing else
_OWN_PAGE = re.compile(r"/dashboard(?:[/?][^\s\\]{0,2000})?")


@router.get(SIGN_IN_PATH)
async def show_form(request: Request, next: str = HOME) -> Response:  # noqa: A002
    """The form for a key, or the page itself where the browser needs none."""
    if find_viewer(request) is not None:
        return RedirectResponse(_choose_page(next), status_code=303)
    return _render_form(request, next)


@router.post(SIGN_IN_PATH)
async def sign_in(request: Request, state: CurrentState) -> Response:
    """Opens a session for a key, which comes in the body and is kept nowhere."""
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise ServiceProblem(FOREIGN_ORIGIN, "A page of another site sends the form.")
    keyring: KeyRing = request.app.state.keyring
    form = await _read_form(request)
    target = form.get("next", HOME)
    if keyring.open_to_all:
        return RedirectResponse(_choose_page(target), status_code=303)
    limit: SignInLimit = request.app.state.sign_in_limit
    address = "" if request.client is None else request.client.host
    try:
        limit.check(address)
        key = keyring.find(form.get("key", "").strip())
    except ServiceProblem as problem:
        page = _render_form(request, target, problem.detail, problem.kind.status)
        page.headers.update(problem.headers)
        return page
    if key is None:
        limit.count_failure(address)
        return _render_form(request, target, WRONG_KEY, 401)
    sessions: BrowserSessions = request.app.state.sessions
    request.state.actor = key.name
    await log_action(request, state, "sessions.sign-in")
    answer = RedirectResponse(_choose_page(target), status_code=303)
    answer.set_cookie(
        sessions.cookie_name,
        sessions.issue(key.sha256),
        max_age=sessions.seconds,
        httponly=True,
        samesite="strict",
        secure=_is_over_tls(request),
    )
    return answer


@router.post("/dashboard/sign-out")
async def sign_out(request: Request) -> Response:
    """Ends the session of this browser."""
    sessions: BrowserSessions = request.app.state.sessions
    _, session = find_key(request)
    if session is not None:
        form = await _read_form(request)
        check_own_page(request, session, form.get("csrf_token", ""))
    answer = RedirectResponse(SIGN_IN_PATH, status_code=303)
    answer.delete_cookie(sessions.cookie_name, httponly=True, samesite="strict", secure=_is_over_tls(request))
    return answer


@router.get("/dashboard/session")
async def session(request: Request) -> Response:
    """Whether the browser has a session.

    A link on another site brings no cookie of this one along, so the form asks again before it is shown.
    """
    return JSONResponse({"signed_in": find_viewer(request) is not None})


def _is_over_tls(request: Request) -> bool:
    """Whether the browser speaks TLS, with a proxy before the service as a rule: what either says is taken,
    because a cookie that is marked Secure in vain harms nobody but its sender."""
    said = request.url.scheme, request.headers.get("x-forwarded-proto", "")
    return "https" in said or request.headers.get("origin", "").startswith("https://")


def _render_form(request: Request, target: str, problem: str = "", status: int = 200) -> Response:
    page = render_page(request, "sign_in.html", here="", next=_choose_page(target), problem=problem)
    page.status_code = status
    return page


def _choose_page(target: str) -> str:
    """The page to go to after signing in: what was asked for, if it is a page of this service."""
    return target if _OWN_PAGE.fullmatch(target) and not target.startswith(SIGN_IN_PATH) else HOME


async def _read_form(request: Request) -> dict[str, str]:
    """The fields of a form; each once."""

    def check_size(size: int) -> None:
        if size > MOST_FORM_BYTES:
            raise ServiceProblem(BODY_TOO_LARGE, f"The form may have {MOST_FORM_BYTES} bytes.")

    body = await read_body(request, check_size)
    fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=16)
    return {name: values[0] for name, values in fields.items()}
