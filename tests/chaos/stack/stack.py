"""All services as real processes, and links between them, to be killed, frozen and sent away."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.client.credits import CreditsClient
from services.client.generations import GenerationClient
from services.client.health import is_serving
from services.simulator.client import SimulatorControl
from services.webhook.ingress import WEBHOOK_PATH
from tests.chaos.house import (
    CREDITS_EACH,
    READY_S_MAX,
    Databases,
    environment_of,
    running_simulator,
)
from tests.chaos.processes import Nursery, Process, opened_nursery
from tests.chaos.stack.journal import Journal
from tests.chaos.stack.links import Link, opened_links
from tests.chaos.stack.plan import Service, Settings, links_of
from tests.postgresql import PostgresqlServer
from tests.serving import free_address

SPEED = 100.0
TOKEN = "r8_stack"
LEASE_S = "2"
MARGIN_S = 8.0
CREATES_PER_S = 10.0
IN_FLIGHT_MAX = 100
LOOK_S = 0.05
LEAVE_S_MAX = 30.0


@dataclass
class Place:
    """Where one process of a service runs, again and again."""

    service: Service
    number: int
    address: str
    """Of its gRPC server."""
    http_address: str = ""
    process: Process | None = None
    failpoint: str = ""
    """Where the process is to die by itself."""
    is_wanted: bool = False
    """Whether it is started again when it has ended."""
    is_busy: bool = False
    """Whether somebody is troubling it."""

    @property
    def name(self) -> str:
        return f"{self.service}-{self.number}"

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.code is None

    @property
    def has_ended(self) -> bool:
        return self.process is not None and self.process.code is not None


@dataclass
class Stack:
    """The processes of a run, their databases, and the links between them."""

    settings: Settings
    folder: Path
    journal: Journal
    nursery: Nursery
    links: Mapping[str, Link]
    simulator: SimulatorControl
    addresses: Mapping[str, str]
    """Of the simulator's listeners."""
    databases: Mapping[Service, str]
    """URLs that lead to the databases directly."""
    server: PostgresqlServer | None
    places: Sequence[Place]
    products: Mapping[Service, str] = field(default_factory=dict)
    """The modules that run, where others than the services' own."""

    def places_of(self, service: Service) -> list[Place]:
        return [place for place in self.places if place.service is service]

    def place(self, service: Service, number: int) -> Place:
        return next(p for p in self.places if p.service is service and p.number == number)

    @property
    def media(self) -> Path:
        return self.folder / "media"

    def start(self, place: Place, failpoint: str = "") -> None:
        """Starts a process at a place, to die at a failpoint if one is given."""
        place.failpoint = failpoint
        place.is_wanted = True
        module = self.products.get(place.service, f"services.{place.service}.__main__")
        environment = self._environment(place) | {"REELWORKS_FAILPOINTS": failpoint}
        place.process = self.nursery.start(module, environment, self.folder, place.name)

    async def ready(self, place: Place) -> bool:
        """Waits until the process at a place answers; False if it ended before."""
        process, ends_at = place.process, time.monotonic() + READY_S_MAX
        while process is not None and process.code is None:
            if await is_serving(place.address):
                return True
            if time.monotonic() > ends_at:
                return False
            await asyncio.sleep(LOOK_S)
        return False

    async def leave(self, place: Place) -> None:
        """Tells a process to go, as a deploy does, and waits until it is gone."""
        place.is_wanted = False
        if place.process is not None:
            place.process.send(signal.SIGTERM)
            ends_at = time.monotonic() + LEAVE_S_MAX
            while place.process.code is None and time.monotonic() < ends_at:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S)
            if place.process.code is None:
                self.journal.note("stubborn", place=place.name)
                await asyncio.to_thread(place.process.kill)

    def kill_all(self) -> None:
        for place in self.places:
            place.is_wanted = False
            if place.process is not None and place.process.code is None:
                place.process.kill()

    def generations(self) -> GenerationClient:
        """Returns a client that goes over the same network as everybody."""
        return GenerationClient(self._target(Service.GENERATION))

    def credits(self) -> CreditsClient:
        return CreditsClient(self._target(Service.CREDITS))

    def credits_directly(self) -> CreditsClient:
        return CreditsClient(self.place(Service.CREDITS, 0).address)

    def _target(self, service: Service) -> str:
        found = [self.links[place.name].address for place in self.places_of(service)]
        return found[0] if len(found) == 1 else f"ipv4:{','.join(found)}"

    def _environment(self, place: Place) -> dict[str, str]:
        usual = {"ADDRESS": place.address, "DATABASE_URL": self._database_url(place.service)}
        match place.service:
            case Service.CREDITS:
                return environment_of(**usual, WELCOME_BONUS_CREDITS=str(CREDITS_EACH))
            case Service.GENERATION:
                durations = {
                    "deadline_s": self.settings.deadline_s,
                    "submit_margin_s": MARGIN_S,
                }
                named = environment_of(
                    **usual,
                    CREDITS_ADDRESS=self._target(Service.CREDITS),
                    STORAGE_URL=self.media.as_uri(),
                    CALLBACK_KEYS_FILE=str(self.folder / "callback_keys"),
                    WEBHOOK_PUBLIC_URL=f"http://{self.links['public'].address}{WEBHOOK_PATH}",
                    DELIVERY_ORIGINS=self.addresses["delivery"],
                    DURATIONS=json.dumps(durations),
                    CREATES_PER_S=str(CREATES_PER_S),
                    IN_FLIGHT_MAX=str(IN_FLIGHT_MAX),
                    UNFINISHED_MAX=str(max(100, self.settings.jobs)),
                )
            case Service.WEBHOOK:
                named = environment_of(
                    **usual,
                    HTTP_ADDRESS=place.http_address,
                    GENERATION_ADDRESS=self._target(Service.GENERATION),
                    CALLBACK_KEYS_FILE=str(self.folder / "callback_keys"),
                    LEASE_S=LEASE_S,
                )
        return named | {
            "REPLICATE_API_TOKEN": TOKEN,
            "REPLICATE_BASE_URL": self.addresses["api"],
        }

    def _database_url(self, service: Service) -> str:
        url = self.databases[service]
        if self.server is None:
            return url
        link = self.links[f"database-{service}"]
        return f"postgresql://postgres@{link.address}/{url.rpartition('/')[2]}"


@contextlib.asynccontextmanager
async def opened_stack(
    settings: Settings,
    folder: Path,
    journal: Journal,
    databases: Databases,
    server: PostgresqlServer | None,
    products: Mapping[Service, str] | None = None,
) -> AsyncIterator[Stack]:
    """A stack of which nothing runs yet but the simulator; all is killed at the end."""
    (folder / "callback_keys").write_text(base64.b64encode(os.urandom(32)).decode() + "\n")
    (folder / "media").mkdir()
    urls = {
        service: await asyncio.to_thread(databases.make, service.value, settings.database)
        for service in Service
    }
    places = _places(settings)
    links = opened_links(_links(settings, places, server))
    log = folder / "simulator.log"
    with (
        opened_nursery() as nursery,
        running_simulator(SPEED, [TOKEN], log, settings.seed) as addresses,
    ):
        async with links as opened, SimulatorControl(addresses["control"]) as simulator:
            stack = Stack(
                settings, folder, journal, nursery, opened, simulator, addresses, urls,
                server, places, products or {},
            )  # fmt: skip
            try:
                yield stack
            finally:
                stack.kill_all()
    for url in urls.values():
        await asyncio.to_thread(databases.drop, url)


def _places(settings: Settings) -> list[Place]:
    doors = 2 if settings.database == "postgresql" else 1
    counts = {
        Service.CREDITS: settings.replicas,
        Service.GENERATION: settings.replicas,
        Service.WEBHOOK: doors,
    }
    return [
        Place(
            service,
            number,
            free_address(),
            free_address() if service is Service.WEBHOOK else "",
        )
        for service, count in counts.items()
        for number in range(count)
    ]


def _links(
    settings: Settings, places: Sequence[Place], server: PostgresqlServer | None
) -> list[Link]:
    targets = {place.name: [place.address] for place in places}
    targets["public"] = [place.http_address for place in places if place.http_address]
    if server is not None:
        targets |= {f"database-{service}": [f"127.0.0.1:{server.port}"] for service in Service}
    return [Link(name, targets[name]) for name in links_of(settings)]
