"""Keeps users to as many unfinished generations as they may have, however many they begin at once.

Whoever begins one counts the others in the same database transaction, after a lock on its user: the
count of another replica waits until this one is committed. SQLite has one writer at a time anyhow.
"""

from collections import Counter
from collections.abc import Collection
from hashlib import sha256

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.generation import tables
from services.generation.commands import Begin
from services.runtime.errors import Overloaded

__all__ = ["allowed", "too_many_unfinished"]

UNFINISHED_RETRY_S = 10.0
"""When one of a user's generations may have ended."""
_LABEL = b"unfinished generations of "
_LOCK = text("SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS key")


async def allowed(
    connection: AsyncConnection, begins: Collection[Begin], unfinished_max: int
) -> dict[str, Begin]:
    """Returns those of `begins` whose ids are known, or whose users may have one more, by id.

    Locks their users until the end of the database transaction. Call it before rows are locked.
    """
    users = {b.user_id for b in begins}
    if connection.dialect.name == "postgresql":
        # In one order everywhere, or replicas would deadlock.
        await connection.execute(_LOCK, {"keys": sorted(map(_lock_key, users))})
    columns = tables.generations.c
    found = await connection.execute(
        select(columns.generation_id).where(
            columns.generation_id.in_([b.generation_id for b in begins])
        )
    )
    known = set(found.scalars())
    counted = await connection.execute(
        select(columns.user_id, func.count().label("number"))
        .where(columns.user_id.in_(sorted(users)), columns.finished_at.is_(None))
        .group_by(columns.user_id)
    )
    unfinished = Counter({row.user_id: row.number for row in counted})
    fitting = {}
    for begin in begins:
        if begin.generation_id not in known:
            if unfinished[begin.user_id] >= unfinished_max:
                continue
            unfinished[begin.user_id] += 1
        fitting[begin.generation_id] = begin
    return fitting


def too_many_unfinished(limit: int) -> Overloaded:
    """Returns the refusal of one more for a user who has as many unfinished ones as allowed."""
    return Overloaded(
        "TOO_MANY_GENERATIONS",
        f"{limit} of your generations have not ended; wait for one, or cancel one.",
        UNFINISHED_RETRY_S,
        limit=limit,
    )


def _lock_key(user_id: str) -> int:
    return int.from_bytes(sha256(_LABEL + user_id.encode()).digest()[:8], signed=True)
