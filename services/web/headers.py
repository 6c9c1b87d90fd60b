"""Gives every answer an id and the headers that keep browsers from being talked into anything."""

import time
from collections.abc import Sequence
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from services.runtime.telemetry import get_logger
from services.runtime.tracing import CallSpan, begin_request
from services.web.metrics import METHODS, WebMetrics

__all__ = [
    "DOCS_PATH",
    "EVENTS_PATH",
    "SecurityHeaders",
    "add_header",
    "content_policy",
    "trace_id_of",
]

DOCS_PATH = "/docs"
DOCS_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
"""The documentation's page has its script in it; nothing that people wrote is ever shown there."""
EVENTS_PATH = "/api/events"
PROBES_PATH = "/healthz/"
FAILURE = 500
"""From this status on, it is we who failed."""

logger = get_logger(__name__)


def content_policy(media_origins: Sequence[str]) -> str:
    """Returns what the page may load and from where, for `Content-Security-Policy`."""
    elsewhere = "".join(f" {origin}" for origin in media_origins)
    return (
        f"default-src 'self'; img-src 'self' blob:{elsewhere}; media-src 'self'{elsewhere}; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


def add_header(connection: HTTPConnection, name: str, value: str) -> None:
    """Has the answer carry a header, whichever answer it will be."""
    added: list[tuple[bytes, bytes]] = connection.scope["state"].setdefault("added_headers", [])
    added.append((name.lower().encode("ascii"), value.encode("latin-1")))


def trace_id_of(connection: HTTPConnection) -> str:
    """Returns the id under which the log speaks of a request."""
    trace_id: str = connection.scope["state"]["trace_id"]
    return trace_id


class SecurityHeaders:
    """The outermost layer of the app. It holds nothing back, so streams stay streams."""

    def __init__(
        self,
        app: ASGIApp,
        media_origins: Sequence[str] = (),
        metrics: WebMetrics | None = None,
    ) -> None:
        self._app = app
        self._metrics = metrics or WebMetrics()
        self._page_policy = content_policy(media_origins).encode()
        self._docs_policy = DOCS_POLICY.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request with the headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # A stream lasts for as long as somebody looks, and probes come all the time.
        is_stream = scope["path"] == EVENTS_PATH
        is_told = not is_stream and not scope["path"].startswith(PROBES_PATH)
        span = begin_request(scope["method"], is_told=is_told)
        answer = _Answer(send, scope, self._policy(scope["path"]), span.trace_id)
        inner: dict[str, Any] = dict(scope)
        # A stream of events has no end, and no length that HEAD could tell.
        if scope["method"] == "HEAD" and not is_stream:
            inner["method"] = "GET"
            inner["state"]["is_head"] = answer.is_head = True
        began = time.monotonic()
        with bound_contextvars(trace_id=answer.trace_id):
            try:
                await self._app(inner, receive, answer.send)
            finally:
                took_s = time.monotonic() - began
                if is_told:
                    route = getattr(inner.get("route"), "path", None)
                    self._metrics.answered(route, scope["method"], answer.status, took_s)
                    _tell(span, route, scope["method"], answer.status)
                span.end()
                logger.debug(
                    "answered",
                    method=scope["method"],
                    path=scope["path"],
                    status=answer.status,
                    milliseconds=round(took_s * 1000, 1),
                )

    def _policy(self, path: str) -> bytes:
        is_docs = path == DOCS_PATH or path.startswith(DOCS_PATH + "/")
        return self._docs_policy if is_docs else self._page_policy


def _tell(span: CallSpan, route: str | None, method: str, status: int) -> None:
    known = method if method in METHODS else "HTTP"
    span.rename(f"{known} {route}" if route else known)
    span.tell(
        http__request__method=known, http__route=route or "", http__response__status_code=status
    )
    if status >= FAILURE:
        span.fail(str(status))


class _Answer:
    """One answer on its way out."""

    def __init__(self, send: Send, scope: Scope, policy: bytes, trace_id: str) -> None:
        state = scope.setdefault("state", {})
        self.trace_id = state["trace_id"] = trace_id
        self.status = 0
        self.is_head = False
        self._send = send
        self._state = state
        self._is_api = scope["path"].startswith("/api/")
        self._policy = policy

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": self._headers(list(message.get("headers", ())))}
        elif message["type"] == "http.response.body" and self.is_head:
            if message.get("more_body"):
                return
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    def _headers(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        given = {name.lower() for name, _ in headers}
        own = [
            (b"content-security-policy", self._policy),
            (b"referrer-policy", b"same-origin"),
            (b"x-content-type-options", b"nosniff"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"cross-origin-resource-policy", b"same-origin"),
        ]
        if self._is_api:
            own.append((b"cache-control", b"no-store"))
        # What a route says for itself stands.
        headers += [(name, value) for name, value in own if name not in given]
        headers += self._state.get("added_headers", ())
        headers.append((b"x-request-id", self.trace_id.encode()))
        return headers
