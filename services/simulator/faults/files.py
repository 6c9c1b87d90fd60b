"""Carries faults out at files that are fetched."""

import asyncio
from pathlib import Path
from typing import assert_never

from aiohttp import web

from services.simulator.faults.actions import (
    Drop,
    FileAction,
    NotMp4,
    Redirect,
    ResetMidway,
    SlowBytes,
    Status,
    Truncate,
    WrongLength,
    WrongType,
)
from services.simulator.faults.sending import Sleep, cut_off, drip, error_page, sever

__all__ = ["spoiled_file"]

MISSING_BYTES = 1000


async def spoiled_file(
    request: web.Request, path: Path, content_type: str, action: FileAction, elsewhere: str,
    sleep: Sleep,
) -> web.StreamResponse:  # fmt: skip
    """Answers a request for the file at `path` as the fault wants it.

    A redirect leads to the same path at the origin `elsewhere`.
    """
    content = await asyncio.to_thread(path.read_bytes)
    whole = web.Response(body=content, headers={"Content-Type": content_type})
    half = content[: len(content) // 2]
    match action:
        case Status():
            if action.html:
                return error_page(action.status)
            return web.Response(status=action.status)
        case Drop():
            return sever(request)
        case Redirect():
            return web.Response(status=302, headers={"Location": elsewhere + request.raw_path})
        case SlowBytes():
            return await drip(request, whole, action.bytes_per_s, sleep)
        case Truncate():
            return web.Response(body=half, headers={"Content-Type": content_type})
        case WrongLength():
            return await cut_off(request, whole, content, len(content) + MISSING_BYTES)
        case WrongType():
            return web.Response(body=content, content_type="text/html")
        case NotMp4():
            page = error_page(200).body
            return web.Response(body=page, headers={"Content-Type": content_type})
        case ResetMidway():
            return await cut_off(request, whole, half, len(content), reset=True)
        case _:
            assert_never(action)
