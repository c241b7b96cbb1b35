"""Routes without FastAPI's overhead: found in one table, with an endpoint that reads its own request."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from common.errors import LimenError
from service.errors.problems import to_service_problem

Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]


class FastRoute(APIRoute):
    """A route without FastAPI's dependency injection.

    The endpoint takes the request alone and checks the key itself (`check_key`); dependencies of its router
    do not run.
    """

    def get_route_handler(self) -> Endpoint:
        """The endpoint itself."""
        handler: Endpoint = self.endpoint
        return handler


class FastRoutes:
    """ASGI app that dispatches fast routes by method and path, and passes everything else to FastAPI.

    FastAPI has seven layers around its routers and asks one router after the other, which takes as long
    as a small search. It has the fast routes as well: it describes them, and refuses other methods.
    """

    def __init__(self, app: ASGIApp, routers: Iterable[APIRouter]) -> None:
        self._app = app
        self._routes = {
            (method, route.path): route
            for router in routers
            for route in router.routes
            if isinstance(route, FastRoute)
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get((scope["method"], scope["path"]))
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        try:
            response: Response = await route.endpoint(Request(scope, receive, send))
        except LimenError as error:
            raise to_service_problem(error) from error
        await response(scope, receive, send)
