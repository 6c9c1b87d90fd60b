"""Asks a database how it would answer what was asked of it."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from sqlalchemy import event, text

from services.runtime.database import Database


@contextlib.asynccontextmanager
async def explained(database: Database, *, is_small: bool = False) -> AsyncIterator[list[str]]:
    """Gives a list that holds, at the end of the block, the plan of each query made within it.

    PostgreSQL reads small tables whole, or sorts what it finds, whatever their indexes; `is_small`
    makes that expensive.
    """
    async with database.writer.begin() as connection:
        await connection.execute(text("ANALYZE"))
    sent: list[tuple[str, Any]] = []

    def note(*arguments: Any) -> None:
        _, _, statement, parameters, *_ = arguments
        if statement.startswith("SELECT") and " FROM " in statement.replace("\n", " "):
            sent.append((statement, parameters))

    engine, plans = database.reader.sync_engine, list[str]()
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield plans
    finally:
        event.remove(engine, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
    async with database.read() as connection:
        if is_small and engine.dialect.name == "postgresql":
            for way in ("seqscan", "bitmapscan"):
                await connection.execute(text(f"SET LOCAL enable_{way} = off"))
        for statement, parameters in sent:
            rows = await connection.exec_driver_sql(f"{explain} {statement}", parameters)
            plans.append("\n".join(str(row[-1]) for row in rows))


async def plans_of(database: Database, call: Callable[[], Awaitable[object]]) -> list[str]:
    """Returns the plan of each query that `call` makes of tables that are small."""
    async with explained(database, is_small=True) as plans:
        await call()
    return plans


def sorts(plan: str) -> bool:
    """Tells whether a plan puts rows in order, rather than reading them in order."""
    return "Sort" in plan or "TEMP B-TREE FOR ORDER BY" in plan
