"""Puts a simulator together and serves its three listeners."""

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from aiohttp import ClientSession, TCPConnector, web

from services.simulator.accounts import Accounts
from services.simulator.addresses import Addresses
from services.simulator.api import api_application
from services.simulator.conditions import Conditions
from services.simulator.control import control_application
from services.simulator.delivery import delivery_application
from services.simulator.faults.world import World
from services.simulator.images import ImageFetcher
from services.simulator.journal import Journal
from services.simulator.predictions import Predictions
from services.simulator.registry import load_registry
from services.simulator.renderer import Renderer
from services.simulator.settings import SimulatorSettings
from services.simulator.store import Store
from services.simulator.uploads import Uploads
from services.simulator.webhooks import WebhookSender

__all__ = ["PortTaken", "run_simulator"]

CONNECTIONS_MAX = 1024
BACKLOG = 512
SHUTDOWN_S = 0.5
UPLOAD_SWEEP_PAUSE_S = 60.0


class PortTaken(Exception):
    """A port that could not be listened on; the text says which."""


@asynccontextmanager
async def run_simulator(
    settings: SimulatorSettings, renderer: Renderer
) -> AsyncIterator[Addresses]:
    """Serves a simulator inside the `async with` block; yields where it answers.

    Raises PortTaken if a port is not free.
    """
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(_folder(settings.data))
        store = stack.enter_context(Store(folder))
        ports = (settings.api_port, settings.delivery_port, settings.control_port)
        sockets = [stack.enter_context(_listen(settings.host, port)) for port in ports]
        addresses = Addresses(*(_address(one, settings.public_host) for one in sockets))
        conditions = Conditions(settings.seed, settings.switches, settings.profile)
        accounts = Accounts(settings.tokens, settings.seed)
        registry = load_registry()
        journal = Journal(store, conditions.clock)
        uploads = Uploads(folder / "uploads", store, settings.seed, conditions.clock)
        predictions = Predictions(
            settings, folder, accounts, registry, store, renderer, addresses, conditions
        )
        world = World(conditions, accounts, predictions)
        session = await stack.enter_async_context(
            # A connection that was kept can be dead by the next webhook: each gets its own.
            ClientSession(connector=TCPConnector(limit=CONNECTIONS_MAX, force_close=True))
        )
        webhooks = WebhookSender(
            session,
            settings.allowed_hosts,
            settings.speed,
            accounts,
            conditions,
            world.strike,
            predictions.record_attempt,
        )
        images = ImageFetcher(session, settings.allowed_hosts, uploads, addresses)
        predictions.open(webhooks, images)
        stack.push_async_callback(predictions.close)
        applications = (
            api_application(
                accounts, registry, predictions, uploads, addresses, journal, conditions, world
            ),
            delivery_application(
                accounts, predictions, uploads, addresses, journal, conditions, world
            ),
            control_application(
                settings, accounts, registry, predictions, uploads, journal, conditions
            ),
        )
        for application, listener in zip(applications, sockets, strict=True):
            await _serve(stack, application, listener)
        sweeper = asyncio.create_task(_sweep(uploads))
        stack.callback(sweeper.cancel)
        yield addresses


@contextmanager
def _folder(data: Path | None) -> Iterator[Path]:
    """Yields the folder of all files; without a `data` folder it goes when the process ends."""
    if data is not None:
        data.mkdir(parents=True, exist_ok=True)
        yield data
        return
    with tempfile.TemporaryDirectory(prefix="simulator-") as temporary:
        yield Path(temporary)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A restart may take the port while old connections still linger.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise PortTaken(f"cannot listen on {host} port {port}: {error.strerror}") from None
    return listener


def _address(listener: socket.socket, public_host: str | None) -> str:
    host, port = listener.getsockname()[:2]
    host = public_host or host
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _serve(
    stack: AsyncExitStack, application: web.Application, listener: socket.socket
) -> None:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, listener).start()


async def _sweep(uploads: Uploads) -> None:
    while True:
        await asyncio.sleep(UPLOAD_SWEEP_PAUSE_S)
        uploads.remove_expired()
