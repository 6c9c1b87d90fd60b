"""Answers that HTTP servers do not give by themselves: cut off, dripping, reset."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

__all__ = ["Severed", "cut_off", "drip", "error_page", "sever"]

DRIP_PAUSE_S = 0.05

Sleep = Callable[[float], Awaitable[None]]


class Severed(web.Response):
    """Stands for the answer that nobody gets, because the connection was closed before it."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002
        """Raises what tells the server that nobody listens any more."""
        raise ConnectionResetError("severed on purpose")


def sever(request: web.Request, reset: bool = False) -> Severed:
    """Closes the connection at once, with a reset if so wished."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if reset and connection is not None:
            # Without lingering a close is a reset.
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    return Severed()


async def cut_off(
    request: web.Request, answer: web.Response, sent: bytes, announced: int, reset: bool = False
) -> web.StreamResponse:
    """Answers with `sent` under a `Content-Length` of `announced`, then closes the connection."""
    stream = web.StreamResponse(status=answer.status, headers=answer.headers)
    stream.content_length = announced
    await stream.prepare(request)
    await stream.write(sent)
    await asyncio.sleep(DRIP_PAUSE_S)  # What is still on its way would go with the connection.
    sever(request, reset)
    return stream


async def drip(
    request: web.Request, answer: web.Response, bytes_per_s: float, sleep: Sleep
) -> web.StreamResponse:
    """Answers so slowly, until the client has gone."""
    body = answer.body
    assert isinstance(body, bytes)
    stream = web.StreamResponse(status=answer.status, headers=answer.headers)
    stream.content_length = len(body)
    await stream.prepare(request)
    step = max(1, int(bytes_per_s * DRIP_PAUSE_S))
    for start in range(0, len(body), step):
        part = body[start : start + step]
        await stream.write(part)
        await sleep(len(part) / bytes_per_s)
    await stream.write_eof()
    return stream


def error_page(status: int) -> web.Response:
    """Returns the error page of a proxy that stands before a service."""
    page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>\n"
    return web.Response(status=status, text=page, content_type="text/html")
