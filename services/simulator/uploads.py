"""Keeps the files that customers upload, until they expire."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from services.simulator.accounts import Account
from services.simulator.clock import Clock
from services.simulator.plan import ID_ALPHABET, stream
from services.simulator.problems import malformed
from services.simulator.store import Store

__all__ = ["Upload", "Uploads"]

SIZE_BYTES_MAX = 100 * 1024 * 1024
LIFE_S = 24 * 3600.0
UPLOADS_MAX = 2000
"""How many files are kept; the oldest leave first, before their time."""
ID_LENGTH = 48


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded file; times are seconds since the epoch."""

    id: str
    account: str
    name: str
    content_type: str
    size_bytes: int
    sha256: str
    md5: str
    metadata: dict[str, Any]
    created_at: float
    expires_at: float


class Uploads:
    """All uploaded files of all accounts."""

    def __init__(self, folder: Path, store: Store, seed: int, clock: Clock) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._store = store
        self._seed = seed
        self._clock = clock
        loaded = (Upload(**document) for document in store.documents("upload"))
        self._uploads = {
            one.id: one for one in sorted(loaded, key=lambda upload: upload.created_at)
        }

    async def add(
        self,
        account: Account,
        name: str,
        content_type: str,
        chunks: AsyncIterator[bytes],
    ) -> Upload:
        """Stores a file; raises a Problem with status 413 if it is larger than 100 MB."""
        number = self._store.next_number(account.key, "upload")
        upload_id = "".join(
            stream(self._seed, "upload", account.key, number).choices(ID_ALPHABET, k=ID_LENGTH)
        )
        path = self._folder / upload_id
        sha256, md5, size_bytes = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
        try:
            with path.open("wb") as file:
                async for chunk in chunks:
                    size_bytes += len(chunk)
                    if size_bytes > SIZE_BYTES_MAX:
                        raise malformed(413, "File too large", "Files are limited to 100 MB")
                    sha256.update(chunk)
                    md5.update(chunk)
                    await asyncio.to_thread(file.write, chunk)
        except BaseException:
            # Also when the client goes away halfway: half a file must not stay.
            path.unlink(missing_ok=True)
            raise
        now = self._clock.now()
        upload = Upload(
            id=upload_id,
            account=account.key,
            name=name,
            content_type=content_type,
            size_bytes=size_bytes,
            sha256=sha256.hexdigest(),
            md5=md5.hexdigest(),
            metadata={},
            created_at=now,
            expires_at=now + LIFE_S,
        )
        while len(self._uploads) >= UPLOADS_MAX:
            self.remove(next(iter(self._uploads.values())))
        self._keep(upload)
        return upload

    def describe(self, upload: Upload, metadata: dict[str, Any]) -> Upload:
        """Returns the upload with the customer's `metadata`, which may come after the content."""
        described = replace(upload, metadata=metadata)
        self._keep(described)
        return described

    def find(self, upload_id: str) -> Upload | None:
        """Returns an upload that has not expired."""
        upload = self._uploads.get(upload_id)
        return upload if upload and upload.expires_at > self._clock.now() else None

    def of(self, account: Account) -> list[Upload]:
        """Returns the uploads of an account, newest first."""
        now = self._clock.now()
        mine = [
            upload
            for upload in self._uploads.values()
            if upload.account == account.key and upload.expires_at > now
        ]
        return sorted(mine, key=lambda upload: upload.created_at, reverse=True)

    def path(self, upload: Upload) -> Path:
        """Returns where the content of `upload` is stored."""
        return self._folder / upload.id

    def remove(self, upload: Upload) -> None:
        """Forgets an upload and its content."""
        self._uploads.pop(upload.id, None)
        self._store.delete("upload", upload.id)
        self.path(upload).unlink(missing_ok=True)

    def remove_expired(self) -> None:
        """Removes what has expired."""
        now = self._clock.now()
        for upload in [one for one in self._uploads.values() if one.expires_at <= now]:
            self.remove(upload)

    def clear(self) -> None:
        """Removes everything."""
        for upload in list(self._uploads.values()):
            self.remove(upload)

    def _keep(self, upload: Upload) -> None:
        self._uploads[upload.id] = upload
        self._store.put("upload", upload.id, upload)
