"""What is known about a run after it: the provider's truth, our tables, the ledger, the files."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sqlalchemy import Select, Table, select
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from services.client.credits import CreditsClient
from services.generation import tables
from services.simulator.client import SimulatorControl

Row = Mapping[str, Any]
DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}


@dataclass(frozen=True)
class Limits:
    """What the product was told to keep."""

    provider_call_s: float = 1.0
    search_grace_s: float = 3.0
    ended_within_s: float = 30.0
    """How long after its deadline a generation may still be open, or end."""
    creates_per_s: float = 10.0
    creates_burst: int = 10
    in_flight_max: int = 100
    retry_after_s: float = 1.0
    """What the provider says with every 429."""


@dataclass(frozen=True)
class Made:
    """A prediction that the provider really made."""

    job_id: str
    generation_id: str
    attempt: int
    status: str
    is_charged: bool
    created_at: datetime
    ended_at: datetime | None

    @property
    def is_live(self) -> bool:
        return self.ended_at is None


@dataclass(frozen=True)
class Call:
    """A request that the provider really got."""

    begun_at: datetime
    at: datetime
    listener: str
    method: str
    path: str
    status: int | None
    """None if it was not answered."""
    generation_id: str | None
    job_id: str | None
    has_token: bool

    @property
    def is_create(self) -> bool:
        is_api = self.listener == "api" and self.method == "POST"
        return is_api and urlsplit(self.path).path.endswith("/predictions")

    def is_cancel_of(self, job_id: str) -> bool:
        return self.method == "POST" and self.path.endswith(f"/predictions/{job_id}/cancel")


@dataclass(frozen=True)
class Evidence:
    """All that a judge is given."""

    read_at: datetime
    limits: Limits
    generations: Mapping[str, Row]
    attempts: Sequence[Row]
    predictions: Sequence[Row]
    transitions: Sequence[Row]
    made: Sequence[Made]
    calls: Sequence[Call]
    reservations: Mapping[str, tuple[str, int]]
    """State and committed credits, by generation."""
    ledger_violations: Sequence[str] = ()
    file_sizes: Mapping[str, int] = field(default_factory=dict)
    """Size in bytes of each stored file, by its key."""


class Books:
    """The tables of a generation service, also while it has its SQLite file to itself."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def rows(self, table: Table) -> list[dict[str, Any]]:
        return await self.select(select(table).order_by(*table.primary_key.columns))

    async def claims(self) -> list[dict[str, Any]]:
        """Returns of each generation only what tells whether somebody works on it."""
        columns = tables.generations.c
        wanted = (columns.generation_id, columns.claimed_by, columns.claims)
        return await self.select(select(*wanted, columns.fence, columns.due_at, columns.stage))

    async def select(self, query: Select[*tuple[Any, ...]]) -> list[dict[str, Any]]:
        """Returns what a query gives."""
        async with self._engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]


@contextlib.asynccontextmanager
async def opened_books(database_url: str) -> AsyncIterator[Books]:
    url = make_url(database_url)
    driver = DRIVERS[url.get_backend_name()]
    # A connection for each look: the server may be another one since the last.
    engine = create_async_engine(url.set(drivername=driver), poolclass=NullPool)
    try:
        yield Books(engine)
    finally:
        await engine.dispose()


async def gather_evidence(
    books: Books,
    simulator: SimulatorControl,
    credits_: CreditsClient,
    media: Path,
    limits: Limits,
) -> Evidence:
    """Returns everything that there is about the generations of a database."""
    generations = {row["generation_id"]: row for row in await books.rows(tables.generations)}
    users = {row["user_id"] for row in generations.values()}
    truth, requests = await asyncio.gather(simulator.predictions(), simulator.requests())
    reports = [await credits_.verify_ledger(user) for user in users]
    made = [made_of(one) for one in truth if _address_of(one)[0] in generations]
    job_ids = {one.job_id for one in made}
    return Evidence(
        read_at=datetime.now(UTC),
        limits=limits,
        generations=generations,
        attempts=await books.rows(tables.attempts),
        predictions=await books.rows(tables.predictions),
        transitions=await books.rows(tables.transitions),
        made=made,
        calls=[
            call
            for call in map(call_of, requests)
            if call.generation_id in generations or call.job_id in job_ids
        ],
        reservations=await _reservations(credits_, users),
        ledger_violations=[str(one) for report in reports for one in report.violations],
        file_sizes=await asyncio.to_thread(_sizes, media),
    )


def _sizes(media: Path) -> dict[str, int]:
    files = [file for file in media.rglob("*") if file.is_file()]
    return {str(file.relative_to(media)): file.stat().st_size for file in files}


async def _reservations(
    credits_: CreditsClient, users: Collection[str]
) -> dict[str, tuple[str, int]]:
    found = {}
    for user in users:
        token = ""
        while True:
            page = await credits_.list_reservations(user, 500, token)
            for one in page.reservations:
                found[one.reservation_id] = (one.state.value, one.committed_credits)
            token = page.next_page_token
            if not token:
                break
    return found


def made_of(truth: Mapping[str, Any]) -> Made:
    """Returns a prediction as the simulator tells of it."""
    generation_id, attempt = _address_of(truth)
    ended_at = truth["completed_at"]
    return Made(
        job_id=truth["id"],
        generation_id=generation_id,
        attempt=attempt,
        status=truth["status"],
        is_charged=truth["charged"],
        created_at=_moment(truth["created_at"]),
        ended_at=None if ended_at is None else _moment(ended_at),
    )


def _address_of(truth: Mapping[str, Any]) -> tuple[str, int]:
    query = parse_qs(urlsplit(truth["webhook"] or "").query)
    return query.get("g", [""])[0], int(query.get("a", ["0"])[0])


def call_of(request: Mapping[str, Any]) -> Call:
    return Call(
        begun_at=_moment(request["begun_at"]),
        at=_moment(request["at"]),
        listener=request["listener"],
        method=request["method"],
        path=request["path"],
        status=request["status"],
        generation_id=request["generation"],
        job_id=request["prediction"],
        has_token=any(name.lower() == "authorization" for name, _ in request["headers"]),
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
