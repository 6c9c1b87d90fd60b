"""Keeps files: in a local folder, or in a bucket of S3 or of anything that speaks like it."""

import asyncio
import functools
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import AzureStore, GCSStore, LocalStore, S3Store, from_url

if TYPE_CHECKING:  # These exist for type checkers only.
    from obstore.store import ClientConfig, RetryConfig

__all__ = [
    "FileChanged",
    "FileMissing",
    "Storage",
    "StorageFailed",
    "StoredFile",
    "content_type_of",
    "open_storage",
]

THREADS_MAX = 8
CALL_S = 20.0
"""How long one request to a bucket may take; what is stored in parts makes several."""
CONNECT_S_MAX = 3.0
RETRIES_MAX = 2
PART_BYTES = 8 * 1024 * 1024
"""Larger files are stored in parts of this size, so that memory holds no whole video."""
PARTS_AT_ONCE = 2
LINK_S = 3600.0
"""How long an address of a file in a bucket works, at the least."""
LINK_STEP_S = 900
"""For so long a file keeps its address, which caches go by."""
LINKS_KEPT_MAX = 4096

_CONTENT_TYPES = {
    ".jpg": "image/jpeg",
    ".mp4": "video/mp4",
    ".png": "image/png",
    ".webp": "image/webp",
}

_Store = LocalStore | S3Store | GCSStore | AzureStore
_Result = TypeVar("_Result")


class StorageFailed(Exception):
    """The storage did not do as it was told; it may, later."""


class FileMissing(Exception):
    """The storage has no file of that key."""


class FileChanged(Exception):
    """The storage has another file of that key than the one that was asked for."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What is known about a file before any of it is read."""

    size_bytes: int
    """Its size."""
    tag: str
    """Another one whenever its content is another: visible ASCII without quotation marks."""


def content_type_of(key: str) -> str | None:
    """Returns the media type of what is stored under `key`; None if its name does not tell."""
    return _CONTENT_TYPES.get(Path(key).suffix)


class Storage:
    """Files by key, such as `outputs/<user>/<generation>.mp4`.

    obstore is used through threads: its asynchronous interface aborts the interpreter at exit. All
    methods that touch files raise StorageFailed, a bucket's within a bounded time.
    """

    def __init__(
        self, store: _Store, *, folder: Path | None = None, is_public: bool = False
    ) -> None:
        """Takes `folder` if the store is a local one: its files are forced to the disk."""
        self._store = store
        self._folder = folder
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="storage")
        self._signed = functools.lru_cache(LINKS_KEPT_MAX)(self._sign)
        self.is_public = is_public
        """Whether whoever has the link of a file can fetch it, from anywhere."""

    async def put_new(self, key: str, file: Path) -> bool:
        """Stores `file` under `key`, durably; returns False if the same is stored there already."""
        return await self._run(lambda: self._put_new(key, file))

    async def put(self, key: str, content: bytes) -> None:
        """Stores `content` under `key`, durably, in place of whatever is there."""
        await self._run(lambda: self._write(key, content))

    async def get(self, key: str) -> bytes:
        """Returns a whole file; raises FileMissing if there is none."""

        def get() -> bytes:
            try:
                return obstore.get(self._store, key).bytes().to_bytes()
            except FileNotFoundError:
                raise FileMissing(key) from None

        return await self._run(get)

    async def stat(self, key: str) -> StoredFile:
        """Returns what is stored under `key`; raises FileMissing if there is nothing.

        A key that no file can have has none.
        """

        def stat() -> StoredFile:
            try:
                about = obstore.head(self._store, key)
            except (FileNotFoundError, ValueError):  # Neither there, nor possible.
                raise FileMissing(key) from None
            return StoredFile(about["size"], (about["e_tag"] or "").strip('"'))

        return await self._run(stat)

    async def get_range(self, key: str, start: int, end: int, tag: str) -> bytes:
        """Returns the bytes from `start` to before `end` of the file that `stat` gave `tag` for.

        Raises FileMissing if it is gone, and FileChanged if another is in its place.
        """
        options: Any = {"range": (start, end), "if_match": f'"{tag}"'}

        def get_range() -> bytes:
            try:
                return obstore.get(self._store, key, options=options).bytes().to_bytes()
            except FileNotFoundError:
                raise FileMissing(key) from None
            except PreconditionError:
                raise FileChanged(key) from None

        return await self._run(get_range)

    async def fetch(self, key: str, file: Path) -> None:
        """Writes what is stored under `key` to `file`; raises FileMissing if there is none."""

        def fetch() -> None:
            try:
                parts = obstore.get(self._store, key).stream(min_chunk_size=PART_BYTES)
            except FileNotFoundError:
                raise FileMissing(key) from None
            with file.open("wb") as content:
                for part in parts:
                    content.write(part)

        await self._run(fetch)

    async def delete(self, key: str) -> None:
        """Removes a file; that there is none is the same success."""

        def delete() -> None:
            try:
                obstore.delete(self._store, key)
            except FileNotFoundError:
                return
            if self._folder is not None:
                _force_to_disk(self._folder, (self._folder / key).parent)

        await self._run(delete)

    def link(self, key: str, valid_s: float = LINK_S) -> str:
        """Returns the address of a file, which works for `valid_s` or longer.

        A local file has its own for ever. Computes only, unless the keys of a bucket are lent by
        the machine that this runs on, which obstore then asks now and again.
        """
        if self._folder is not None:
            return f"{self._folder.as_uri()}/{key}"
        try:
            return self._signed(key, valid_s, int(time.time() // LINK_STEP_S))
        except BaseError as error:
            raise StorageFailed(_in_short(error)) from error

    def close(self) -> None:
        """Waits for what is being stored."""
        self._threads.shutdown()

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        def guarded() -> _Result:
            try:
                return work()
            except (BaseError, OSError) as error:
                raise StorageFailed(_in_short(error)) from error

        return await asyncio.get_running_loop().run_in_executor(self._threads, guarded)

    def _put_new(self, key: str, file: Path) -> bool:
        size_bytes = file.stat().st_size
        if size_bytes <= PART_BYTES:
            try:
                obstore.put(self._store, key, file, mode="create", attributes=self._about(key))
            except AlreadyExistsError:
                pass
            else:
                self._settle(key)
                return True
        # A local file can be shorter than it should: the power failed before it reached the disk.
        if self._size_bytes(key) == size_bytes:
            self._settle(key)
            return False
        self._write(key, file)
        return True

    def _write(self, key: str, what: Path | bytes) -> None:
        obstore.put(
            self._store,
            key,
            what,
            chunk_size=PART_BYTES,
            max_concurrency=PARTS_AT_ONCE,
            attributes=self._about(key),
        )
        self._settle(key)

    def _size_bytes(self, key: str) -> int | None:
        try:
            return obstore.head(self._store, key)["size"]
        except FileNotFoundError:
            return None

    def _about(self, key: str) -> Any:
        """Returns what a bucket tells browsers about a file; a folder keeps nothing of the kind."""
        content_type = content_type_of(key)
        if self._folder is not None or content_type is None:
            return None
        return {"Content-Type": content_type}

    def _settle(self, key: str) -> None:
        if self._folder is not None:
            _force_to_disk(self._folder, self._folder / key)

    def _sign(self, key: str, valid_s: float, step: int) -> str:
        del step  # Part of the key under which the address is kept.
        assert not isinstance(self._store, LocalStore), "a local file needs no signature"
        return obstore.sign(self._store, "GET", key, timedelta(seconds=valid_s + LINK_STEP_S))


def _in_short(error: Exception) -> str:
    """Returns what happened in one line: the library's own text has pages, and whole answers."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"


def _force_to_disk(folder: Path, file: Path) -> None:
    """Returns when `file`, and the entries that lead to it from `folder`, survive a power loss."""
    for path in (file, *file.parents):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if path == folder:
            return


def open_storage(url: str, call_s: float = CALL_S, access_key: str | None = None) -> Storage:
    """Opens the storage at `url`; nothing is asked of it yet.

    - `file:///absolute/folder`, which is made if missing;
    - `s3://bucket/prefix`, with `?endpoint=https://…` and `region=…` if it is not Amazon's, and
      `public=no` if the provider cannot reach it, which is assumed of an endpoint without TLS. The
      keys come from where Amazon's tools look for them, as `AWS_ACCESS_KEY_ID`;
    - `gs://bucket/prefix`, `az://account/container/prefix`.

    `access_key` is the key of an S3 bucket, `id:secret`, if it lies nowhere there. `call_s` limits
    every request to a bucket. Raises ValueError that says what is wrong.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc or not parts.path.startswith("/"):
            raise ValueError("must name an absolute folder: file:///absolute/folder")
        try:
            folder = Path(unquote(parts.path))
            return Storage(LocalStore(folder, mkdir=True), folder=folder)
        except OSError as error:
            raise ValueError(f"cannot be used: {error}") from error
    if parts.scheme not in ("s3", "gs", "az"):
        raise ValueError("must begin with file:///, s3://, gs:// or az://")
    client: ClientConfig = {
        # An endpoint without TLS is the operator's choice; no other address is plain.
        "allow_http": True,
        "connect_timeout": timedelta(seconds=min(call_s, CONNECT_S_MAX)),
        "timeout": timedelta(seconds=call_s),
    }
    retry: RetryConfig = {
        "max_retries": RETRIES_MAX,
        "retry_timeout": timedelta(seconds=call_s),
        "backoff": {"max_backoff": timedelta(seconds=1)},
    }
    try:
        if parts.scheme == "s3":
            return _open_s3(url, client, retry, access_key)
        store = from_url(url, client_options=client, retry_config=retry)
    except BaseError as error:
        # What the library says is pages long, and may quote the credentials in the address.
        raise ValueError(f"is no address of a storage: {parts.scheme}:…") from error
    assert isinstance(store, GCSStore | AzureStore), "the scheme says so"
    return Storage(store, is_public=True)


def _open_s3(
    url: str, client: "ClientConfig", retry: "RetryConfig", access_key: str | None
) -> Storage:
    parts = urlsplit(url)
    if not parts.hostname or parts.username is not None or parts.netloc != parts.hostname:
        raise ValueError("must be s3://bucket/prefix, without keys or port")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := options.keys() - {"endpoint", "region", "public"}:
        raise ValueError(f"must have no option {min(unknown)}: endpoint, region and public exist")
    endpoint = options.get("endpoint", "https://")
    if not endpoint.startswith(("https://", "http://")):
        raise ValueError("must have an endpoint of http:// or https://")
    if options.get("public", "yes") not in ("yes", "no"):
        raise ValueError("must have public=yes or public=no")
    given: Any = {name: options[name] for name in ("endpoint", "region") if name in options}
    if access_key is not None:
        given["access_key_id"], _, given["secret_access_key"] = access_key.partition(":")
    store = S3Store(
        parts.netloc,
        prefix=unquote(parts.path).strip("/") or None,
        client_options=client,
        retry_config=retry,
        **given,
    )
    by_default = "yes" if endpoint.startswith("https://") else "no"
    return Storage(store, is_public=options.get("public", by_default) == "yes")
