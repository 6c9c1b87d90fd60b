"""Keeps files: in a local folder, or wherever else a URL of obstore leads."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, from_url

__all__ = ["Storage", "StorageFailed", "open_storage"]

THREADS_MAX = 8


class StorageFailed(Exception):
    """The storage did not take a file; it may, later."""


class Storage:
    """Files by key; a key is written once and never changed.

    obstore is used through threads: its asynchronous interface aborts the interpreter at exit.
    """

    def __init__(self, store: ObjectStore, base_uri: str, folder: Path | None = None) -> None:
        """Takes `folder` if the store is a local one: its files are forced to the disk."""
        self._store = store
        self._folder = folder
        self._base_uri = base_uri
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="storage")

    async def put_new(self, key: str, file: Path) -> bool:
        """Stores `file` under `key`, durably; returns False if the same is stored there already.

        Raises StorageFailed.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, self._put_new, key, file
        )

    def link(self, key: str) -> str:
        """Returns the address under which the file of `key` can be had."""
        return f"{self._base_uri}/{key}"

    def close(self) -> None:
        """Waits for what is being stored."""
        self._threads.shutdown()

    def _put_new(self, key: str, file: Path) -> bool:
        try:
            is_new = self._put(key, file)
            if self._folder is not None:
                _force_to_disk(self._folder, self._folder / key)
        except (BaseError, OSError) as error:
            raise StorageFailed(str(error)) from error
        return is_new

    def _put(self, key: str, file: Path) -> bool:
        try:
            obstore.put(self._store, key, file, mode="create")
        except AlreadyExistsError:
            if obstore.head(self._store, key)["size"] == file.stat().st_size:
                return False
            # The power failed before an earlier try had reached the disk.
            obstore.put(self._store, key, file)
        return True


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


def open_storage(url: str) -> Storage:
    """Opens the storage at `url`: `file:///absolute/folder`, which is made if missing.

    Raises ValueError that says what is wrong.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc or not parts.path.startswith("/"):
            raise ValueError("must name an absolute folder: file:///absolute/folder")
        try:
            folder = Path(unquote(parts.path))
            return Storage(LocalStore(folder, mkdir=True), url.rstrip("/"), folder)
        except OSError as error:
            raise ValueError(f"cannot be used: {error}") from error
    if not parts.scheme:
        raise ValueError("must be an address, for example file:///absolute/folder")
    try:
        return Storage(from_url(url), url.rstrip("/"))
    except BaseError as error:
        # What the library says is pages long, and may quote the credentials in the address.
        raise ValueError(f"is no address of a storage: {parts.scheme}:…") from error
