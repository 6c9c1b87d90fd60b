"""Carries faults out at the answers of the API."""

import math
from collections.abc import Awaitable, Callable
from typing import assert_never

from aiohttp import web

from services.simulator.faults.actions import (
    AnswerAction,
    CancelStatus,
    CreateLate,
    CreateThenDrop,
    CreateThenHang,
    CreateThenStatus,
    Drop,
    Empty200,
    HugeHeaders,
    MalformedJson,
    NoCredit,
    Redirect,
    SlowBytes,
    Status,
    Throttle,
    WebhookBeforeCreateAnswer,
)
from services.simulator.faults.sending import Sleep, drip, error_page, sever
from services.simulator.problems import failure, no_credit, throttled

__all__ = ["spoiled_answer"]

HEADER_BYTES = 8000

Handle = Callable[[], Awaitable[web.Response]]
"""Does what the request asks for and returns the answer."""


async def spoiled_answer(
    request: web.Request,
    handle: Handle,
    action: AnswerAction,
    elsewhere: str,
    sleep: Sleep,
    first_webhook: Callable[[float], Awaitable[None]],
) -> web.StreamResponse:
    """Answers a request as the fault wants it.

    A redirect leads to the same path at the origin `elsewhere`; `first_webhook` returns once the
    first webhook of what was created has been sent, or the time that it takes is over.
    """
    match action:
        case Status():
            return _error(action.status, action.html)
        case Throttle():
            raise throttled(
                action.retry_after_s,
                in_header=action.told_in in ("header", "both"),
                in_body=action.told_in in ("body", "both"),
            )
        case NoCredit():
            raise no_credit()
        case Drop():
            return sever(request)
        case Redirect():
            return web.Response(status=302, headers={"Location": elsewhere + request.raw_path})
        case CreateThenDrop():
            await handle()
            return sever(request)
        case CreateThenHang():
            await handle()
            await sleep(action.hang_s)
            return sever(request)
        case CreateThenStatus() | CancelStatus() as after:
            await handle()
            return _error(after.status, isinstance(after, CreateThenStatus) and after.html)
        case CreateLate():
            await request.read()  # What has been read stays there when the connection goes.
            severed = sever(request)
            await sleep(action.late_s)
            await handle()
            return severed
        case WebhookBeforeCreateAnswer():
            answer = await handle()
            await first_webhook(action.most_s)
            return answer
        case MalformedJson():
            answer = await handle()
            body = _body(answer)
            return web.Response(
                body=body[: len(body) // 2], status=answer.status, headers=answer.headers
            )
        case Empty200():
            await handle()
            return web.Response(status=200)
        case HugeHeaders():
            answer = await handle()
            for number in range(math.ceil(action.size_bytes / HEADER_BYTES)):
                answer.headers[f"X-Padding-{number}"] = "x" * HEADER_BYTES
            return answer
        case SlowBytes():
            return await drip(request, await handle(), action.bytes_per_s, sleep)
        case _:
            assert_never(action)


def _error(status: int, html: bool) -> web.Response:
    if html:
        return error_page(status)
    raise failure(status)


def _body(answer: web.Response) -> bytes:
    body = answer.body
    assert isinstance(body, bytes)
    return body
