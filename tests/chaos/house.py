"""A house of real processes, of which generation is killed and started again."""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from services.client.credits import CreditsClient
from services.client.generations import GenerationClient
from services.client.health import is_serving
from services.runtime.migrations import migrate
from services.simulator.client import SimulatorControl
from services.webhook.ingress import WEBHOOK_PATH
from tests.chaos.processes import Nursery, Process, opened_nursery
from tests.postgresql import PostgresqlServer
from tests.serving import free_address

READY_S_MAX = 60.0
LEAVE_S_MAX = 30.0
SPEED = 100.0
HOUSES_MAX = 16
CREDITS_EACH = 1_000_000


@dataclass(frozen=True)
class Databases:
    """Makes migrated, empty databases."""

    folder: Path
    postgresql: Callable[[], PostgresqlServer]
    templates: dict[tuple[str, str], str] = field(default_factory=dict)
    making: threading.Lock = field(default_factory=threading.Lock)
    """Held while one is made: a template is copied when it is done, and Alembic makes one only."""

    def make(self, service: str, backend: str = "sqlite") -> str:
        """Returns the URL of a new database for a service."""
        with self.making:
            return self._make(service, backend)

    def _make(self, service: str, backend: str) -> str:
        template = self.templates.get((service, backend))
        if backend == "postgresql":
            server = self.postgresql()
            if template is None:
                template = self.templates[service, backend] = server.create_database()
                _migrate(service, server.url(template))
            return server.url(server.create_database(template))
        if template is None:
            template = str(self.folder / f"{service}.sqlite3")
            self.templates[service, backend] = template
            _migrate(service, f"sqlite:///{template}")
        path = self.folder / f"{service}-{uuid.uuid4().hex}.sqlite3"
        shutil.copy(template, path)
        return f"sqlite:///{path}"

    def drop(self, url: str) -> None:
        """Removes a database that nobody needs any more."""
        backend, _, rest = url.partition("://")
        if backend == "postgresql":
            name = rest.rpartition("/")[2]
            self.postgresql().execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        else:
            for file in Path(rest).parent.glob(f"{Path(rest).name}*"):
                file.unlink()


def _migrate(service: str, url: str) -> None:
    # A thread has no event loop, which whoever asks for a database may already run in.
    with ThreadPoolExecutor(1) as threads:
        threads.submit(migrate, service, url).result()


@dataclass(frozen=True)
class Ground:
    """What houses share: whence their processes come, the provider and the ledger."""

    folder: Path
    nursery: Nursery
    databases: Databases
    backend: str
    """What credits and the webhook services keep their data in."""
    simulator: Mapping[str, str]
    """Addresses of the listeners."""
    credits_address: str
    keys: Path
    tokens: Iterator[str]

    @contextlib.asynccontextmanager
    async def simulating(self) -> AsyncIterator[SimulatorControl]:
        async with SimulatorControl(self.simulator["control"]) as simulator:
            yield simulator


@contextlib.contextmanager
def prepared_ground(
    folder: Path, postgresql: Callable[[], PostgresqlServer], backend: str = "sqlite"
) -> Iterator[Ground]:
    """Starts what houses share, and stops it at the end; `backend` is all but generation's."""
    databases = Databases(folder, postgresql)
    keys = folder / "callback_keys"
    keys.write_text(base64.b64encode(os.urandom(32)).decode() + "\n")
    tokens = [f"r8_house_{number}" for number in range(HOUSES_MAX)]
    with opened_nursery() as nursery, running_simulator(SPEED, tokens) as simulator:
        address = free_address()
        environment = environment_of(
            ADDRESS=address,
            DATABASE_URL=databases.make("credits", backend),
            WELCOME_BONUS_CREDITS=str(CREDITS_EACH),
        )
        nursery.start("services.credits.__main__", environment, folder, "credits")
        yield Ground(
            folder, nursery, databases, backend, simulator, address, keys, itertools.cycle(tokens)
        )


@contextlib.contextmanager
def running_simulator(
    speed: float, tokens: list[str], log: Path = Path(os.devnull), seed: int = 1
) -> Iterator[dict[str, str]]:
    """A simulator that draws by a seed; yields the addresses of its listeners."""
    ports = [f"--{name}-port=0" for name in ("api", "delivery", "control")]
    limits = [f"--switch={name}_per_minute=1000000" for name in ("creates", "calls")]
    accounts = [f"--token={token}" for token in tokens]
    options = [
        f"--speed={speed}",
        f"--seed={seed}",
        "--video=stamp",
        "--log-format=json",
        *limits,
        *accounts,
    ]
    with (
        log.open("a") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "services.simulator", *ports, *options],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            # It says its addresses in one line, or nothing.
            told, _, _ = select.select([process.stdout], [], [], READY_S_MAX)
            line = process.stdout.readline() if told else ""
            assert line, f"the simulator did not start within {READY_S_MAX:g} s; its log is {log}"
            yield json.loads(line)
        finally:
            process.terminate()
            try:
                process.wait(LEAVE_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()


def environment_of(**settings: str) -> dict[str, str]:
    """Returns the environment of a process, without what the one who runs the tests has set."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("REELWORKS_", "REPLICATE_"))
    }
    quick = {"DRAIN_S": "0", "GRACE_S": "3", "PROFILE": "fast", "ENVIRONMENT": "test"}
    return kept | {f"REELWORKS_{name}": value for name, value in (quick | settings).items()}


@dataclass
class Replica:
    """One place where a generation service runs, and what runs there now."""

    address: str
    process: Process | None = None


@dataclass
class House:
    """A webhook service and one or more replicas of generation, at addresses that stay."""

    ground: Ground
    folder: Path
    token: str
    webhook_url: str
    replicas: list[Replica]
    kills: list[float] = field(default_factory=list)
    """When a process of generation was found dead, in seconds since the epoch."""

    @property
    def target(self) -> str:
        """Where clients reach any replica."""
        return target_of(self.replicas)

    def start(
        self,
        database_url: str,
        *,
        replica: int = 0,
        failpoints: str = "",
        product: str = "services.generation.__main__",
        settings: Mapping[str, str] | None = None,
    ) -> Process:
        """Starts a replica; `product` is the module whose `main` it is."""
        place = self.replicas[replica]
        environment = environment_of(
            **{
                "ADDRESS": place.address,
                "DATABASE_URL": database_url,
                "CREDITS_ADDRESS": self.ground.credits_address,
                "STORAGE_URL": (self.folder / "media").as_uri(),
                "CALLBACK_KEYS_FILE": str(self.ground.keys),
                "WEBHOOK_PUBLIC_URL": self.webhook_url,
                "DELIVERY_ORIGINS": self.ground.simulator["delivery"],
                "FAILPOINTS": failpoints,
                **(settings or {}),
            }
        )
        environment |= {
            "REPLICATE_API_TOKEN": self.token,
            "REPLICATE_BASE_URL": self.ground.simulator["api"],
        }
        place.process = self.ground.nursery.start(
            product, environment, self.folder, f"generation-{replica}"
        )
        return place.process

    async def ready(self, replica: int = 0) -> bool:
        """Waits until a replica answers; False if it ended before."""
        place, ends_at = self.replicas[replica], time.monotonic() + READY_S_MAX
        assert place.process is not None
        while place.process.code is None:
            if await is_serving(place.address):
                return True
            assert time.monotonic() < ends_at, f"not ready: {place.process.log.read_text()[-4000:]}"
            await asyncio.sleep(0.05)
        return False

    def kill_all(self) -> None:
        for place in self.replicas:
            if place.process is not None and place.process.code is None:
                place.process.kill()

    def generations(self) -> GenerationClient:
        return GenerationClient(self.target)

    def credits(self) -> CreditsClient:
        return CreditsClient(self.ground.credits_address)


def target_of(replicas: list[Replica]) -> str:
    addresses = [replica.address for replica in replicas]
    return addresses[0] if len(addresses) == 1 else f"ipv4:{','.join(addresses)}"


@contextlib.contextmanager
def opened_house(ground: Ground, replicas: int = 1) -> Iterator[House]:
    """A house without a generation service yet; whatever runs in it is killed at the end."""
    folder = ground.folder / f"house-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    places = [Replica(free_address()) for _ in range(replicas)]
    http_address, token = free_address(), next(ground.tokens)
    environment = environment_of(
        ADDRESS=free_address(),
        HTTP_ADDRESS=http_address,
        DATABASE_URL=ground.databases.make("webhook", ground.backend),
        GENERATION_ADDRESS=target_of(places),
        CALLBACK_KEYS_FILE=str(ground.keys),
        LEASE_S="2",
    )
    environment |= {
        "REPLICATE_API_TOKEN": token,
        "REPLICATE_BASE_URL": ground.simulator["api"],
    }
    webhook = ground.nursery.start("services.webhook.__main__", environment, folder, "webhook")
    house = House(ground, folder, token, f"http://{http_address}{WEBHOOK_PATH}", places)
    try:
        yield house
    finally:
        house.kill_all()
        webhook.kill()
