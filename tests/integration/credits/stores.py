"""Running stores for tests, and the words that tests of them share."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

from services.credits.store import Answer, CreditsStore, Done
from services.runtime.database import Database

DAY = timedelta(days=1)
AT_ONCE = timedelta(0)
"""A time to live that is over when the next command comes."""


@contextlib.asynccontextmanager
async def running_store(database: Database, batch_max: int = 256) -> AsyncIterator[CreditsStore]:
    store = CreditsStore(database, batch_max)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(store.run())
        try:
            yield store
        finally:
            store.close()


def done(answer: Answer | BaseException) -> Done:
    assert isinstance(answer, Done)
    return answer
