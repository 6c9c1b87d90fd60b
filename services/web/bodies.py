"""Bounds the bodies of requests: how large they may be, and how long they may take."""

import asyncio
from http import HTTPMethod

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.web.problems import Problem, problem
from services.web.refusals import RefusedBody, refusal_answer

__all__ = ["UPLOAD_PATHS", "BodyLimits"]

UPLOAD_PATHS = ("/api/uploads", "/api/generation/image-to-video")
"""Where images are taken."""


class BodyLimits:
    """Refuses a body that says it is too large, and stops one that turns out to be.

    Nothing of it is kept here: a handler that reads it piece by piece gets it so.
    """

    def __init__(
        self, app: ASGIApp, *, bytes_max: int, upload_bytes_max: int, limit_s: float
    ) -> None:
        self._app = app
        self._bytes_max = bytes_max
        self._upload_bytes_max = upload_bytes_max
        self._limit_s = limit_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request whose body is within the limits."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_upload = scope["method"] == HTTPMethod.POST and scope["path"] in UPLOAD_PATHS
        bytes_max = self._upload_bytes_max if is_upload else self._bytes_max
        connection = HTTPConnection(scope)
        declared = connection.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > bytes_max:
            # The connection stays: closed at once, its sender would not see why. The server throws
            # away what still comes, for as long as it lingers.
            await refusal_answer(connection, _too_large(bytes_max))(scope, receive, send)
            return
        body = _Body(receive, bytes_max, self._limit_s)
        await self._app(scope, body.receive, send)


class _Body:
    def __init__(self, receive: Receive, bytes_max: int, limit_s: float) -> None:
        self._receive = receive
        self._bytes_max = bytes_max
        self._limit_s = limit_s
        self._bytes = 0
        self._ends_at = 0.0
        self._is_whole = False

    async def receive(self) -> Message:
        """Returns the next piece; raises RefusedBody when it is too much, or too slow."""
        if self._is_whole:  # What is awaited now is that the caller leaves.
            return await self._receive()
        now = asyncio.get_running_loop().time()
        self._ends_at = self._ends_at or now + self._limit_s
        try:
            async with asyncio.timeout_at(self._ends_at):
                message = await self._receive()
        except TimeoutError:
            detail = f"The body took longer than {self._limit_s:g} s."
            raise RefusedBody(problem(408, "BODY_TOO_SLOW", detail)) from None
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._bytes_max:
            raise RefusedBody(_too_large(self._bytes_max))
        self._is_whole = not message.get("more_body", False)
        return message


def _too_large(bytes_max: int) -> Problem:
    detail = f"The body has more than {bytes_max} bytes."
    return problem(413, "BODY_TOO_LARGE", detail, metadata={"limit": bytes_max})
