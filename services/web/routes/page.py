"""Serves the studio page, whose files carry the hash of them all in their address."""

import gzip
import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

from fastapi import APIRouter, Request, Response

from services.web.problems import Problem, Refused

__all__ = ["Page", "PageFile", "StaticFiles", "read_page", "router", "view"]

HASH_CHARACTERS = 16
INDEX = "index.html"
PLACE = "/static/current/"
"""How `index.html` refers to its files; served, it names the folder of the hash instead."""
VIEWS = ("/", "/history", "/statement", "/settings")
"""Paths that the page itself tells apart; each is answered with the page."""
CONTENT_TYPES = {".js": "text/javascript", ".webmanifest": "application/manifest+json"}
"""What operating systems disagree about."""

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file as it is sent."""

    content: bytes
    packed: bytes | None
    """The same by gzip; None if that is no smaller."""
    content_type: str
    etag: str


@dataclass(frozen=True, slots=True)
class StaticFiles:
    """All files of the page, by their path in its folder."""

    folder_hash: str
    """Changes when any of them does."""
    files: Mapping[str, PageFile]


@dataclass(frozen=True, slots=True)
class Page:
    """The page and what belongs to it."""

    index: PageFile
    static: StaticFiles


@cache
def read_page() -> Page:
    """Returns the page of this installation, which does not change while a process lives."""
    contents = dict(_contents(resources.files("services.web").joinpath("static")))
    folder_hash = _digest(b"".join(k.encode() + b"\0" + v for k, v in sorted(contents.items())))
    index = contents.pop(INDEX).decode()
    # Without these a browser learns of a module only when it has read the one that imports it.
    preloads = "".join(
        f'<link rel="modulepreload" href="{PLACE}{path}">\n    '
        for path in sorted(contents)
        if path.startswith("js/") and path != "js/appearance.js"
    )
    index = index.replace("<!-- modules -->", preloads.rstrip())
    served = index.replace(PLACE, f"/static/{folder_hash}/").encode()
    files = {path: _file(path, content) for path, content in contents.items()}
    return Page(_file(INDEX, served), StaticFiles(folder_hash, files))


@router.api_route("/static/{folder_hash}/{path:path}", methods=["GET", "HEAD"])
async def static_file(folder_hash: str, path: str, request: Request) -> Response:
    """Answers a file of the page that is served now; an older page's files are gone."""
    static = read_page().static
    file = static.files.get(path) if folder_hash == static.folder_hash else None
    if file is None:
        raise Refused(Problem(404, "NOT_FOUND", "Not found", "There is no such file."))
    return _answer(file, request, "public, max-age=31536000, immutable")


async def view(request: Request) -> Response:
    """Answers the page; which view it shows is between it and its address."""
    return _answer(read_page().index, request, "no-store")


for _path in VIEWS:
    router.add_api_route(_path, view, methods=["GET", "HEAD"])


def _answer(file: PageFile, request: Request, cache_control: str) -> Response:
    headers = {"ETag": file.etag, "Cache-Control": cache_control, "Vary": "Accept-Encoding"}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    content = file.content
    if file.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        content = file.packed
        headers["Content-Encoding"] = "gzip"
    return Response(content, media_type=file.content_type, headers=headers)


def _contents(folder: Traversable, prefix: str = "") -> list[tuple[str, bytes]]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _contents(entry, f"{prefix}{entry.name}/")
        else:
            found.append((prefix + entry.name, entry.read_bytes()))
    return found


def _file(path: str, content: bytes) -> PageFile:
    kind = (
        CONTENT_TYPES.get(PurePosixPath(path).suffix)
        or mimetypes.guess_type(path)[0]
        or "application/octet-stream"
    )
    packed = gzip.compress(content, mtime=0)
    # Weak, since the packed form has the same one.
    etag = f'W/"{_digest(content)}"'
    return PageFile(content, packed if len(packed) < len(content) else None, kind, etag)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:HASH_CHARACTERS]
