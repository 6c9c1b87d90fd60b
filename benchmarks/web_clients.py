"""Browsers for benchmarks of the web service: they take little of the processor themselves."""

import asyncio
import json
import re
import time
from collections.abc import Sequence
from datetime import datetime
from typing import cast

__all__ = ["RestConnection", "StreamReader", "open_streams", "stream_latencies_s"]

OPENED_AT_ONCE = 40
OPEN_S_MAX = 120.0
_CHANGE = re.compile(
    rb'event: generation\ndata: \{"generation_id":"([^"]+)"[^\n]*"update_time":"([^"]+)"'
    rb'[^\n]*"version":([0-9]+)'
)


class RestConnection(asyncio.Protocol):
    """A kept-alive connection with at most one request under way."""

    def __init__(self) -> None:
        self._answer = b""
        self._answered: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, port: int) -> "RestConnection":
        """Returns an open connection."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, "127.0.0.1", port)
        return connection

    async def post(self, path: str, token: str, body: dict[str, str]) -> bytes:
        """Returns the body of the answer, which has to be a good one."""
        content = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        assert self._transport is not None
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(head.encode() + content)
        return await self._answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Notes how to write."""
        # uvloop's transports are no asyncio.Transport, though they have its methods.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Looks whether the answer is whole."""
        self._answer += data
        head, divider, body = self._answer.partition(b"\r\n\r\n")
        if not divider:
            return
        found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert found is not None, head
        if len(body) < int(found[1]):
            return
        self._answer = b""
        assert self._answered is not None
        if head.startswith(b"HTTP/1.1 2"):
            self._answered.set_result(body)
        else:
            self._answered.set_exception(AssertionError((head + body).decode()))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fails what waits."""
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(exc or ConnectionResetError())

    def close(self) -> None:
        """Ends the connection."""
        if self._transport is not None:
            self._transport.close()


class StreamReader(asyncio.Protocol):
    """An open stream that notes when what came; it is understood afterwards."""

    def __init__(self, token: str) -> None:
        self.pieces: list[tuple[float, bytes]] = []
        """When, and what."""
        self.opened = asyncio.get_running_loop().create_future()
        """Done with the first balance, which comes once all is in place."""
        self._token = token
        self._begin = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asks for the stream."""
        self._transport = cast("asyncio.Transport", transport)
        head = f"GET /api/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self._token}"
        self._transport.write(head.encode() + b"\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        """Notes a piece of the stream."""
        self.pieces.append((time.time(), data))
        if not self.opened.done():
            self._begin += data
            if b"event: balance" in self._begin:
                self.opened.set_result(None)
            elif not self._begin.startswith(b"HTTP/1.1 200"):
                self.opened.set_exception(AssertionError(self._begin.decode()))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fails what waits."""
        if not self.opened.done():
            self.opened.set_exception(exc or ConnectionResetError())

    def close(self) -> None:
        """Ends the stream."""
        if self._transport is not None:
            self._transport.abort()


async def open_streams(port: int, tokens: Sequence[str]) -> list[StreamReader]:
    """Returns open streams, one for each token."""
    loop = asyncio.get_running_loop()
    places = asyncio.Semaphore(OPENED_AT_ONCE)

    async def open_one(token: str) -> StreamReader:
        async with places:
            _, reader = await loop.create_connection(lambda: StreamReader(token), "127.0.0.1", port)
            await reader.opened
            return reader

    async with asyncio.timeout(OPEN_S_MAX):
        return await asyncio.gather(*map(open_one, tokens))


def stream_latencies_s(readers: Sequence[StreamReader], since: float) -> list[float]:
    """Returns how long after the change of each generation its event was here."""
    latencies_s = []
    for reader in readers:
        begin = b""
        # A generation comes again when only its place in the queue is another.
        seen = set()
        for moment, piece in reader.pieces:
            content = begin + piece
            end = 0
            for found in _CHANGE.finditer(content):
                generation_id, update_time, version = found.groups()
                changed_at = datetime.fromisoformat(update_time.decode()).timestamp()
                end = found.end()
                if changed_at >= since and (generation_id, version) not in seen:
                    seen.add((generation_id, version))
                    latencies_s.append(moment - changed_at)
            begin = content[end:]
    return latencies_s
