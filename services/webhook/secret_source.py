"""Knows which secrets webhooks may be signed with: those given, or Replicate's answer."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiohttp import ClientError, ClientSession, ClientTimeout

from services.runtime.telemetry import get_logger
from services.webhook.signature import Secret, decode_secret

__all__ = ["ReplicateAccount", "SecretSource", "SecretsFile", "parse_secrets"]

RETIRED_HOURS_MAX = 24
LOOK_PAUSE_S = 1.0
FETCH_PAUSE_S = 1.0
FETCH_LIMIT_S = 5.0
FETCH_BYTES_MAX = 64 * 1024
DOUBT_PAUSE_S = 300.0

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReplicateAccount:
    """Where the signing secret of an account is asked for."""

    base_url: str
    token: str = field(repr=False)


class SecretsFile:
    """A file of secrets, one a line, that may change at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] | None = None

    def read(self, now: datetime) -> tuple[Secret, ...]:
        """Returns its secrets, newest first.

        Raises OSError, or ValueError that names a secret by its place, never by its content.
        """
        # Noted first: what is written meanwhile is then found by the next look.
        self._seen = self._state()
        text = self._path.read_text("utf-8", "replace")
        return parse_secrets(",".join(text.split()), now)

    def has_changed(self) -> bool:
        """Tells whether it is another than the one that was read, or tried to be."""
        return self._state() != self._seen

    def _state(self) -> tuple[int, ...] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        # Mounted secrets change by a link to another file.
        return found.st_ino, found.st_mtime_ns, found.st_size


class SecretSource:
    """Gives the secrets that are known now; `run` keeps them up to date."""

    def __init__(
        self,
        given: Sequence[Secret],
        account: ReplicateAccount | None = None,
        file: SecretsFile | None = None,
        *,
        look_pause_s: float = LOOK_PAUSE_S,
        fetch_pause_s: float = FETCH_PAUSE_S,
        doubt_pause_s: float = DOUBT_PAUSE_S,
    ) -> None:
        """Takes the file that `given` was read from, or the account to ask if nothing is given."""
        self._secrets = tuple(given)
        self._account = account
        self._file = file
        self._look_pause_s = look_pause_s
        self._fetch_pause_s = fetch_pause_s
        self._doubt_pause_s = doubt_pause_s
        self._doubted = asyncio.Event()

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The secrets that are known, newest first; empty until Replicate has answered."""
        return self._secrets

    def doubt(self) -> None:
        """Tells that a well-formed webhook bore none of our signatures: the secret may be new."""
        self._doubted.set()

    async def run(self) -> None:
        """Follows the file, or asks Replicate, as long as it runs; others are given for ever."""
        if self._file is not None:
            await self._follow(self._file)
        elif self._account is not None and not self._secrets:
            await self._ask(self._account)

    async def _follow(self, file: SecretsFile) -> None:
        while True:
            await asyncio.sleep(self._look_pause_s)
            if await asyncio.to_thread(file.has_changed):
                try:
                    self._secrets = await asyncio.to_thread(file.read, datetime.now(UTC))
                    logger.info("signing secrets read anew", secrets=len(self._secrets))
                except (OSError, ValueError) as error:
                    cause = error.strerror if isinstance(error, OSError) else str(error)
                    logger.error("signing secrets not read; the former ones stay", cause=cause)

    async def _ask(self, account: ReplicateAccount) -> None:
        timeout = ClientTimeout(total=FETCH_LIMIT_S)
        async with ClientSession(timeout=timeout) as session:
            # Often, since Replicate repeats a webhook for a minute only.
            while True:
                if await self._fetch(session, account):
                    break
                await asyncio.sleep(self._fetch_pause_s)
            while True:
                await self._doubted.wait()
                # First, so that a doubt in the pause, which may be a genuine one, is not forgotten.
                self._doubted.clear()
                await self._fetch(session, account)
                # Strangers can cause doubts at will; they cost one request in this time.
                await asyncio.sleep(self._doubt_pause_s)

    async def _fetch(self, session: ClientSession, account: ReplicateAccount) -> bool:
        """Asks once and tells whether there was an answer; without one the secrets stay."""
        try:
            async with session.get(
                f"{account.base_url.rstrip('/')}/v1/webhooks/default/secret",
                headers={"Authorization": f"Bearer {account.token}"},
                allow_redirects=False,
            ) as response:
                body = b""
                # One read gives what has come so far, which may be a part.
                while len(body) < FETCH_BYTES_MAX and not response.content.at_eof():
                    body += await response.content.read(FETCH_BYTES_MAX - len(body))
                if response.status != 200:
                    raise ValueError(f"status {response.status}")
            secret = Secret(0, decode_secret(_key_of(body)))
        except (ClientError, TimeoutError, ValueError, RecursionError) as error:
            logger.warning("no signing secret yet", cause=str(error) or type(error).__name__)
            return False
        if (secret,) != self._secrets:
            logger.info("signing secret fetched")
        self._secrets = (secret,)
        return True


def parse_secrets(text: str, now: datetime) -> tuple[Secret, ...]:
    """Returns the secrets in `whsec_…,whsec_…@<end time>`, newest first; a retired one has an end.

    Raises ValueError that names a secret by its place, never by its content.
    """
    secrets = []
    for number, part in enumerate(text.split(",")):
        encoded, _, end = part.strip().partition("@")
        try:
            secrets.append(Secret(number, decode_secret(encoded), _parse_end(end, now)))
        except ValueError as error:
            raise ValueError(f"secret {number + 1} {error}") from None
    if all(secret.ends_at is not None for secret in secrets):
        raise ValueError("needs one secret without an end time")
    return tuple(secrets)


def _parse_end(text: str, now: datetime) -> datetime | None:
    if not text:
        return None
    try:
        end = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("has an end that is no ISO 8601 time") from None
    if end.tzinfo is None:
        raise ValueError("has an end without a time zone")
    if end > now + timedelta(hours=RETIRED_HOURS_MAX):
        raise ValueError(f"ends more than {RETIRED_HOURS_MAX} hours from now")
    return end


def _key_of(body: bytes) -> str:
    """Returns the secret in Replicate's answer; raises ValueError that tells nothing of it."""
    try:
        answer = json.loads(body)
    except ValueError:
        raise ValueError("the answer is not JSON") from None
    key = answer.get("key") if isinstance(answer, dict) else None
    if not isinstance(key, str):
        raise ValueError("the answer has no key")
    return key
