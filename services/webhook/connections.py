"""Speaks HTTP by aiohttp, and trusts those who connect less than aiohttp does.

What is no HTTP gets one short answer and is read no further: aiohttp keeps all of it, and repeats
it in its answer. What aiohttp chokes on, as on a host that is no name, is answered like anything
else that nobody asked for, and never leaves a connection open that nobody looks after.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from itertools import islice
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import _ErrInfo
from yarl import URL

__all__ = ["Acknowledgement", "ConnectionServer"]

_NOWHERE = URL("/")


class Acknowledgement(web.Response):
    """An answer that is the same for any number of requests, but for its date.

    One object answers all of them: composing it anew would cost as much as checking a webhook.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text=text)
        body = text.encode()
        self._until_date = (
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nDate: "
        ).encode()
        self._from_date = b"\r\n\r\n" + body

    @property
    def keep_alive(self) -> bool:
        """True: it is for connections that stay open."""
        return True

    async def prepare(self, request: web.BaseRequest) -> None:
        """Sends all of it."""
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("who asked is gone")
        date = rfc822_formatted_time().encode()
        transport.write(self._until_date + date + self._from_date)

    async def write_eof(self, data: bytes = b"") -> None:
        """Does nothing, since all is sent."""

    @staticmethod
    def suits(request: web.BaseRequest) -> bool:
        """Returns whether `request` may be answered so."""
        return request.version == HttpVersion11 and request.keep_alive


class ConnectionServer(web.Server):
    """Makes a connection for whoever connects; tells `found_broken` of who speaks no HTTP."""

    def __init__(self, *arguments: Any, found_broken: Callable[[], None], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._found_broken = found_broken

    def __call__(self) -> web.RequestHandler:
        """Returns a new connection."""
        return _Connection(self._found_broken, self, loop=self._loop, **self._kwargs)

    def _make_request(
        self, message: RawRequestMessage, payload: Any, protocol: Any, writer: Any, task: Any
    ) -> web.BaseRequest:
        parts = (payload, protocol, writer, task, self._loop)
        try:
            return _Request(message, *parts)
        except Exception:  # noqa: BLE001  Whatever a stranger's address makes it raise.
            return _Request(message._replace(url=_NOWHERE, path="/"), *parts)


class _Request(web.BaseRequest):
    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        # What serves, and in which version, is no stranger's business.
        response.headers.popall(hdrs.SERVER, None)


class _Connection(web.RequestHandler):
    __slots__ = ("_found_broken", "_is_broken")

    def __init__(self, found_broken: Callable[[], None], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._found_broken = found_broken
        self._is_broken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._task_handler is not None:
            self._task_handler.add_done_callback(self._abandon)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Goes on reading, if it was paused; aiohttp asks for that after each body it gave away."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def data_received(self, data: bytes) -> None:
        if self._is_broken:
            return
        known = len(self._messages)
        super().data_received(data)
        for place, (message, payload) in enumerate(islice(self._messages, known, None), known):
            if isinstance(message, _ErrInfo):
                status = message.status
            elif message.version < HttpVersion10:  # Or no version at all.
                status = HTTPStatus.BAD_REQUEST
            else:
                continue
            self._is_broken = True
            # Without what was sent, which the error quotes.
            self._messages[place] = (_ErrInfo(status, ValueError(), ""), payload)
            if self.transport is not None:
                self.transport.pause_reading()
            return

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        del exc, message
        if status == HTTPStatus.BAD_REQUEST:
            self._found_broken()
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun already")
        response = web.Response(status=status, text="not a request\n" if status < 500 else None)
        response.force_close()
        return response

    def _abandon(self, task: "asyncio.Task[None]") -> None:
        """Closes a connection whose task has failed, for which nobody else would."""
        failed = not task.cancelled() and task.exception() is not None
        if failed and self.transport is not None:
            self.transport.close()
