"""Tells streams of balances what moved: at once what we wrote, in a second what replicas wrote."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

from services.credits.reads import LedgerReads
from services.credits.records import Account
from services.runtime.errors import ServiceError
from services.runtime.telemetry import get_logger

__all__ = ["BalanceWatchers"]

REFRESH_S = 1.0
TROUBLE_PAUSE_S = 10.0
"""After an error that nobody expected, so that its stacks do not fill the log."""

logger = get_logger(__name__)


class BalanceWatchers:
    """The open streams of this process."""

    def __init__(self, reads: LedgerReads, stopping: asyncio.Event) -> None:
        self._reads = reads
        self._stopping = stopping
        self._mailboxes: defaultdict[str, set[_Mailbox]] = defaultdict(set)

    def publish(self, account: Account) -> None:
        """Hands a changed account to those who watch it."""
        for mailbox in self._mailboxes.get(account.user_id, ()):
            mailbox.put(account)

    async def watch(self, user_id: str) -> AsyncIterator[Account | None]:
        """Yields the account as it is, None if it was never opened, then each time it is newer.

        Changes that come faster than they are taken are merged: only the newest waits. Ends when
        the process stops; raises Unavailable when the database is away at the beginning.
        """
        mailbox = _Mailbox()
        self._mailboxes[user_id].add(mailbox)
        try:
            # Read while changes are already being collected, or one in between would be lost.
            account = await self._reads.find_account(user_id)
            mailbox.sent_version = account.version if account is not None else 0
            yield account
            async for changed in mailbox.take(self._stopping):
                yield changed
        finally:
            self._mailboxes[user_id].discard(mailbox)
            if not self._mailboxes[user_id]:
                del self._mailboxes[user_id]

    async def run(self) -> None:
        """Finds what other processes wrote, by one query a second for all watched users."""
        while not self._stopping.is_set():
            pause_s = REFRESH_S
            try:
                for account in await self._reads.find_accounts(set(self._mailboxes)):
                    self.publish(account)
            except ServiceError as error:
                # What is missed meanwhile is found afterwards: a balance holds all that led to it.
                logger.warning("balances not read", reason=error.reason)
            except Exception:  # A defect here must not stop the calls that are answered meanwhile.
                logger.exception("balances not read")
                pause_s = TROUBLE_PAUSE_S
            try:
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()
            except TimeoutError:
                pass


class _Mailbox:
    """What a stream has not sent yet: the newest account that is newer than what it sent."""

    def __init__(self) -> None:
        self.sent_version = 0
        self._newest: Account | None = None
        self._filled = asyncio.Event()

    def put(self, account: Account) -> None:
        newest_version = self._newest.version if self._newest is not None else 0
        if account.version > max(self.sent_version, newest_version):
            self._newest = account
            self._filled.set()

    async def take(self, stopping: asyncio.Event) -> AsyncIterator[Account]:
        """Yields what is put in, until `stopping` is set."""
        stop = filled = asyncio.create_task(stopping.wait())
        try:
            while not stopping.is_set():
                self._filled.clear()
                newest = self._newest
                if newest is not None and newest.version > self.sent_version:
                    self.sent_version = newest.version
                    yield newest
                    continue
                filled = asyncio.create_task(self._filled.wait())
                await asyncio.wait((stop, filled), return_when=asyncio.FIRST_COMPLETED)
                filled.cancel()
        finally:
            filled.cancel()
            stop.cancel()
