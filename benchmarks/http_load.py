"""Sends prepared HTTP requests over many connections and times their answers.

As fast as they are answered it sends them by wrk, where that is installed: a client in Python takes
as much processor time as the server that it measures.
"""

import asyncio
import contextlib
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

__all__ = ["CONNECTIONS", "Flood", "Load", "flood", "has_wrk"]

CONNECTIONS = 200
"""Fewer than the webhooks that the service takes at once."""
SCRIPT = Path(__file__).with_name("flood.lua")
ANSWER_END = b"\r\n\r\nstored\n"
"""How every good answer ends."""


@dataclass(frozen=True, slots=True)
class Flood:
    """What came of sending as fast as answers came."""

    count: int
    """Of good answers."""
    took_s: float
    p50_ms: float
    p99_ms: float
    failed: int
    """Answers that were not good; by a client in Python the first of them ends the process."""


def has_wrk() -> bool:
    """Returns whether wrk is installed."""
    return shutil.which("wrk") is not None


async def flood(port: int, body: bytes, heads: Sequence[bytes], seconds: int) -> Flood:
    """Sends requests for `seconds`, each once the one before it on its connection is answered.

    Begins anew with the first of `heads`, which are equally long, when all were sent.
    """
    if has_wrk():
        return await _flood_by_wrk(port, body, heads, seconds)
    load = Load(body, heads)
    await load.connect(port)
    took_s = await load.flood(seconds)
    return Flood(
        len(load.latencies_s),
        took_s,
        statistics.median(load.latencies_s) * 1e3,
        statistics.quantiles(load.latencies_s, n=100)[98] * 1e3,
        failed=0,
    )


async def _flood_by_wrk(port: int, body: bytes, heads: Sequence[bytes], seconds: int) -> Flood:
    with _file_of(b"".join(heads)) as heads_file, _file_of(body) as body_file:
        wrk = await asyncio.create_subprocess_exec(
            *("wrk", "--threads", "1", "--connections", str(CONNECTIONS)),
            *(
                "--duration",
                str(seconds),
                "--timeout",
                "30s",
                "--script",
                str(SCRIPT),
                f"http://127.0.0.1:{port}/",
            ),
            *("--", heads_file, str(len(heads[0])), body_file),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await wrk.communicate()
    found = json.loads(output.decode().strip().splitlines()[-1])
    return Flood(**{**found, "count": found["count"] - found["failed"]})


@contextlib.contextmanager
def _file_of(content: bytes) -> Iterator[str]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name


class _Connection(asyncio.Protocol):
    """A kept-alive connection with at most one request under way."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._answer = b""
        self._due_at = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no asyncio.Transport, though they have its methods.
        self._transport = cast("asyncio.Transport", transport)

    def send(self, head: bytes, due_at: float) -> None:
        assert self._transport is not None
        self._due_at = due_at
        self._transport.writelines([head, self._load.body])

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if self._answer.endswith(ANSWER_END):
            self._load.answered(self, self._due_at)
        elif not b"HTTP/1.1 200".startswith(self._answer[:12]):
            self._load.fail(self._answer.decode(errors="replace"))
        else:
            return
        self._answer = b""

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.fail(f"connection lost: {exc}")

    def close(self) -> None:
        assert self._transport is not None
        self._transport.abort()


class Load:
    """Sends requests over many connections and times their answers."""

    def __init__(self, body: bytes, heads: Sequence[bytes]) -> None:
        self.body = body
        self.latencies_s: list[float] = []
        self._heads = deque(heads)
        self._connections: list[_Connection] = []
        self._free: deque[_Connection] = deque()
        self._waiting: deque[float] = deque()
        self._ends_at = float("inf")
        self._closed_loop = False
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._failure: str | None = None

    async def connect(self, port: int) -> None:
        """Opens the connections."""
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            _, connection = await loop.create_connection(
                lambda: _Connection(self), "127.0.0.1", port
            )
            self._connections.append(connection)

    async def flood(self, seconds: float) -> float:
        """Sends as fast as answers come, and returns how long it took."""
        self._closed_loop = True
        began = time.perf_counter()
        self._ends_at = began + seconds
        for connection in self._connections:
            self._send(connection, began)
        await self._finish()
        return time.perf_counter() - began

    async def trickle(self, per_s: float, seconds: float) -> None:
        """Sends at a rate, whether answers come or not; a late start counts as waiting."""
        self._free.extend(self._connections)
        began = time.perf_counter()
        for number in range(int(per_s * seconds)):
            due_at = began + number / per_s
            await asyncio.sleep(max(0.0, due_at - time.perf_counter()))
            if self._free:
                self._send(self._free.popleft(), due_at)
            else:
                self._waiting.append(due_at)
        await self._finish()

    def answered(self, connection: _Connection, due_at: float) -> None:
        """Notes a good answer; the connection may be used again."""
        now = time.perf_counter()
        self.latencies_s.append(now - due_at)
        self._in_flight -= 1
        if self._waiting:
            self._send(connection, self._waiting.popleft())
        elif self._closed_loop and now < self._ends_at:
            self._send(connection, now)
        else:
            self._free.append(connection)
            if not self._in_flight:
                self._idle.set()

    def fail(self, why: str) -> None:
        """Notes that an answer was not good, or never came."""
        self._failure = self._failure or why
        self._idle.set()

    def _send(self, connection: _Connection, due_at: float) -> None:
        self._in_flight += 1
        connection.send(self._heads[0], due_at)
        self._heads.rotate(-1)

    async def _finish(self) -> None:
        if self._in_flight:
            self._idle.clear()
            await self._idle.wait()
        if self._failure is not None:
            sys.exit(f"a request failed: {self._failure}")
        for connection in self._connections:
            connection.close()
