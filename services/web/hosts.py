"""Tells under which names this service answers: a page of any other name is not its own."""

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from services.runtime.settings import is_loopback
from services.web.problems import problem
from services.web.refusals import refusal_answer
from services.web.settings import WebSettings

__all__ = ["Hosts", "is_own_origin"]

PROBES = "/healthz/"
"""Asked by machines, under whatever address they know."""


class Hosts:
    """Refuses requests for another host.

    Whoever has a domain can have it lead here, and browsers then take their page for ours.
    """

    def __init__(self, app: ASGIApp, settings: WebSettings) -> None:
        self._app = app
        self._is_loopback = is_loopback(settings.address)
        self._public_name = urlsplit(settings.public_url or "").hostname

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request for this host."""
        if scope["type"] != "http" or scope["path"].startswith(PROBES):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        if all(map(self._is_ours, connection.headers.getlist("host") or [""])):
            await self._app(scope, receive, send)
            return
        detail = (
            f"Requests are answered for {self._public_name or 'localhost'} only; a proxy in front "
            "must pass `Host` on, and REELWORKS_PUBLIC_URL say where people reach it."
        )
        await refusal_answer(connection, problem(421, "WRONG_HOST", detail))(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:  # A bracket.
            return False
        if name is None:
            return False
        return name == self._public_name or (self._is_loopback and is_loopback(f"[{name}]:0"))


def is_own_origin(connection: HTTPConnection, origin: str, public_url: str | None) -> bool:
    """Tells whether a page of this origin is ours, for a request whose host is."""
    public = urlsplit(public_url or "")
    if origin == f"{public.scheme}://{public.netloc}".lower():
        return True
    # A proxy that ends TLS has us see another scheme than the page's.
    return origin.partition("://")[2] == connection.headers.get("host", "").lower()
