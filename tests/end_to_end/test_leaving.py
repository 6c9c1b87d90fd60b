"""Whatever leaves under load leaves cleanly: no call fails, no webhook is lost, and all goes on."""

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest

from services.client import connection
from services.client.credits import CreditsClient
from services.client.deadlines import DEADLINES_S
from services.client.generations import (
    Generation,
    GenerationClient,
    Kind,
    Status,
    new_generation_id,
)
from services.runtime.errors import DeadlineExceeded, Unavailable
from services.simulator.client import SimulatorControl
from services.web.development import development_key, development_token, person_named
from tests.chaos.house import CREDITS_EACH
from tests.conftest import NewDatabase
from tests.end_to_end.customers import PRICE, PROMPT, Customers
from tests.end_to_end.fleet import Fleet, Member, opened_fleet, until
from tests.end_to_end.running import HURRIED, Running, start

CLEAN = {"credits": {0}, "generation": {0}, "webhook": {0}, "web": {0, 143}}
LEAVE_S_MAX = 18.0
"""Less than the grace: whoever needs all of it has something that does not end by itself."""
WEB_USERS = ("rest-0", "rest-1")
VIDEOS_BEFORE = 6
"""So many are there before anything leaves."""
CONNECTION_AGE_S = 2
EXIT_S_MAX = 10.0
PATIENCE_S = 30.0
SHORT = [name for name, limit_s in DEADLINES_S.items() if limit_s < PATIENCE_S]
USER = "ada"

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def backend() -> str:
    return "postgresql"


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives calls time enough for a busy machine; one that nobody ever answers still fails."""
    monkeypatch.setattr(
        connection, "DEADLINES_S", {**DEADLINES_S, **dict.fromkeys(SHORT, PATIENCE_S)}
    )


@pytest.fixture
async def fleet(new_database: NewDatabase, tmp_path: Path) -> AsyncIterator[Fleet]:
    databases = {name: new_database(name) for name in ("credits", "generation", "webhook")}
    # Connections end all the time besides.
    age = {"CONNECTION_AGE_S": str(CONNECTION_AGE_S)}
    async with opened_fleet(tmp_path, databases, **age) as running:
        yield running


@contextlib.asynccontextmanager
async def opened_shop(fleet: Fleet) -> AsyncIterator[tuple[Customers, list[asyncio.Task[None]]]]:
    """Gives customers, and what they do until it is over; others only watch, for ever."""
    key = development_key(fleet.folder / "development_key")
    people = {name: person_named(name) for name in WEB_USERS}
    tokens = {name: development_token(key, person) for name, person in people.items() if person}
    doors = [f"http://{member.address}" for member in fleet.of("web")]
    async with (
        CreditsClient(fleet.target("credits")) as credits_,
        GenerationClient(fleet.target("generation")) as generations,
    ):
        customers = Customers(credits_, generations, doors, tokens)
        watches = [asyncio.create_task(watch) for watch in customers.all_watches()]
        jobs = [asyncio.create_task(job) for job in customers.all_jobs()]
        try:
            yield customers, jobs
        finally:
            ended = [task for task in watches if task.done()]
            for task in watches + jobs:
                task.cancel()
            await asyncio.wait(watches + jobs)
        assert [task.exception() for task in ended] == [], "a stream was given up"


async def all_leave(members: list[Member]) -> list[str]:
    """Tells processes to leave at the same moment; returns which did not leave well, and how."""
    ends = await asyncio.gather(*(member.leave() for member in members))
    return [
        f"{member.name}: exit code {code} after {after_s:.1f} s\n{member.log.read_text()[-2000:]}"
        for member, (code, after_s) in zip(members, ends, strict=True)
        if code not in CLEAN[member.service] or after_s > LEAVE_S_MAX
    ]


async def put_back(fleet: Fleet, members: list[Member]) -> None:
    """Starts processes anew, and waits until all who call them have found them."""
    await fleet.start(members)

    async def is_called() -> bool:
        return all(member.has_callers(fleet.callers_of(member)) for member in members)

    # Who leaves next would leave callers alone that have not found these yet.
    await until(is_called, "callers have come back")


@pytest.mark.usefixtures("patience")
async def test_every_process_leaves_under_load_and_no_call_fails(fleet: Fleet) -> None:
    first, second = fleet.replicas(0), fleet.replicas(1)
    async with opened_shop(fleet) as (customers, jobs):

        async def has_videos() -> bool:
            return sum(map(len, customers.seen.values())) >= VIDEOS_BEFORE

        await until(has_videos, "there are videos")
        answered = [Counter(customers.answered)]
        bad = await all_leave(first)
        answered.append(Counter(customers.answered))
        await put_back(fleet, first)
        answered.append(Counter(customers.answered))
        bad += await all_leave(second)
        answered.append(Counter(customers.answered))
        customers.over.set()
        await asyncio.gather(*jobs)
        await settled(customers)

        assert bad == []
        assert customers.failures == []
        while_leaving = [answered[1] - answered[0], answered[3] - answered[2]]
        for counts in while_leaving:
            assert min(counts[kind] for kind in ("credits", "generation", "rest")) > 0, answered
        await assert_paid_exactly_once(customers)
        await assert_webhooks_arrived(fleet)
        # What the streams told, over all their ends and beginnings.
        await until(lambda: told(customers), "streams have told of all")

    videos = sum(map(len, customers.made.values()))
    said = f"{videos} videos; answered: {while_leaving}; repeated: {customers.repeated}"
    print(said)  # noqa: T201  For whoever looks.


async def settled(customers: Customers) -> None:
    """Waits until all that was asked for has ended."""

    async def is_settled() -> bool:
        ends = [await customers.ends(user) for user in customers.made]
        return all(generation.is_final for of_user in ends for generation in of_user)

    await until(is_settled, "all has ended")


async def assert_paid_exactly_once(customers: Customers) -> None:
    for user, made in customers.made.items():
        ends = await customers.ends(user)
        assert sorted(one.generation_id for one in ends) == sorted(made)
        assert {one.status for one in ends} == {Status.COMPLETED}
        transactions = [one async for one in customers.credits_.transactions(user)]
        spent = sum(one.credits for one in transactions if one.reservation_id in made)
        assert spent == -PRICE * len(made)
    for user, credits_left in customers.left.items():
        balance = await customers.credits_.get_balance(user)
        assert (balance.available_credits, balance.reserved_credits) == (credits_left, 0)
    assert not (await customers.credits_.verify_ledger()).violations


async def assert_webhooks_arrived(fleet: Fleet) -> None:
    """Each webhook of an end was answered with 200, if need be when it was sent again."""
    async with SimulatorControl(fleet.simulator["control"]) as simulator:
        predictions = await simulator.predictions()
    assert predictions
    for prediction in predictions:
        codes = [one["status"] for one in prediction["attempts"] if one["event"] == "completed"]
        assert codes, prediction["id"]
        assert codes[-1] == 200, (prediction["id"], prediction["attempts"])


async def told(customers: Customers) -> bool:
    watched = {user: set(customers.made[user]) for user in customers.seen}
    balance = customers.seen_balance["spender-0"] == customers.left["spender-0"]
    return balance and customers.seen == watched


def test_a_stack_that_is_told_to_stop_at_work_leaves_and_goes_on_where_it_was(
    tmp_path: Path,
) -> None:
    settings = HURRIED | {"REELWORKS_WELCOME_BONUS_CREDITS": str(CREDITS_EACH)}
    with start(tmp_path / "var", **settings) as stack:
        made = asyncio.run(ask_until_nobody_answers(stack))

        assert stack.process.wait(EXIT_S_MAX) == 0
        lines = stack.log.read_text().splitlines()
        for service in CLEAN:
            mine = [line for line in lines if line.startswith(f"{service} ")]
            assert any(line.rstrip().endswith("left") for line in mine), (service, mine[-5:])
        assert not [line for line in lines if "ended with" in line or "ended by" in line]
    assert len(made) >= VIDEOS_BEFORE

    with start(tmp_path / "var", **settings) as again:
        asyncio.run(assert_all_is_made_and_paid(again, made))
        assert again.run("credits", "verify").returncode == 0


def create(generations: GenerationClient, generation_id: str) -> Coroutine[Any, Any, Generation]:
    return generations.create(
        USER, Kind.TEXT_TO_VIDEO, "t2v-14B", "480p", PROMPT, generation_id=generation_id
    )


async def ask_until_nobody_answers(stack: Running) -> list[str]:
    """Asks for one video after the other, of which a few are begun when the stack has to stop."""
    addresses = stack.up_file.addresses
    made: list[str] = []
    async with CreditsClient(addresses["credits"]) as credits_:
        await credits_.open_account(USER)
    async with GenerationClient(addresses["generation"]) as generations:
        while True:
            made.append(new_generation_id())
            try:
                await create(generations, made[-1])
            except (Unavailable, DeadlineExceeded):
                assert len(made) > VIDEOS_BEFORE, "it stopped before it was told to"
                return made
            if len(made) == VIDEOS_BEFORE:
                stack.process.send_signal(signal.SIGTERM)


async def assert_all_is_made_and_paid(stack: Running, made: list[str]) -> None:
    """Repeats every call, which changes nothing of what is, and waits for the ends."""
    addresses = stack.up_file.addresses
    async with GenerationClient(addresses["generation"]) as generations:
        for generation_id in made:
            await create(generations, generation_id)

        async def has_ended() -> bool:
            return all([one.is_final async for one in generations.history(USER)])

        await until(has_ended, "all has ended")
        ends = [one async for one in generations.history(USER)]
    assert {one.generation_id for one in ends} == set(made)
    assert {one.status for one in ends} == {Status.COMPLETED}
    async with CreditsClient(addresses["credits"]) as credits_:
        balance = await credits_.get_balance(USER)
    assert balance.available_credits == CREDITS_EACH - PRICE * len(made)
