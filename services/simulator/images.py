"""Fetches the image that a video starts from."""

import base64
import binascii
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientSession, ClientTimeout
from yarl import URL

from services.simulator.addresses import Addresses
from services.simulator.uploads import Uploads

__all__ = ["ImageFetcher", "ImageUnavailable"]

TIMEOUT_S = 20.0
SIZE_BYTES_MAX = 20 * 1024 * 1024


class ImageUnavailable(Exception):
    """An image that could not be had; the text goes into the prediction's `error`."""


class ImageFetcher:
    """Reads images from allowed hosts, data addresses and uploaded files."""

    def __init__(
        self,
        session: ClientSession,
        allowed_hosts: frozenset[str],
        uploads: Uploads,
        addresses: Addresses,
    ) -> None:
        self._session = session
        self._allowed_hosts = allowed_hosts
        self._uploads = uploads
        self._uploads_address = addresses.upload("")

    async def fetch(self, address: str) -> bytes:
        """Returns the content behind `address`; raises ImageUnavailable if there is none."""
        try:
            parts = urlsplit(address)
            if parts.scheme == "data":
                return base64.b64decode(address.partition(",")[2], validate=True)
            if address.startswith(self._uploads_address):
                return self._uploaded(address.removeprefix(self._uploads_address)).read_bytes()
            if (parts.hostname or "") not in self._allowed_hosts:
                raise ImageUnavailable(
                    f"Could not fetch image: host {parts.hostname} is not one that this stand-in"
                    " may reach (option --allow-host)"
                )
            return await self._get(address)
        except TimeoutError:
            raise ImageUnavailable(
                f"Could not fetch image: no answer within {TIMEOUT_S:g} s"
            ) from None
        except (ClientError, OSError, ValueError, binascii.Error) as error:
            raise ImageUnavailable(f"Could not fetch image: {error}") from error

    def _uploaded(self, upload_id: str) -> Path:
        upload = self._uploads.find(upload_id)
        if upload is None:
            raise ImageUnavailable("Could not fetch image: there is no such uploaded file")
        return self._uploads.path(upload)

    async def _get(self, address: str) -> bytes:
        # Redirects are refused: they could lead to a host that is not allowed.
        async with self._session.get(
            URL(address, encoded=True),
            allow_redirects=False,
            timeout=ClientTimeout(total=TIMEOUT_S),
        ) as response:
            if response.status != 200:
                raise ImageUnavailable(f"Could not fetch image: HTTP {response.status}")
            content = bytearray()
            async for chunk in response.content.iter_chunked(1 << 16):
                content += chunk
                if len(content) > SIZE_BYTES_MAX:
                    raise ImageUnavailable("Could not fetch image: larger than 20 MiB")
            return bytes(content)
