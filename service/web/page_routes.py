"""Routes of pages: what goes wrong is a page for a browser, and a problem document for every other client."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute

from common.errors import LimenError
from service.errors.problems import UNAUTHENTICATED, ServiceProblem, to_service_problem
from service.web.pages import render_page

SIGN_IN_PATH = "/dashboard/sign-in"


class PageRoute(APIRoute):
    """A route whose problems are pages, and which leads to the form for a key where one is needed."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint with its dependencies, and with pages for what they raise."""
        handle = super().get_route_handler()

        async def handle_page(request: Request) -> Response:
            try:
                return await handle(request)
            except (ServiceProblem, LimenError) as error:
                if "text/html" not in request.headers.get("accept", ""):
                    raise
                problem = error if isinstance(error, ServiceProblem) else to_service_problem(error)
                return answer_with_page(request, problem)

        return handle_page


def answer_with_page(request: Request, problem: ServiceProblem) -> Response:
    """The page that says what is wrong, or the way to the form for a key."""
    request.state.problem = problem.kind.slug
    if problem.kind is UNAUTHENTICATED:
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"{SIGN_IN_PATH}?next={quote(here, safe='')}", status_code=303)
    page = render_page(request, "problem.html", here="", kind=problem.kind, detail=problem.detail)
    page.status_code = problem.kind.status
    page.headers.update(problem.headers)
    return page
