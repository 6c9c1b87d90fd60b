"""Stands between two processes as the network does, and can be told to cut, delay or swallow."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence

from tests.chaos.stack.plan import Mode

CHUNK_BYTES = 65_536
SLOW_S = 0.15
"""By how much each chunk is late on a slow link."""
CONNECT_S_MAX = 5.0


class Link:
    """A port that leads to another, or to each of several in turn."""

    def __init__(self, name: str, upstreams: Sequence[str]) -> None:
        self.name = name
        self.upstreams = list(upstreams)
        """Addresses that may be joined while the link is open."""
        self.mode = Mode.PASSING
        self.address = ""
        self._turn = itertools.count()
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Begins to listen, on a port of its own that stays."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """Stops to listen and cuts what is left."""
        if self._server is not None:
            self._server.close()
        self._cut()

    def change(self, mode: Mode) -> None:
        """Changes what happens to everything on the link from now on."""
        was, self.mode = self.mode, mode
        # What was swallowed is missing, so those connections are of no use any more.
        if mode is Mode.CUT or was is Mode.SILENT:
            self._cut()

    def _cut(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if self.mode is Mode.CUT:
                return
            upstream = await self._connect()
            if upstream is None:
                return
            there, back = upstream
            self._open.add(back)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._pump(reader, back))
                    tasks.create_task(self._pump(there, writer))
            except* OSError:
                pass  # Somebody left without a word, which is what this is about.
            finally:
                self._open.discard(back)
                back.transport.abort()
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """Returns a connection to the next that is there, as a balancer does; None if none is."""
        first = next(self._turn)
        for number in range(len(self.upstreams)):
            host, _, port = self.upstreams[(first + number) % len(self.upstreams)].rpartition(":")
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(CONNECT_S_MAX):
                    return await asyncio.open_connection(host, int(port))
        return None

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            if self.mode is Mode.SILENT:
                continue
            if self.mode is Mode.SLOW:
                await asyncio.sleep(SLOW_S)
            writer.write(chunk)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()


@contextlib.asynccontextmanager
async def opened_links(links: Sequence[Link]) -> AsyncIterator[dict[str, Link]]:
    """Opens links, and closes them at the end."""
    try:
        for link in links:
            await link.open()
        yield {link.name: link for link in links}
    finally:
        for link in links:
            link.close()
