"""No caller can hold the server for long, and the server leaves without cutting anybody off."""

import asyncio
import contextlib
import ipaddress
import json
import logging
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from fastapi import Request
from starlette.responses import StreamingResponse
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from services.web.refusals import BrokenOff
from services.web.server import ConnectionLimits, WebServer, listen
from tests.integration.web.studio import Studio, until

LIMIT_S = 10.0
QUICK = ConnectionLimits(headers_s=0.3, stall_s=0.3, linger_s=0.3, headers_bytes_max=4096)
GET = b"GET /healthz/live HTTP/1.1\r\nHost: localhost\r\n"


@dataclass
class Serving:
    """A server on loopback."""

    server: WebServer
    port: int
    ended: "asyncio.Task[None]"

    async def connect(self) -> "Caller":
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        return Caller(reader, writer)

    @property
    def connections(self) -> int:
        return len(self.server.server_state.connections)

    @property
    def is_paused(self) -> bool:
        """Whether somebody does not read."""
        return any(
            connection.flow.write_paused  # type: ignore[union-attr]  # It speaks HTTP/1.1.
            for connection in self.server.server_state.connections
        )


@dataclass
class Caller:
    """A stranger with a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, content: bytes) -> None:
        self.writer.write(content)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def answer(self) -> bytes:
        """Returns the head of the next answer; its body is thrown away."""
        async with asyncio.timeout(LIMIT_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    await self.reader.readexactly(int(line.partition(b":")[2]))
            return head

    async def problem(self) -> tuple[int, dict[str, Any]]:
        """Returns the status and the problem of the next answer."""
        async with asyncio.timeout(LIMIT_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            (size,) = re.findall(rb"(?i)\r\ncontent-length: ([0-9]+)\r\n", head)
            found = json.loads(await self.reader.readexactly(int(size)))
        assert b"\r\ncontent-type: application/problem+json\r\n" in head
        assert b"\r\nconnection: close\r\n" in head
        assert {"type", "title", "status", "detail", "code", "trace_id"} <= found.keys()
        status = int(head.split()[1])
        assert found["status"] == status
        return status, found

    async def is_cut_off(self) -> bool:
        """Waits for the end of the connection."""
        async with asyncio.timeout(LIMIT_S):
            with contextlib.suppress(ConnectionError):
                while await self.reader.read(65536):
                    pass
        self.writer.close()
        return True


@contextlib.asynccontextmanager
async def serving(
    studio: Studio, limits: ConnectionLimits = QUICK, grace_s: float = 5, proxies: str = ""
) -> AsyncIterator[Serving]:
    with listen("127.0.0.1", 0) as listener:
        server = WebServer(studio.app, limits, grace_s, proxies)
        ended = asyncio.create_task(server.serve([listener]))
        try:
            await until(lambda: server.started)
            yield Serving(server, listener.getsockname()[1], ended)
        finally:
            server.should_exit = True
            await ended


async def endless(ended: asyncio.Event) -> AsyncIterator[bytes]:
    try:
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0)  # As whatever reads from elsewhere, it lets others run.
    finally:
        ended.set()


async def test_an_answer_names_no_server(lobby: Studio) -> None:
    async with serving(lobby) as running:
        caller = await running.connect()
        await caller.send(GET + b"\r\n")

        head = (await caller.answer()).lower()

        assert head.startswith(b"http/1.1 200")
        assert b"\r\ndate: " in head
        assert b"server:" not in head
        assert b"uvicorn" not in head


@pytest.mark.parametrize("begun", [b"", b"GET", GET, b"\r\n", b"\r\n\r\n"])
async def test_who_does_not_ask_is_cut_off(lobby: Studio, begun: bytes) -> None:
    async with serving(lobby) as running:
        caller = await running.connect()
        await caller.send(begun)

        assert await caller.is_cut_off()
        assert running.connections == 0


async def test_who_sends_a_byte_now_and_then_is_cut_off_too(lobby: Studio) -> None:
    async with serving(lobby) as running:
        caller = await running.connect()
        began = time.monotonic()

        async def trickle() -> None:
            for byte in GET * 100:
                await caller.send(bytes([byte]))
                await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())
        assert await caller.is_cut_off()
        trickling.cancel()

        assert time.monotonic() - began < 3


async def test_a_second_request_has_its_own_time(lobby: Studio) -> None:
    async with serving(lobby) as running:
        caller = await running.connect()
        for _ in range(3):
            await caller.send(GET + b"\r\n")
            assert (await caller.answer()).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.2)

        await caller.send(b"GET /he")

        assert await caller.is_cut_off()


@pytest.mark.parametrize("is_whole", [True, False])
async def test_large_headers_are_refused(lobby: Studio, is_whole: bool) -> None:
    async with serving(lobby) as running:
        caller = await running.connect()
        end = b"\r\n\r\n" if is_whole else b""
        await caller.send(GET + b"X-Large: " + b"x" * 5000 + end)

        status, found = await caller.problem()

        assert (status, found["code"], found["limit"]) == (431, "HEADERS_TOO_LARGE", 4096)
        assert await caller.is_cut_off()


@pytest.mark.parametrize("content", [b"\x16\x03\x01\x00\r\n\r\n", b"GET\r\n\r\n", b"x" * 100])
async def test_what_is_no_http_is_refused(lobby: Studio, content: bytes) -> None:
    async with serving(lobby) as running:
        caller = await running.connect()
        await caller.send(content)

        status, found = await caller.problem()

        assert (status, found["code"]) == (400, "MALFORMED_REQUEST")
        assert await caller.is_cut_off()


async def test_many_small_headers_are_large_too(lobby: Studio) -> None:
    async with serving(lobby) as running:
        caller = await running.connect()
        await caller.send(GET + b"".join(b"X-%d: x\r\n" % n for n in range(700)) + b"\r\n")

        assert (await caller.answer()).startswith(b"HTTP/1.1 431")


async def test_a_body_that_is_refused_may_still_come_for_a_moment(lobby: Studio) -> None:
    async with serving(lobby) as running:
        caller = await running.connect()
        await caller.send(
            b"POST /api/sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 200000\r\n\r\n" + b"x" * 1000
        )

        assert (await caller.answer()).startswith(b"HTTP/1.1 413")
        await caller.send(b"x" * 199_000)
        await caller.send(GET + b"\r\n")
        assert (await caller.answer()).startswith(b"HTTP/1.1 200")

        await caller.send(
            b"POST /api/sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n"
        )
        assert (await caller.answer()).startswith(b"HTTP/1.1 413")
        assert await caller.is_cut_off()


async def test_who_does_not_read_the_answer_is_cut_off(lobby: Studio) -> None:
    ended = asyncio.Event()

    @lobby.app.get("/endless")
    async def stream() -> StreamingResponse:
        return StreamingResponse(endless(ended))

    async with serving(lobby) as running:
        caller = await running.connect()
        await caller.send(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")

        async with asyncio.timeout(LIMIT_S):
            await ended.wait()
        await until(lambda: running.connections == 0)
        caller.writer.close()


async def test_requests_that_are_sent_ahead_end_the_connection_and_are_not_read(
    lobby: Studio, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun: list[bytes] = []

    class Counting(RequestResponseCycle):
        def __init__(self, **given: Any) -> None:
            begun.append(given["scope"]["raw_path"])
            super().__init__(**given)

    monkeypatch.setattr("uvicorn.protocols.http.httptools_impl.RequestResponseCycle", Counting)
    ahead = GET + b"\r\n"
    async with serving(lobby, replace(QUICK, headers_bytes_max=10_000_000)) as running:
        caller = await running.connect()
        await caller.send(ahead * (250_000 // len(ahead)))

        assert await caller.is_cut_off()
        await until(lambda: running.connections == 0)

    assert begun == [b"/healthz/live"]
    assert not [line for line in caplog.records if line.levelno >= logging.ERROR]


async def test_who_does_not_read_cannot_stay_by_sending_the_next_request(lobby: Studio) -> None:
    ended = asyncio.Event()

    @lobby.app.get("/endless")
    async def stream() -> StreamingResponse:
        return StreamingResponse(endless(ended))

    async with serving(lobby, replace(QUICK, stall_s=60)) as running:
        caller = await running.connect()
        await caller.send(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: running.is_paused)

        await caller.send(GET)

        await until(lambda: running.connections == 0)
        async with asyncio.timeout(LIMIT_S):
            await ended.wait()
        caller.writer.close()


async def test_streams_that_were_closed_behind_a_request_give_their_places_back(
    studio: Studio,
) -> None:
    async with serving(studio, replace(QUICK, stall_s=60)) as running:
        caller = await running.connect()
        await caller.send(
            b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n"
            b"Authorization: Bearer %s\r\n\r\n" % studio.token().encode()
        )
        assert (await caller.answer()).startswith(b"HTTP/1.1 200")

        await caller.send(GET + b"\r\n")
        caller.writer.close()

        await until(lambda: studio.parts.limits.streams == 0)


async def test_an_answer_that_breaks_off_is_logged_by_who_knows_why(
    lobby: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"begun"
        raise BrokenOff

    @lobby.app.get("/broken")
    async def stream() -> StreamingResponse:
        return StreamingResponse(broken())

    async with serving(lobby) as running:
        caller = await running.connect()
        await caller.send(b"GET /broken HTTP/1.1\r\nHost: localhost\r\n\r\n")

        async with asyncio.timeout(LIMIT_S):
            answer = await caller.reader.read()

    assert b"begun" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    assert not [line for line in caplog.records if line.levelno >= logging.ERROR]


async def test_only_so_many_connections_are_held(lobby: Studio) -> None:
    async with serving(lobby, replace(QUICK, connections_max=3, headers_s=60)) as running:
        held = [await running.connect() for _ in range(3)]
        for caller in held:
            await caller.send(GET)
        await until(lambda: running.connections == 3)

        assert await (await running.connect()).is_cut_off()

        await held[0].send(b"\r\n")
        assert (await held[0].answer()).startswith(b"HTTP/1.1 200")
        held[1].writer.close()
        await until(lambda: running.connections == 2)
        other = await running.connect()
        await other.send(GET + b"\r\n")
        assert (await other.answer()).startswith(b"HTTP/1.1 200")
        for caller in (*held, other):
            caller.writer.close()


async def test_one_address_holds_less_than_all(
    lobby: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = replace(QUICK, connections_per_address=2, headers_s=60)
    async with serving(lobby, limits) as running:
        # On loopback there is only this machine, which is trusted: callers are given addresses.
        hosts = iter(["192.0.2.1"] * 3 + ["192.0.2.2", "10.0.0.1", "10.0.0.1", "10.0.0.1"])
        monkeypatch.setattr(
            "uvicorn.protocols.http.httptools_impl.get_remote_addr", lambda _: (next(hosts), 1)
        )
        running.server.config.places.limits = replace(  # type: ignore[attr-defined]  # Ours has.
            limits, trusted_proxies=(ipaddress.ip_network("10.0.0.0/8"),)
        )

        callers = [await running.connect() for _ in range(7)]

        assert await callers[2].is_cut_off()
        for number in (0, 1, 3, 4, 5, 6):
            await callers[number].send(GET + b"\r\n")
            assert (await callers[number].answer()).startswith(b"HTTP/1.1 200"), number
            callers[number].writer.close()


@pytest.mark.parametrize(
    ("proxies", "address"), [("127.0.0.1", "198.51.100.7"), ("10.0.0.0/8", "127.0.0.1"), ("", "")]
)
async def test_only_a_configured_proxy_says_who_calls(
    lobby: Studio, proxies: str, address: str
) -> None:
    seen: list[str] = []

    @lobby.app.get("/who")
    async def who(request: Request) -> None:
        assert request.client is not None
        seen.append(request.client.host)

    async with serving(lobby, proxies=proxies) as running:
        caller = await running.connect()
        await caller.send(
            b"GET /who HTTP/1.1\r\nHost: localhost\r\n"
            b"X-Forwarded-For: 203.0.113.9, 198.51.100.7\r\n\r\n"
        )
        await caller.answer()

    assert seen == [address or "127.0.0.1"]


async def test_what_is_under_way_ends_before_it_leaves(lobby: Studio) -> None:
    arrived, goes_on = asyncio.Event(), asyncio.Event()

    @lobby.app.get("/slow")
    async def slow() -> str:
        arrived.set()
        await goes_on.wait()
        return "done"

    async with serving(lobby) as running:
        caller, idle = await running.connect(), await running.connect()
        await idle.send(GET + b"\r\n")
        await idle.answer()
        await caller.send(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await arrived.wait()

        running.server.should_exit = True
        assert await idle.is_cut_off()
        assert lobby.parts.draining.is_set()
        goes_on.set()

        head = await caller.answer()
        assert head.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in head.lower()
        async with asyncio.timeout(LIMIT_S):
            await running.ended


async def test_streams_and_readers_that_stand_still_do_not_keep_it(lobby: Studio) -> None:
    async def until_it_leaves() -> AsyncIterator[bytes]:
        yield b"begun"
        await lobby.parts.draining.wait()
        yield b"bye"

    @lobby.app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(until_it_leaves())

    @lobby.app.get("/endless")
    async def flood() -> StreamingResponse:
        return StreamingResponse(endless(asyncio.Event()))

    async with serving(lobby, replace(QUICK, stall_s=60), grace_s=30) as running:
        callers = [await running.connect() for _ in range(10)]
        for caller in callers[:-1]:
            await caller.send(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await caller.reader.readuntil(b"begun")
        await callers[-1].send(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: running.is_paused)
        began = time.monotonic()

        running.server.should_exit = True
        await running.ended

        assert time.monotonic() - began < 2
        for caller in callers[:-1]:
            assert b"bye" in await caller.reader.read()
            caller.writer.close()
        callers[-1].writer.close()


async def test_a_user_has_so_many_streams_and_gets_back_what_is_closed(studio: Studio) -> None:
    ask = (
        "GET /api/events HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {studio.token()}\r\n\r\n"
    ).encode()
    limit = studio.parts.settings.streams_per_user
    async with serving(studio, replace(QUICK, stall_s=60)) as running:
        callers = [await running.connect() for _ in range(limit + 1)]
        for caller in callers[:-1]:
            await caller.send(ask)
            assert (await caller.answer()).startswith(b"HTTP/1.1 200")
        await callers[-1].send(ask)
        refused = await callers[-1].answer()
        assert refused.startswith(b"HTTP/1.1 429")
        assert b"retry-after: 30" in refused

        callers[0].writer.close()
        await until(lambda: studio.parts.limits.streams == limit - 1)

        await callers[-1].send(ask)
        assert (await callers[-1].answer()).startswith(b"HTTP/1.1 200")
        for caller in callers[1:]:
            caller.writer.close()
        await until(lambda: studio.parts.limits.streams == 0)
