"""Runs cases: users ask for videos, the process is killed at its point, and all must end well."""

import asyncio
import contextlib
import json
import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from services.client.credits import CreditsClient
from services.client.generations import (
    Generation,
    GenerationClient,
    Kind,
    UploadedImage,
    new_generation_id,
)
from services.client.health import is_serving
from services.generation import tables
from services.runtime.errors import DeadlineExceeded, Overloaded, PreconditionFailed, Unavailable
from services.simulator.client import SimulatorControl
from services.simulator.faults.action import Operation
from services.simulator.faults.fault import Match
from tests.chaos.cases import CALM_S, MARGIN_S, Case, Effect, Traffic
from tests.chaos.evidence import Books, Limits, gather_evidence, opened_books
from tests.chaos.house import Ground, House, opened_house
from tests.chaos.judge import Finding, judge
from tests.chaos.saga_table import ENDS
from tests.pictures import make_picture

HOUSES = 4
"""How many cases run at a time: most of a case is waiting."""
CASE_S_MAX = 100.0
PRODUCT = "services.generation.__main__"
LOOK_S = 0.1
PAUSE_S = 0.05
OVERLOADED_PAUSE_S = 0.3
PROMPT = "a red fox running through fresh snow [slow]"
"""Long enough to be looked at."""
STUCK = "a train that waits in a dark valley [stuck]"
"""Runs until it is canceled."""

USUAL_LIMITS = Limits()

T = TypeVar("T")


@dataclass
class Outcome:
    """What came of a case."""

    case: Case
    findings: Sequence[Finding] = ()
    problems: list[str] = field(default_factory=list)
    """What else was not as it must be."""
    ends: Mapping[str, str] = field(default_factory=dict)
    """How the generations ended."""
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        return not self.findings and not self.problems

    def __str__(self) -> str:
        said = [*self.problems, *map(str, self.findings)]
        return "\n  ".join([f"{self.case.name}: {dict(self.ends)}", *said])


@dataclass(frozen=True)
class User:
    """Somebody who asks for one video."""

    clients: GenerationClient
    books: Books
    stays: asyncio.Event
    """Set when the process that runs is not to be killed any more."""
    user_id: str
    generation_id: str
    traffic: Traffic
    is_abandoned: bool = False
    """Whether they cancel while nobody knows what became of the create."""
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the first call has come back, in whatever way."""

    async def run(self) -> None:
        """Asks, repeats what was not answered, and perhaps cancels."""
        image_uri = ""
        if self.traffic is Traffic.IMAGE:
            image_uri = (await self._insist(self._upload)).image_uri
        await self._insist(lambda: self._create(image_uri))
        if self.cancels:
            await self._cancel()

    @property
    def cancels(self) -> bool:
        return self.traffic is Traffic.CANCELED or self.is_abandoned

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Makes a call until it is answered; again only when nobody is to be killed any more."""
        while True:
            try:
                return await call()
            except (Unavailable, DeadlineExceeded):
                self.asked.set()
                await self.stays.wait()
                await asyncio.sleep(PAUSE_S)
            except Overloaded:
                # So short a deadline leaves no time to wait in a line.
                await asyncio.sleep(OVERLOADED_PAUSE_S)
            finally:
                self.asked.set()

    async def _upload(self) -> UploadedImage:
        return await self.clients.upload_image(self.user_id, make_picture())

    async def _create(self, image_uri: str) -> Generation:
        is_image = self.traffic is Traffic.IMAGE
        return await self.clients.create(
            self.user_id,
            Kind.IMAGE_TO_VIDEO if is_image else Kind.TEXT_TO_VIDEO,
            "i2v-14B" if is_image else "t2v-1.3B",
            "480p",
            STUCK if self.cancels or self.traffic is Traffic.OVERDUE else PROMPT,
            image_uri=image_uri,
            generation_id=self.generation_id,
        )

    async def _cancel(self) -> None:
        """Cancels once the provider has the job, or once nobody knows whether it has."""
        wanted = {"SUBMITTING"} if self.is_abandoned else {"RUNNING", *ENDS}
        while True:
            rows = await self.books.rows(tables.generations)
            row = next(row for row in rows if row["generation_id"] == self.generation_id)
            is_open = row["uncertain_since"] is not None or not self.is_abandoned
            if row["stage"] in wanted and is_open:
                break
            await asyncio.sleep(LOOK_S)
        # That it ended before is no failure.
        with contextlib.suppress(PreconditionFailed):
            await self._insist(lambda: self.clients.cancel(self.user_id, self.generation_id))


@dataclass(frozen=True)
class Scene:
    """A house with a database of its own, and whoever looks into it."""

    house: House
    url: str
    books: Books
    clients: GenerationClient
    credits_: CreditsClient
    simulator: SimulatorControl
    user_id: str

    async def create(self, prompt: str = PROMPT, generation_id: str | None = None) -> str:
        """Asks for a video and returns its id."""
        created = await self.clients.create(
            self.user_id,
            Kind.TEXT_TO_VIDEO,
            "t2v-1.3B",
            "480p",
            prompt,
            generation_id=generation_id,
        )
        return created.generation_id

    async def settled(self, limit_s: float = CASE_S_MAX) -> None:
        """Waits until there is nothing left to do."""
        await eventually(self._is_settled, limit_s)

    async def _is_settled(self) -> bool:
        return not await unsettled(self.books)

    async def verdict(self, limits: Limits = USUAL_LIMITS) -> list[Finding]:
        """Returns what was done wrong."""
        media = self.house.folder / "media"
        evidence = await gather_evidence(self.books, self.simulator, self.credits_, media, limits)
        return judge(evidence)

    async def stages(self) -> dict[str, str]:
        """Returns in which stage each generation is."""
        rows = await self.books.rows(tables.generations)
        return {row["generation_id"]: row["stage"] for row in rows}


@contextlib.asynccontextmanager
async def opened_scene(house: House, backend: str = "sqlite") -> AsyncIterator[Scene]:
    """A new database, and an account; nothing of generation runs in the house after it."""
    url = house.ground.databases.make("generation", backend)
    try:
        async with (
            house.ground.simulating() as simulator,
            opened_books(url) as books,
            house.generations() as clients,
            house.credits() as credits_,
        ):
            user_id = f"user-{uuid.uuid4().hex}"
            await eventually(lambda: is_serving(house.ground.credits_address))
            await credits_.open_account(user_id)
            yield Scene(house, url, books, clients, credits_, simulator, user_id)
    finally:
        house.kill_all()
        house.ground.databases.drop(url)


async def eventually(question: Callable[[], Awaitable[bool]], limit_s: float = CASE_S_MAX) -> None:
    """Waits until something is so; raises TimeoutError if it is not so in time."""
    async with asyncio.timeout(limit_s):
        while not await question():  # noqa: ASYNC110  Other processes decide.
            await asyncio.sleep(LOOK_S)


async def run_case(house: House, case: Case, product: str = PRODUCT) -> Outcome:
    """Returns what came of a case, with this house to itself."""
    outcome, begun_at = Outcome(case), time.monotonic()
    async with opened_scene(house, case.backend) as scene:
        begun, stays = asyncio.Event(), asyncio.Event()

        def user(traffic: Traffic, *, is_abandoned: bool = False) -> User:
            return User(
                scene.clients, scene.books, stays, scene.user_id, new_generation_id(), traffic,
                is_abandoned,
            )  # fmt: skip

        subject = user(case.traffic)
        companion = user(case.point.traffic or Traffic.PLAIN, is_abandoned=case.point.is_abandoned)
        await _spoil(scene.simulator, case, subject, companion)
        try:
            async with asyncio.timeout(CASE_S_MAX), asyncio.TaskGroup() as tasks:
                tasks.create_task(_keep_killing(scene, case, begun, stays, product))
                await begun.wait()
                tasks.create_task(subject.run())
                await subject.asked.wait()
                tasks.create_task(companion.run())
            await scene.settled()
        except (TimeoutError, ExceptionGroup) as error:
            # What a user was told that is no outage, for one. The other cases go on.
            outcome.problems += [repr(error), await _situation(scene, stays)]
        house.kill_all()
        outcome.findings = await scene.verdict(_limits_of(case))
        stages = await scene.stages()
        outcome.ends = {
            name: stages[one.generation_id]
            for name, one in (("subject", subject), ("companion", companion))
            if one.generation_id in stages
        }
        outcome.problems += _unexpected(case, outcome.ends)
        firings = await scene.simulator.firings()
        if not any(one.generation == subject.generation_id for one in firings):
            outcome.problems.append("the fault did not fire")
        await _clear(scene.simulator, subject, companion)
    outcome.seconds = time.monotonic() - begun_at
    return outcome


async def _spoil(simulator: SimulatorControl, case: Case, subject: User, companion: User) -> None:
    """Puts the faults of a case into force."""
    mine = Match(operation=Operation.CREATE, generation=subject.generation_id)
    await simulator.fault(case.fault.action, mine)
    for one in case.point.companion:
        match = Match(operation=one.operation, generation=companion.generation_id)
        await simulator.fault(one.action, match, times=one.times, lasts_s=one.lasts_s)


async def _clear(simulator: SimulatorControl, *users: User) -> None:
    """Removes what is left of the faults of a case; other houses have theirs."""
    ids = {user.generation_id for user in users}
    for fault in await simulator.faults():
        if fault.fault.match.generation in ids:
            await simulator.remove(fault)


async def _keep_killing(
    scene: Scene, case: Case, begun: asyncio.Event, stays: asyncio.Event, product: str
) -> None:
    """Lets one process after the other die at its point; the last one stays."""
    durations = {"deadline_s": CALM_S, "submit_margin_s": MARGIN_S}
    settings = {"DURATIONS": json.dumps(durations)} | dict(case.point.settings)
    for point in (*case.point.kills, ""):
        process = scene.house.start(scene.url, failpoints=point, product=product, settings=settings)
        if not begun.is_set():
            await scene.house.ready()
            begun.set()
        if point:
            while process.code is None:  # noqa: ASYNC110  Another process decides.
                await asyncio.sleep(PAUSE_S)
            assert process.code == -signal.SIGKILL, process.log.read_text()[-4000:]
    assert await scene.house.ready(), process.log.read_text()[-4000:]
    stays.set()


async def unsettled(books: Books) -> list[str]:
    """Returns what is still to be done, in words."""
    generations = await books.rows(tables.generations)
    attempts, predictions = await books.rows(tables.attempts), await books.rows(tables.predictions)
    return [
        *(f"{g['generation_id']} is {g['stage']}" for g in generations if g["due_at"] is not None),
        *(f"attempt {a['attempt']} is {a['state']}" for a in attempts if a["state"] == "OPEN"),
        *(f"attempt {a['attempt']} is looked for" for a in attempts if a["search_at"] is not None),
        *(f"{p['job_id']} is an orphan" for p in predictions if p["due_at"] is not None),
    ]


async def _situation(scene: Scene, stays: asyncio.Event) -> str:
    place = scene.house.replicas[0].process
    log = place.log.read_text()[-1500:] if place else ""
    came = "came" if stays.is_set() else "did not come"
    return f"it {came} to its point; not done: {await unsettled(scene.books)}\n{log}"


def _limits_of(case: Case) -> Limits:
    if "CREATES_BURST" not in case.point.settings:
        return USUAL_LIMITS
    return Limits(
        creates_per_s=float(case.point.settings["CREATES_PER_S"]),
        creates_burst=int(case.point.settings["CREATES_BURST"]),
    )


def _unexpected(case: Case, ends: Mapping[str, str]) -> list[str]:
    """Returns which generation ended otherwise than it must."""
    if case.point.settings:
        return []  # There is no time for both, and which is left is chance.
    good = {Traffic.CANCELED: "CANCELED"}
    companion = {good.get(case.point.traffic or Traffic.PLAIN, "COMPLETED")}
    if case.point.is_abandoned:
        companion = {"CANCELED"}
    subject = {good.get(case.traffic, "COMPLETED")}
    if case.fault.effect in (Effect.REFUSED, Effect.NOTHING):
        # Lost once to the crash and once to the fault, it is not tried a third time. And a refusal
        # that nobody lived to hear is one of the two.
        subject.add("FAILED")
    wanted = {"subject": subject, "companion": companion}
    return [
        f"the {name} ended {ends.get(name)}, and not {' or '.join(sorted(allowed))}"
        for name, allowed in wanted.items()
        if ends.get(name) not in allowed
    ]


async def run_cases(
    ground: Ground,
    cases: Sequence[Case],
    houses: int,
    done: Callable[[Outcome], None] = lambda _: None,
) -> list[Outcome]:
    """Runs cases in so many houses at a time, since most of a case is waiting."""
    waiting, outcomes = iter(cases), []

    async def live() -> None:
        with opened_house(ground) as house:
            for case in waiting:
                outcomes.append(await run_case(house, case))
                done(outcomes[-1])

    async with asyncio.TaskGroup() as tasks:
        for _ in range(houses):
            tasks.create_task(live())
    return outcomes
