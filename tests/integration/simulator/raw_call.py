"""A call over a bare socket, which sees what an HTTP client would hide."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.integration.simulator.harness import SMALL, Running

LIMIT_S = 20.0


@dataclass
class Heard:
    """What came back."""

    content: bytes = b""
    ended_by: str = "close"
    """`close` or `reset`."""
    pieces: int = 0
    first_s: float = 0.0
    """Seconds until the first byte or the end."""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int | None:
        return int(self.content.split(b" ", 2)[1]) if self.content else None

    @property
    def body(self) -> bytes:
        return self.content.partition(b"\r\n\r\n")[2]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def raw_call(
    method: str,
    address: str,
    token: str = "",
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> Heard:
    """Returns all that a server sends until it closes the connection."""
    parts = urlsplit(address)
    assert parts.hostname is not None
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 24)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = {
        "Host": parts.netloc,
        "Connection": "close",
        **({"Authorization": f"Bearer {token}"} if token else {}),
        "Content-Length": str(len(body)),
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
    heard, begun_at = Heard(), time.monotonic()
    try:
        async with asyncio.timeout(LIMIT_S):
            while piece := await reader.read(1 << 20):
                heard.first_s = heard.first_s or time.monotonic() - begun_at
                heard.content += piece
                heard.pieces += 1
    except ConnectionResetError:
        heard.ended_by = "reset"
    finally:
        writer.close()
    heard.first_s = heard.first_s or time.monotonic() - begun_at
    head = heard.content.partition(b"\r\n\r\n")[0].decode("latin-1")
    for line in head.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        heard.headers[name.lower()] = value.strip()
    return heard


async def raw_create(running: Running, prompt: str = "a lake", **more: Any) -> Heard:
    """Returns what comes back to a create of a short video."""
    body = {"input": {"prompt": prompt, "frame_num": 17}, **more}
    address = f"{running.addresses.api}/v1/models/{SMALL}/predictions"
    return await raw_call("POST", address, running.token, json.dumps(body).encode())
