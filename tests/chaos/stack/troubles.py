"""Carries out the troubles of a plan, and keeps alive what is not to be dead."""

import asyncio
import signal
import time
from collections.abc import Mapping, Sequence

from aiohttp import ClientError

from services.simulator.client import ControlError
from services.simulator.faults.actions import CreateThenHang, ListLag
from services.simulator.faults.fault import AnyAction, Fault
from services.simulator.faults.profiles import Profile, profile_faults
from tests.chaos.evidence import opened_books
from tests.chaos.saga_table import ENDS
from tests.chaos.stack.plan import Mode, Service, Trouble
from tests.chaos.stack.stack import Place, Stack

LOOK_S = 0.05
RESTART_S = 0.3
ARMED_S = 5.0
"""How long a process may wait at its failpoint before something else happens to it."""
USAGE_ERROR = 2
QUICKENED: Mapping[type[AnyAction], AnyAction] = {
    ListLag: ListLag(lag_s=2.0),
    CreateThenHang: CreateThenHang(hang_s=3.0),
}
"""In place of what would last as long as it does at the provider itself."""
DATABASE_AWAY_S = 10.0
"""After a restart or trouble on the way, so long a start may fail for want of a database."""


def weather(profile: Profile, lasts_s: float) -> Sequence[Fault]:
    """Returns the faults of a weather, quickened as the stack is.

    A list that lags longer than the product waits for it, or an answer that is still to come when
    the run is over, would break what nobody promised.
    """
    return [
        fault.model_copy(update={"action": QUICKENED.get(type(fault.action), fault.action)})
        for fault in profile_faults(profile, lasts_s)
    ]


class Troublemaker:
    """What is done to a stack while people use it."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._journal = stack.journal
        self._restarting = asyncio.Lock()
        self._database_away_at = float("-inf")

    async def run(self, troubles: Sequence[Trouble]) -> None:
        """Makes each trouble at its time; those of one place one after the other."""
        begun = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as tasks:
            for trouble in troubles:
                pause_s = begun + trouble.at_s - asyncio.get_running_loop().time()
                await asyncio.sleep(max(pause_s, 0))
                tasks.create_task(self._make(trouble))

    async def watch(self) -> None:
        """Starts again what has ended and is wanted, and notes who ended by themselves.

        Does so until it is canceled; nobody is being started when it returns.
        """
        async with asyncio.TaskGroup() as tasks:
            while True:
                if self._restarting.locked() or self._silent_databases():
                    self._database_away_at = time.monotonic()
                for place in self._stack.places:
                    if place.is_wanted and not place.is_busy and place.has_ended:
                        await self._note_end(place)
                        place.is_busy = True
                        tasks.create_task(self._restart(place))
                await asyncio.sleep(LOOK_S)

    async def _restart(self, place: Place) -> None:
        """Starts a process as whatever watches over it does: not in a loop that burns."""
        await asyncio.sleep(RESTART_S)
        self._stack.start(place)
        place.is_busy = False

    async def _note_end(self, place: Place) -> None:
        process = place.process
        assert process is not None
        if place.failpoint and process.code == -signal.SIGKILL:
            self._journal.note(
                "hit",
                service=place.service,
                replica=place.number,
                failpoint=place.failpoint.partition("=")[0],
                generation_ids=await self._unfinished(place),
            )
            return
        if process.code == USAGE_ERROR and not self._database_is_there():
            # It says that it cannot use its database and goes; whoever watches over it comes back.
            self._journal.note("not_started", place=place.name)
            return
        tail = process.log.read_text()[-2000:] if process.log.exists() else ""
        self._journal.note("crashed", place=place.name, code=process.code, log=tail)

    def _silent_databases(self) -> bool:
        links = self._stack.links.values()
        return any(
            one.name.startswith("database") and one.mode is not Mode.PASSING for one in links
        )

    def _database_is_there(self) -> bool:
        """Tells whether databases were within reach all the last seconds."""
        return time.monotonic() - self._database_away_at > DATABASE_AWAY_S

    async def _unfinished(self, place: Place) -> list[str]:
        """Returns what was under way, of a worker what it had last; nothing if nobody can tell."""
        assert place.process is not None
        mine = f":{place.process.process_id}"
        try:
            async with (
                asyncio.timeout(2.0),
                opened_books(self._stack.databases[Service.GENERATION]) as books,
            ):
                rows = await books.claims()
        except Exception:  # noqa: BLE001  The database may be away too, and this is only a figure.
            return []
        return [
            row["generation_id"]
            for row in rows
            if row["stage"] not in ENDS
            and (place.service is not Service.GENERATION or str(row["claimed_by"]).endswith(mine))
        ]

    async def _make(self, trouble: Trouble) -> None:
        values = {
            name: value for name, value in vars(trouble).items() if value or name == "replica"
        }
        try:
            done = await self._do(trouble)
        except (ControlError, ClientError, OSError, TimeoutError) as error:
            self._journal.note("failed", trouble=values, error=repr(error))
        else:
            self._journal.note("done" if done else "skipped", trouble=values)

    async def _do(self, trouble: Trouble) -> bool:
        stack = self._stack
        match trouble.what:
            case "kill" | "failpoint" | "freeze":
                return await self._hit(trouble)
            case "leave":
                return await self._deploy(Service(trouble.service))
            case "join":
                return await self._join(Service(trouble.service), trouble.replica)
            case "restart":
                assert stack.server is not None
                async with self._restarting:
                    await asyncio.to_thread(stack.server.restart)
            case "network":
                link = stack.links[trouble.link]
                if link.mode is not Mode.PASSING:
                    return False
                link.change(Mode(trouble.mode))
                await asyncio.sleep(trouble.lasts_s)
                link.change(Mode.PASSING)
            case "weather":
                for fault in weather(Profile(trouble.profile), trouble.lasts_s):
                    await stack.simulator.fault(
                        fault.action, fault.match, times=fault.times, lasts_s=fault.lasts_s
                    )
            case "fault":
                fault = Fault.model_validate(dict(trouble.fault))
                await stack.simulator.fault(fault.action, fault.match, times=fault.times)
            case "skew":
                await stack.simulator.change_clock(skew_s=trouble.skew_s)
                await asyncio.sleep(trouble.lasts_s)
                await stack.simulator.change_clock(skew_s=0.0)
            case what:
                raise AssertionError(f"nobody knows the trouble {what}")
        return True

    async def _hit(self, trouble: Trouble) -> bool:
        """Kills a process, or has it stand still; False if all of its kind are in trouble."""
        place = await self._chosen(Service(trouble.service), trouble.replica)
        if place is None:
            return False
        if trouble.what != "freeze":
            self._note_unhit(place)
        place.is_busy = True
        process = place.process
        assert process is not None
        try:
            if trouble.what == "freeze":
                process.send(signal.SIGSTOP)
                await asyncio.sleep(trouble.lasts_s)
                process.send(signal.SIGCONT)
                return True
            await asyncio.to_thread(process.kill)
            await asyncio.sleep(trouble.lasts_s if trouble.what == "kill" else 0.0)
            self._stack.start(place, trouble.failpoint)
        finally:
            place.is_busy = False
        return True

    async def _chosen(self, service: Service, number: int) -> Place | None:
        """Returns who is to be troubled; who waits to die by itself is given time for it."""
        ends_at = time.monotonic() + ARMED_S
        while True:
            place = self._victim(service, number)
            if place is None or not place.failpoint or time.monotonic() > ends_at:
                return place
            await asyncio.sleep(LOOK_S)

    def _note_unhit(self, place: Place) -> None:
        if place.failpoint and place.is_alive:
            self._journal.note("unhit", failpoint=place.failpoint.partition("=")[0])

    def _victim(self, service: Service, number: int) -> Place | None:
        """Returns a process that is in no trouble, if possible none that waits to die by itself."""
        able = [
            place
            for place in self._stack.places_of(service)
            if not place.is_busy and place.is_alive and place.is_wanted
        ]
        able.sort(key=lambda place: (bool(place.failpoint), place.number != number))
        return able[0] if able else None

    async def _deploy(self, service: Service) -> bool:
        """Replaces the processes of a service one after the other, as a deploy does."""
        for place in self._stack.places_of(service):
            if place.is_busy or not place.is_alive or not place.is_wanted:
                continue
            place.is_busy = True
            try:
                # Who is only starting ends by the signal itself, and leaves nothing.
                if await self._stack.ready(place) or not place.has_ended:
                    await self._leave(place)
                else:
                    await self._note_end(place)  # It did not start, and nobody told it to go.
                self._stack.start(place)
                await self._stack.ready(place)
            finally:
                place.is_busy = False
        return True

    async def _leave(self, place: Place) -> None:
        await self._stack.leave(place)
        code = place.process.code if place.process else None
        if place.failpoint and code == -signal.SIGKILL:
            await self._note_end(place)  # It came by on its way out.
        elif code != 0:
            self._journal.note("left", place=place.name, code=code)
        elif place.failpoint:
            self._journal.note("unhit", failpoint=place.failpoint.partition("=")[0])

    async def _join(self, service: Service, number: int) -> bool:
        place = self._stack.place(service, number)
        if place.is_alive:
            return False
        self._stack.start(place)
        return True

    async def calm(self) -> None:
        """Ends all trouble: everything runs, nothing is armed, and the provider is well."""
        for link in self._stack.links.values():
            link.change(Mode.PASSING)
        await self._stack.simulator.remove_all()
        await self._stack.simulator.change_clock(skew_s=0.0)
        for place in self._stack.places:
            if place.failpoint and place.is_alive:
                # Nobody came by; it must not die now of all times.
                assert place.process is not None
                self._note_unhit(place)
                place.is_busy = True
                await asyncio.to_thread(place.process.kill)
                self._stack.start(place)
                place.is_busy = False
