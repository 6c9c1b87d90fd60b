"""Says with which methods an address can be used."""

from collections.abc import Sequence

from fastapi import Request
from starlette.routing import Match

from services.web.headers import EVENTS_PATH

__all__ = ["allowed_methods"]

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def allowed_methods(request: Request) -> Sequence[str]:
    """Returns the methods that the address of a request takes.

    The framework itself knows only those of the first of several routes.
    """
    # An address that is described by itself is no example of `/api/generations/{generation_id}`.
    described = request.app.openapi()["paths"].get(request.scope["path"])
    if described is None:
        allowed = [method for method in _METHODS if _is_routed(request, method)]
    else:
        allowed = [method for method in _METHODS if method.lower() in described]
    # Whatever can be got answers HEAD too, except what has no end.
    has_head = "GET" in allowed and request.scope["path"] != EVENTS_PATH
    return ["HEAD", *allowed] if has_head else allowed


def _is_routed(request: Request, method: str) -> bool:
    scope = {**request.scope, "method": method}
    routes = request.app.router.routes
    return any(route.matches(scope)[0] is Match.FULL for route in routes)
