"""Says which processes make up Reelworks on one machine, where they listen and what they are told.

It is the one place that knows the settings of all services.
"""

import asyncio
import base64
import contextlib
import http.client
import os
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from services.cli.certs import tls_settings
from services.cli.supervisor import ProcessPlan
from services.client.health import is_serving
from services.runtime.tls import Certificates, WrongCertificates

__all__ = [
    "DATABASE_SERVICES",
    "FREE_PORTS",
    "PROVIDER_VARIABLES",
    "SIMULATOR_TOKEN",
    "WEBHOOK_PATH",
    "PortTaken",
    "Ports",
    "Stack",
    "choose_ports",
    "database_url",
    "make_folder",
    "make_keys",
    "module_command",
]

HOST = "127.0.0.1"
DATABASE_SERVICES = ("credits", "generation", "webhook")
"""The services that have a database, each its own."""
PROVIDER_VARIABLES = (
    "REPLICATE_API_TOKEN",
    "REPLICATE_API_TOKEN_FILE",
    "REPLICATE_BASE_URL",
    "REPLICATE_WEBHOOK_SECRET",
)
"""What says which Replicate to use."""
PROVIDER_SECRETS_FILE = "REELWORKS_WEBHOOK_SECRETS_FILE"
PROVIDER_SERVICES = ("generation", "webhook")
"""The services that have to do with Replicate."""
OWNERS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("REPLICATE_API_TOKEN", "REPLICATE_BASE_URL"), PROVIDER_SERVICES),
    **dict.fromkeys(("REPLICATE_WEBHOOK_SECRET", PROVIDER_SECRETS_FILE), ("webhook",)),
    "REELWORKS_STORAGE_ACCESS_KEY": ("generation",),
    "REELWORKS_SUPABASE_JWT_SECRET": ("web",),
    "REELWORKS_SUPABASE_ANON_KEY": ("web",),
    "REELWORKS_RATE_LIMIT_URL": ("web",),
    # Of these each has its own, if it has one.
    "REELWORKS_DATABASE_URL": (),
    "REELWORKS_ADDRESS": (),
    "REELWORKS_HEALTH_ADDRESS": (),
    "REELWORKS_METRICS_ADDRESS": (),
    **{f"REELWORKS_{service.upper()}_DATABASE_URL": () for service in DATABASE_SERVICES},
}
"""Who inherits a variable, and the one of a file that holds its value; the rest is everybody's."""
STORAGE_VARIABLES = ("AWS_", "AZURE_", "GOOGLE_")
"""How keys of object storage begin that its owner names."""
STORAGE_SERVICES = ("generation", "web")
SIMULATOR_TOKEN = "r8_simulator"  # noqa: S105  The simulator's, known to everybody.
WEBHOOK_PATH = "/api/webhooks/replicate"
POLL_INTERVAL_S = 2.0
POLL_INTERVAL_SIMULATOR_S = 0.5
DRAIN_S = 0
GRACE_S = 3
PROBE_S = 1.0
KEY_BYTES = 32
KEY_FILES = ("callback_keys", "session_keys")
"""What signs the addresses of callbacks and media, and the sessions of the page."""


class PortTaken(Exception):
    """Another process listens on a port that is needed."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(f"port {port}, for {name}, is taken by another process")
        self.name = name
        """What the port is for: a field of `Ports`."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where each process listens on 127.0.0.1."""

    credits: int = 50051
    """gRPC of the credits service."""
    generation: int = 50052
    """gRPC of the generation service."""
    webhook: int = 8081
    """HTTP of the webhook service."""
    simulator: int = 8090
    """API of the simulator."""
    delivery: int = 8091
    """File host of the simulator."""
    control: int = 8092
    """Control listener of the simulator."""
    webhook_grpc: int = 50053
    """gRPC of the webhook service, for operators."""
    webhook_metrics: int = 9464
    """Metrics of the webhook service, for Prometheus."""
    web: int = 8080
    """The studio: the page and the API."""


FREE_PORTS = Ports(*(0 for _ in fields(Ports)))
"""Any free port for each."""


def choose_ports(wanted: Ports, needed: Sequence[str]) -> Ports:
    """Returns `wanted` with a free port for each 0.

    Raises PortTaken that names the first of the `needed` ones on which something listens.
    """
    with contextlib.ExitStack() as held:
        chosen = {}
        for name in (field.name for field in fields(Ports)):
            port: int = getattr(wanted, name)
            listener = held.enter_context(socket.socket())
            # Connections that ended a moment ago do not count.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if name in needed or port == 0:
                try:
                    listener.bind((HOST, port))
                except OSError:
                    raise PortTaken(port, name) from None
                port = listener.getsockname()[1]
            chosen[name] = port
    return Ports(**chosen)


@dataclass(frozen=True, slots=True)
class Stack:
    """One set of processes that belong together."""

    var: Path
    """Folder of all their data; absolute."""
    ports: Ports
    """Where they listen."""
    speed: float
    """How many times faster than Replicate the simulator works."""
    environment: Mapping[str, str]
    """What they inherit; a `REPLICATE_API_TOKEN` in it means the real Replicate."""
    certificates: Path | None = None
    """The folder in which `reelworks certs` made certificates; None: they talk in plaintext."""

    @property
    def simulated(self) -> bool:
        """Whether the simulator stands in for Replicate."""
        given = map(self.environment.get, ("REPLICATE_API_TOKEN", "REPLICATE_API_TOKEN_FILE"))
        return not any(given)

    @property
    def needed_ports(self) -> tuple[str, ...]:
        """Names of the ports that its processes listen on."""
        names = ("web", "credits", "generation", "webhook", "webhook_grpc", "webhook_metrics")
        return (*names, "simulator", "delivery", "control") if self.simulated else names

    @property
    def addresses(self) -> dict[str, str]:
        """Where to reach each process: `host:port` for gRPC, else `http://…`."""
        addresses = {
            "credits": f"{HOST}:{self.ports.credits}",
            "generation": f"{HOST}:{self.ports.generation}",
            "webhook": f"http://{HOST}:{self.ports.webhook}",
            "webhook_grpc": f"{HOST}:{self.ports.webhook_grpc}",
            "webhook_metrics": f"http://{HOST}:{self.ports.webhook_metrics}/metrics",
            "web": f"http://{HOST}:{self.ports.web}",
        }
        if self.simulated:
            addresses |= {
                name: f"http://{HOST}:{getattr(self.ports, name)}"
                for name in ("simulator", "delivery", "control")
            }
        return addresses

    def stages(self) -> tuple[tuple[ProcessPlan, ...], ...]:
        """Returns the processes in the order in which to start them, those together that can be."""
        addresses = self.addresses
        services = (
            self._service("credits", lambda: self._serves(addresses["credits"])),
            self._service("generation", lambda: self._serves(addresses["generation"])),
            self._service("webhook", self._webhook_is_ready),
        )
        studio = (self._service("web", lambda: _answers(self.ports.web, "/healthz/ready")),)
        # The webhook service asks Replicate for the key of its signatures when it starts, and the
        # studio is of no use before the services are.
        stages = (services, studio)
        return ((self._simulator(),), *stages) if self.simulated else stages

    def settings(self, service: str) -> dict[str, str]:
        """Returns the environment of a service."""
        database = {}
        if service in DATABASE_SERVICES:
            file = self.environment.get(f"REELWORKS_{service.upper()}_DATABASE_URL_FILE")
            url = database_url(service, self.var, self.environment)
            # A file is told by its name: what is in it stays out of every environment.
            database = (
                {"REELWORKS_DATABASE_URL_FILE": file} if file else {"REELWORKS_DATABASE_URL": url}
            )
        certificates = {}
        if self.certificates is not None:
            certificates = tls_settings(self.certificates, service)
        return {
            **self._inherited(service),
            **certificates,
            **self._provider(service),
            **database,
            "REELWORKS_CALLBACK_KEYS_FILE": str(self._keys / "callback_keys"),
            "REELWORKS_ENVIRONMENT": self.environment.get("REELWORKS_ENVIRONMENT", "local"),
            "REELWORKS_DRAIN_S": str(DRAIN_S),
            "REELWORKS_GRACE_S": str(GRACE_S),
            **self._listeners()[service],
        }

    def _inherited(self, process: str) -> dict[str, str]:
        """Returns what a process has of the environment; nobody's secrets but its own."""
        return {
            name: value for name, value in self.environment.items() if _is_inherited(name, process)
        }

    def _listeners(self) -> dict[str, dict[str, str]]:
        """Returns where each service listens and whom it calls."""
        addresses = self.addresses
        return {
            "credits": {"REELWORKS_ADDRESS": addresses["credits"]},
            "generation": {
                "REELWORKS_ADDRESS": addresses["generation"],
                "REELWORKS_CREDITS_ADDRESS": addresses["credits"],
                **self._media(),
                **self._callbacks(),
            },
            "webhook": {
                "REELWORKS_ADDRESS": addresses["webhook_grpc"],
                "REELWORKS_HTTP_ADDRESS": f"{HOST}:{self.ports.webhook}",
                "REELWORKS_METRICS_ADDRESS": f"{HOST}:{self.ports.webhook_metrics}",
                "REELWORKS_GENERATION_ADDRESS": addresses["generation"],
            },
            "web": {
                "REELWORKS_ADDRESS": f"{HOST}:{self.ports.web}",
                "REELWORKS_CREDITS_ADDRESS": addresses["credits"],
                "REELWORKS_GENERATION_ADDRESS": addresses["generation"],
                "REELWORKS_SESSION_KEYS_FILE": str(self._keys / "session_keys"),
                "REELWORKS_DEVELOPMENT_KEY_FILE": str(self._keys / "development_key"),
                **self._media(),
            },
        }

    @property
    def _keys(self) -> Path:
        return self.var / "keys"

    def _media(self) -> dict[str, str]:
        """Returns where files lie, and where people fetch them."""
        given = self.environment.get("REELWORKS_MEDIA_URL")
        return {
            "REELWORKS_STORAGE_URL": (self.var / "media").as_uri(),
            "REELWORKS_MEDIA_URL": given or f"{self.addresses['web']}/media",
        }

    def _callbacks(self) -> dict[str, str]:
        """Returns how the generation service learns what Replicate did."""
        if not self.simulated:
            # Only the operator knows an address at which Replicate reaches this machine. Without
            # one in the environment, polling does it all.
            given = self.environment.get("REELWORKS_POLL_INTERVAL_S")
            return {"REELWORKS_POLL_INTERVAL_S": given or str(POLL_INTERVAL_S)}
        return {
            "REELWORKS_WEBHOOK_PUBLIC_URL": self.addresses["webhook"] + WEBHOOK_PATH,
            "REELWORKS_DELIVERY_ORIGINS": self.addresses["delivery"],
            "REELWORKS_POLL_INTERVAL_S": str(POLL_INTERVAL_SIMULATOR_S),
            "REELWORKS_PROVIDER_SPEED": str(self.speed),
        }

    def _provider(self, service: str) -> dict[str, str]:
        """Returns what differs from the inherited environment about Replicate."""
        if not self.simulated or service not in PROVIDER_SERVICES:
            return {}
        return {
            "REPLICATE_API_TOKEN": SIMULATOR_TOKEN,
            "REPLICATE_BASE_URL": self.addresses["simulator"],
            # Empty is unset: the simulator has a key of its own.
            "REPLICATE_WEBHOOK_SECRET": "",
            PROVIDER_SECRETS_FILE: "",
        }

    async def _serves(self, address: str) -> bool:
        return await is_serving(address, self._shown())

    def _shown(self) -> Certificates | None:
        """Returns what whoever asks the services shows to them."""
        if self.certificates is None:
            return None
        # Their folder may hold anything: what is wrong with it, the services say.
        with contextlib.suppress(WrongCertificates):
            return Certificates(*map(Path, tls_settings(self.certificates, "operator").values()))
        return None

    async def _webhook_is_ready(self) -> bool:
        takes_webhooks = await _answers(self.ports.webhook, "/healthz")
        return takes_webhooks and await self._serves(self.addresses["webhook_grpc"])

    def _service(self, name: str, is_ready: Callable[[], Awaitable[bool]]) -> ProcessPlan:
        return ProcessPlan(name, module_command(f"services.{name}"), self.settings(name), is_ready)

    def _simulator(self) -> ProcessPlan:
        arguments = (
            *("--api-port", str(self.ports.simulator)),
            *("--delivery-port", str(self.ports.delivery)),
            *("--control-port", str(self.ports.control)),
            *("--speed", str(self.speed)),
            *("--token", SIMULATOR_TOKEN),
            # In memory, ids would repeat after a restart, and they are unique for ever.
            *("--data", str(self.var / "simulator")),
        )
        command = module_command("services.simulator", *arguments)
        return ProcessPlan(
            "simulator",
            command,
            self._inherited("simulator"),
            lambda: _answers(self.ports.control, "/control/state"),
        )


def _is_inherited(name: str, process: str) -> bool:
    # The certificate in the environment is that of the person who calls the services.
    if name.startswith("REELWORKS_TLS_"):
        return False
    if name.startswith(STORAGE_VARIABLES):
        return process in STORAGE_SERVICES
    owners = OWNERS.get(name, OWNERS.get(name.removesuffix("_FILE")))
    return owners is None or process in owners


def module_command(module: str, *arguments: str) -> tuple[str, ...]:
    """Returns the command that runs `module` in this Python."""
    # -P: a folder `services` in the working directory is somebody else's.
    return (sys.executable, "-P", "-m", module, *arguments)


def database_url(service: str, var: Path, environment: Mapping[str, str]) -> str:
    """Returns where a service keeps its data.

    `REELWORKS_<SERVICE>_DATABASE_URL` says it; by default it is a SQLite file in `var`.
    """
    given = environment.get(f"REELWORKS_{service.upper()}_DATABASE_URL")
    return given or f"sqlite:///{var / service}.sqlite3"


def make_folder(var: Path) -> None:
    """Makes the folder of all data, for this user's eyes only, unless it is there already."""
    var.mkdir(mode=0o700, parents=True, exist_ok=True)


def make_keys(var: Path) -> None:
    """Makes the keys in `var/keys` that are not there yet, for this user's eyes only."""
    folder = var / "keys"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in KEY_FILES:
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")


async def _answers(port: int, path: str) -> bool:
    """Tells whether an HTTP server on this machine answers 200."""
    return await asyncio.to_thread(_answers_now, port, path)


def _answers_now(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=PROBE_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
