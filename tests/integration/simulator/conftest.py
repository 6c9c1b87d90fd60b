import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import ClientSession, web

from services.simulator.client import SimulatorControl
from services.simulator.renderer import Renderer
from services.simulator.server import run_simulator
from services.simulator.settings import SimulatorSettings
from tests.integration.simulator.harness import Received, Receiver, Running, Start


@pytest.fixture(scope="session")
def renderer() -> Iterator[Renderer]:
    with Renderer() as shared:
        shared.warm_up()
        yield shared


@pytest.fixture
async def start(renderer: Renderer) -> AsyncIterator[Start]:
    """Starts simulators; without options a very fast one, in memory, on free ports."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(ClientSession())

        async def start_one(**options: Any) -> Running:
            settings = SimulatorSettings(
                **{
                    "api_port": 0,
                    "delivery_port": 0,
                    "control_port": 0,
                    "speed": 1000.0,
                    **options,
                }
            )
            addresses = await stack.enter_async_context(run_simulator(settings, renderer))
            control = await stack.enter_async_context(SimulatorControl(addresses.control))
            return Running(addresses, session, settings.tokens[0], control)

        yield start_one


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async def take(request: web.Request) -> web.Response:
        body = await request.text()
        headers = {name.lower(): value for name, value in request.headers.items()}
        one.received.append(Received(request.raw_path, headers, body, time.time()))
        status = one.answers.pop(0) if one.answers else 200
        location = {"Location": f"{one.address}/elsewhere"} if status in range(300, 400) else {}
        return web.Response(status=status, headers=location)

    async def serve(request: web.Request) -> web.Response:
        content = one.files.get(request.path)
        return web.Response(status=404) if content is None else web.Response(body=content)

    application = web.Application()
    application.router.add_post("/{path:.*}", take)
    application.router.add_get("/{path:.*}", serve)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    one = Receiver(f"http://127.0.0.1:{runner.addresses[0][1]}")
    yield one
    await runner.cleanup()
