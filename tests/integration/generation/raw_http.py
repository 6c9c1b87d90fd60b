"""A server that answers byte by byte as a test wants, and notes what reached it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

__all__ = ["Heard", "RawServer", "Script", "raw_server", "reply"]

Script = Callable[["Heard", asyncio.StreamWriter], Awaitable[None]]
"""Answers one request; the connection stays open unless the script closes it."""


@dataclass(frozen=True)
class Heard:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    """By name in lower case."""
    body: bytes


@dataclass
class RawServer:
    """What was heard, and how the next requests are answered."""

    script: Script
    port: int = 0
    connections: int = 0
    size_bytes: int = 0
    """All bytes that arrived."""
    heard: list[Heard] = field(default_factory=list)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                request = await self._read(reader)
                self.heard.append(request)
                await self.script(request, writer)
                await writer.drain()
        writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Heard:
        first = await reader.readexactly(1)
        self.size_bytes += 1
        head = first + await reader.readuntil(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        method, path, _ = line.split(" ")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (entry.partition(":") for entry in fields if entry)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.size_bytes += len(head) - 1 + len(body)
        return Heard(method, path, headers, body)


@contextlib.asynccontextmanager
async def raw_server(script: Script) -> AsyncIterator[RawServer]:
    """Runs a server on loopback."""
    server = RawServer(script)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(server.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def reply(
    status: int, body: object = b"", headers: dict[str, str] | None = None, cut_bytes: int = 0
) -> Script:
    """Returns a script that answers with bytes, or anything else as JSON.

    With `cut_bytes` the connection is closed so many bytes before the end that it announced.
    """
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def script(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        fields = {"Content-Length": str(len(content)), "Content-Type": "application/json"}
        lines = [f"{name}: {value}" for name, value in (fields | (headers or {})).items()]
        head = "\r\n".join([f"HTTP/1.1 {status} Because", *lines, "", ""])
        writer.write(head.encode() + content[: len(content) - cut_bytes])
        if cut_bytes:
            await writer.drain()
            writer.close()

    return script
