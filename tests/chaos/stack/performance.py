"""Performs a plan: people use the whole stack while it is troubled, then it is left in peace."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from services.generation import tables
from services.simulator.judging.terms import Terms
from services.webhook.tables import State, inbox
from tests.chaos.evidence import Limits, call_of, opened_books
from tests.chaos.house import Databases
from tests.chaos.running import unsettled
from tests.chaos.stack.errands import People
from tests.chaos.stack.exhibits import keep
from tests.chaos.stack.journal import Journal
from tests.chaos.stack.plan import Plan, Service
from tests.chaos.stack.stack import CREATES_PER_S, IN_FLIGHT_MAX, Place, Stack, opened_stack
from tests.chaos.stack.troubles import Troublemaker
from tests.postgresql import PostgresqlServer

LOOK_S = 0.5
SETTLE_S_MAX = 120.0
"""After the last trouble; the deadline of a generation is within it."""
ENDED_WITHIN_S = 30.0
POLLS_AFTER_END_MAX = 15
LATE_S_MAX = 15.0
"""How long a call of somebody may still take when the run is over."""
LOOK_S_MAX = 30.0
"""How long one look at what is left may take."""
KEEP_S_MAX = 180.0
"""How long it may take to write down all that is known."""
LIMITS = Limits(
    ended_within_s=ENDED_WITHIN_S,
    creates_per_s=CREATES_PER_S,
    in_flight_max=IN_FLIGHT_MAX,
)

Progress = Callable[[str, int, int], None]
"""Takes what is being done, how many errands are done, and of how many."""
Trouble = Callable[[Stack], Coroutine[Any, Any, None]]
"""Troubles the stack by what no plan knows, and returns when that is over."""


async def no_trouble(_stack: Stack) -> None:
    """Does nothing besides what the plan says."""


async def perform(
    plan: Plan,
    folder: Path,
    databases: Databases,
    server: PostgresqlServer | None,
    progress: Progress = lambda *_: None,
    products: Mapping[Service, str] | None = None,
    settle_s: float = SETTLE_S_MAX,
    trouble: Trouble = no_trouble,
) -> None:
    """Performs a plan and leaves in the folder all that is known about it.

    `products` are modules that run in place of services, with something planted in them. It is not
    calm before `trouble` is over.
    """
    with (folder / "journal.jsonl").open("w") as file:
        journal = Journal(file)
        journal.note("plan", plan=plan.as_values())
        async with opened_stack(
            plan.settings, folder, journal, databases, server, products
        ) as stack:
            begun = [place for place in stack.places if not _joins_later(place)]
            for place in begun:
                stack.start(place)
            for place in begun:
                assert await stack.ready(place), f"{place.name} did not start"
            troublemaker = Troublemaker(stack)
            async with _running(troublemaker.watch()):
                await _live(plan, stack, troublemaker, trouble, progress, settle_s)
            async with asyncio.timeout(KEEP_S_MAX), stack.credits_directly() as credits_:
                terms = await _terms(stack)
                await keep(folder, stack.databases, stack.simulator, credits_, LIMITS, terms)


async def _terms(stack: Stack) -> Terms:
    """Returns what the provider is to judge us by."""
    async with opened_books(stack.databases[Service.GENERATION]) as books:
        predictions = await books.rows(tables.predictions)
    return Terms(
        grace_s=LIMITS.provider_call_s + LIMITS.search_grace_s,
        adopted=tuple(row["job_id"] for row in predictions if row["role"] == "ADOPTED"),
        # While our database is away, nobody can remember what was read.
        polls_after_end_max=POLLS_AFTER_END_MAX,
        webhook_address=f"http://{stack.links['public'].address}",
    )


def _joins_later(place: Place) -> bool:
    return place.service is Service.WEBHOOK and place.number > 0


@contextlib.asynccontextmanager
async def _running(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Does works beside the block, and ends them with it."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception) and not isinstance(ended, asyncio.CancelledError):
                raise ended


async def _live(
    plan: Plan,
    stack: Stack,
    troublemaker: Troublemaker,
    trouble: Trouble,
    progress: Progress,
    settle_s: float,
) -> None:
    over, done = asyncio.Event(), 0
    async with stack.generations() as generations, stack.credits() as credits_:
        people = People(stack.journal, generations, credits_, over)
        await people.open_accounts()
        stack.journal.note("begun")

        async def see_to(number: int) -> None:
            nonlocal done
            await people.run(plan.errands[number])
            done += 1
            progress("troubled", done, len(plan.errands))

        errands = [asyncio.create_task(see_to(number)) for number in range(len(plan.errands))]
        until = time.monotonic() + plan.settings.load_s
        await asyncio.gather(troublemaker.run(plan.troubles), trouble(stack))
        await asyncio.sleep(max(0.0, until - time.monotonic()))
        stack.journal.note("calm")
        progress("settling", done, len(plan.errands))
        await troublemaker.calm()
        try:
            async with asyncio.timeout(settle_s):
                await asyncio.wait(errands)
                await _settled(stack)
        except TimeoutError:
            stack.journal.note("unsettled", left=await _seen_left(stack))
        over.set()
        ended, late = await asyncio.wait(errands, timeout=LATE_S_MAX)
        for errand in late:
            errand.cancel()
        for errand in ended:
            errand.result()  # What nobody meant to raise.
        await people.tell_balances()
        stack.journal.note("over")


async def _settled(stack: Stack) -> None:
    while await left_over(stack):  # noqa: ASYNC110  Other processes decide.
        await asyncio.sleep(LOOK_S)


async def _seen_left(stack: Stack) -> Sequence[str]:
    """Returns what is still to be done, also if nobody can see it any more."""
    try:
        async with asyncio.timeout(LOOK_S_MAX):
            return await left_over(stack) or ["people were not answered"]
    except Exception as error:  # noqa: BLE001  Whatever it is, it is told, and the run ends.
        return [f"what is left cannot be seen: {error!r}"]


async def left_over(stack: Stack) -> Sequence[str]:
    """Returns what is still to be done, in words."""
    found = []
    async with opened_books(stack.databases[Service.GENERATION]) as books:
        found += await unsettled(books)
    async with opened_books(stack.databases[Service.WEBHOOK]) as books:
        pending = await books.select(
            select(func.count().label("count"))
            .select_from(inbox)
            .where(inbox.c.state == State.PENDING.value)
        )
        found += [f"{row['count']} webhooks wait" for row in pending if row["count"]]
    made = await stack.simulator.predictions()
    found += [f"{one['id']} is unsettled" for one in made if one["completed_at"] is None]
    if not found:
        # The provider writes a request down when it has answered it, and some hang.
        calls = map(call_of, await stack.simulator.requests())
        asked = {call.job_id for call in calls if call.is_create}
        found += [f"{one['id']} is still being created" for one in made if one["id"] not in asked]
    return found


def databases_at(folder: Path, server: PostgresqlServer | None) -> Databases:
    """Returns what makes databases: on the server, or as files in the folder."""

    def given() -> PostgresqlServer:
        assert server is not None, "on SQLite nobody asks for PostgreSQL"
        return server

    return Databases(folder, given)


def prepare_folder(folder: Path) -> None:
    """Makes the folder of a run, empty."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
