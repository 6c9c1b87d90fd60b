"""Gives files out and tells what was given of them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

__all__ = ["Given", "WatchedFile"]

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Given:
    """What one answer gave of a file."""

    status: int | None
    """None if the connection ended before the answer did."""
    first_byte: int = 0
    end_byte: int = 0
    """One behind the last byte."""
    size_bytes: int = 0
    """Of the whole file."""


class WatchedFile(web.FileResponse):
    """A file as an answer, in whole or in the part that was asked for."""

    def __init__(self, path: Path, content_type: str, tell: Callable[[Given], None]) -> None:
        super().__init__(path, headers={"Content-Type": content_type})
        self._tell = tell

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Sends the file, and tells what was given when it has gone or cannot go any more."""
        given = Given(None)
        try:
            writer = await super().prepare(request)
            given = self._given(request.method)
        finally:
            self._tell(given)
        return writer

    def _given(self, method: str) -> Given:
        length = self.content_length or 0
        if method == "HEAD" or self.status not in (200, 206):
            return Given(self.status)
        part = _RANGE.fullmatch(self.headers.get("Content-Range", ""))
        if part is None:
            return Given(self.status, 0, length, length)
        return Given(self.status, int(part[1]), int(part[2]) + 1, int(part[3]))
