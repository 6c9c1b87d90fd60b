"""Two real processes of each service on one PostgreSQL, to be told to leave one by one."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from services.client.health import is_serving
from services.webhook.ingress import WEBHOOK_PATH
from tests.chaos.house import CREDITS_EACH, environment_of, running_simulator
from tests.chaos.stack.links import Link, opened_links
from tests.serving import free_address

__all__ = ["Fleet", "Member", "opened_fleet", "until"]

SPEED = 100.0
TOKEN = "r8_fleet"
REPLICAS = 2
DRAIN_S = 0.5
GRACE_S = 20.0
LIMIT_S = 90.0
"""For anything, on a machine on which much else runs."""
LOOK_S = 0.05
RATES = ("CREATES", "UPLOADS", "CALLS", "SIGN_INS")
CALLERS = {"credits": ("generation", "web"), "generation": ("webhook", "web")}
TABLES = ("tcp", "tcp6")
"""The kernel's, of connections: gRPC uses both kinds."""
PATIENT = {
    "credits_call_s": 10.0,
    "credits_lease_s": 15.0,
    "provider_call_s": 10.0,
    "provider_lease_s": 25.0,
    "archive_call_s": 10.0,
    "archive_lease_s": 15.0,
    "send_before_s": 10.0,
}
"""Calls have time enough for a machine that is busy: what is tested here is no timeout."""


async def until(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Returns when something is so; fails when it is not so in time."""
    ends_at = time.monotonic() + LIMIT_S
    while not await holds():
        assert time.monotonic() < ends_at, f"{what}: it did not happen in time"
        await asyncio.sleep(LOOK_S)


@dataclass
class Member:
    """One process of a service, and its place."""

    service: str
    number: int
    folder: Path
    environment: dict[str, str]
    address: str = field(default_factory=free_address)
    """Where it answers gRPC; web, HTTP."""
    http_address: str = field(default_factory=free_address)
    """Where the webhook service takes webhooks."""
    process: asyncio.subprocess.Process | None = None

    @property
    def name(self) -> str:
        return f"{self.service}-{self.number}"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    async def start(self) -> None:
        """Starts the process, as whoever deploys does."""
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", f"services.{self.service}"),
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    async def ready(self) -> None:
        """Waits until it answers."""
        await until(self._answers, f"{self.name} answers")

    async def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, self.log.read_text()
        match self.service:
            case "web":
                return await _is_well(f"http://{self.address}/healthz/ready")
            case "webhook":
                is_well = await _is_well(f"http://{self.http_address}/healthz")
                return is_well and await is_serving(self.address)
            case _:
                return await is_serving(self.address)

    async def leave(self) -> tuple[int, float]:
        """Tells it to go; returns its exit code, and after how many seconds it was gone."""
        assert self.process is not None
        told_at = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(LIMIT_S):
            code = await self.process.wait()
        return code, time.monotonic() - told_at

    def has_callers(self, processes: Sequence[int]) -> bool:
        """Tells whether each of the processes has a connection to its gRPC server."""
        port = f":{int(self.address.rpartition(':')[2]):04X}"
        tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in TABLES]
        rows = [line.split() for table in tables for line in table]
        sockets = {f"socket:[{row[9]}]" for row in rows if row[2].endswith(port)}
        return all(sockets & _open_files(process) for process in processes)


@dataclass(frozen=True)
class Fleet:
    """All processes, and where they are reached."""

    folder: Path
    simulator: dict[str, str]
    """Addresses of its listeners."""
    members: Sequence[Member]

    def of(self, service: str) -> list[Member]:
        return [member for member in self.members if member.service == service]

    def replicas(self, number: int) -> list[Member]:
        """Returns one process of each service."""
        return [member for member in self.members if member.number == number]

    def target(self, service: str) -> str:
        """Where clients reach any replica of a service."""
        return f"ipv4:{','.join(member.address for member in self.of(service))}"

    def callers_of(self, member: Member) -> list[int]:
        """Returns the processes that call a member: this one is a customer."""
        services = CALLERS.get(member.service, ())
        running = [m.process.pid for m in self.members if m.service in services and m.process]
        return [*running, os.getpid()] if services else []

    async def start(self, members: Sequence[Member]) -> None:
        """Starts processes and waits until all answer."""
        for member in members:
            await member.start()
        await asyncio.gather(*(member.ready() for member in members))


@contextlib.asynccontextmanager
async def opened_fleet(
    folder: Path, databases: dict[str, str], **settings: str
) -> AsyncIterator[Fleet]:
    """A fleet of which everything runs; `settings` are for all of its services."""
    for name in ("callback_keys", "session_keys"):
        (folder / name).write_text(base64.b64encode(os.urandom(32)).decode() + "\n")
    with running_simulator(SPEED, [TOKEN], folder / "simulator.log") as simulator:
        fleet = Fleet(folder, simulator, _members(folder))
        doors = [member.http_address for member in fleet.of("webhook")]
        try:
            # As whatever stands before two doors: it knocks at the next if one is closed.
            async with opened_links([Link("public", doors)]) as links:
                for member in fleet.members:
                    given = _settings(fleet, member, links["public"].address, databases)
                    member.environment |= environment_of(**given, **settings) | {
                        "REPLICATE_API_TOKEN": TOKEN,
                        "REPLICATE_BASE_URL": simulator["api"],
                    }
                # Web is of no use before the others are.
                await fleet.start([m for m in fleet.members if m.service != "web"])
                await fleet.start(fleet.of("web"))
                yield fleet
        finally:
            for member in fleet.members:
                if member.process is not None and member.process.returncode is None:
                    member.process.kill()
                    await member.process.wait()


def _members(folder: Path) -> list[Member]:
    return [
        Member(service, number, folder, {})
        for service in ("credits", "generation", "webhook", "web")
        for number in range(REPLICAS)
    ]


def _settings(
    fleet: Fleet, member: Member, public: str, databases: dict[str, str]
) -> dict[str, str]:
    folder = fleet.folder
    usual = {
        "ADDRESS": member.address,
        "DRAIN_S": str(DRAIN_S),
        "GRACE_S": str(GRACE_S),
        "CALLBACK_KEYS_FILE": str(folder / "callback_keys"),
        "STORAGE_URL": (folder / "media").as_uri(),
        "CREDITS_ADDRESS": fleet.target("credits"),
        "GENERATION_ADDRESS": fleet.target("generation"),
    }
    if member.service in databases:
        usual["DATABASE_URL"] = databases[member.service]
    match member.service:
        case "credits":
            return usual | {"WELCOME_BONUS_CREDITS": str(CREDITS_EACH)}
        case "generation":
            return usual | {
                "WEBHOOK_PUBLIC_URL": f"http://{public}{WEBHOOK_PATH}",
                "DELIVERY_ORIGINS": fleet.simulator["delivery"],
                "UNFINISHED_MAX": "1000",
                # Nobody polls before a webhook had its chance: what is asked for here is that none
                # is lost.
                "POLL_INTERVAL_S": "5",
                "DURATIONS": json.dumps(PATIENT),
            }
        case "webhook":
            return usual | {"HTTP_ADDRESS": member.http_address, "LEASE_S": "2"}
        case _:
            return (
                usual
                | {f"{name}_PER_MINUTE": "1000000" for name in RATES}
                | {
                    "SESSION_KEYS_FILE": str(folder / "session_keys"),
                    "DEVELOPMENT_KEY_FILE": str(folder / "development_key"),
                    "SIGN_IN": "development",
                }
            )


def _open_files(process: int) -> set[str]:
    found = set()
    for file in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(OSError):  # It was closed meanwhile.
            found.add(str(file.readlink()))
    return found


async def _is_well(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        async with httpx.AsyncClient() as client:
            return (await client.get(url)).is_success
    return False
