"""Speaks HTTP by aiohttp, and trusts those who connect less than aiohttp does.

What is no HTTP gets one short answer and is read no further: aiohttp keeps all of it, and repeats
it in its answer. What aiohttp chokes on, as on a host that is no name, is answered like anything
else that nobody asked for, and never leaves a connection open that nobody looks after.
"""

import asyncio
from itertools import islice
from typing import Any

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import _ErrInfo
from yarl import URL

__all__ = ["ConnectionServer"]

_NOWHERE = URL("/")


class ConnectionServer(web.Server):
    """Makes a connection for whoever connects."""

    def __call__(self) -> web.RequestHandler:
        """Returns a new connection."""
        return _Connection(self, loop=self._loop, **self._kwargs)

    def _make_request(self, message: RawRequestMessage, *parts: Any) -> web.BaseRequest:
        try:
            return super()._make_request(message, *parts)
        except Exception:  # noqa: BLE001  Whatever a stranger's address makes it raise.
            return super()._make_request(message._replace(url=_NOWHERE, path="/"), *parts)


class _Connection(web.RequestHandler):
    __slots__ = ("_is_broken",)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._is_broken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._task_handler is not None:
            self._task_handler.add_done_callback(self._abandon)

    def data_received(self, data: bytes) -> None:
        if self._is_broken:
            return
        known = len(self._messages)
        super().data_received(data)
        for place, (message, payload) in enumerate(islice(self._messages, known, None), known):
            if isinstance(message, _ErrInfo):
                self._is_broken = True
                # Without what was sent, which the error quotes.
                self._messages[place] = (_ErrInfo(message.status, ValueError(), ""), payload)
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
