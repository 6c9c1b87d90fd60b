"""The provider's stand-in as a process, and what it knows."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx

from services.simulator.client import SimulatorControl

TOKEN = "r8_simulator"


class Simulator:
    """A running simulator."""

    def __init__(self, addresses: dict[str, str]) -> None:
        self.api = addresses["api"]
        self.delivery = addresses["delivery"]
        self._control = addresses["control"]

    def control(self) -> SimulatorControl:
        """Makes it fail in the ways that the provider can."""
        return SimulatorControl(self._control)

    async def creates(self) -> int:
        """How many creates arrived since the last reset."""
        requests = (await self._ask("GET", "/control/requests"))["requests"]
        return sum(
            one["method"] == "POST" and one["path"].endswith("/predictions") for one in requests
        )

    async def predictions(self) -> list[dict[str, Any]]:
        """The truth about all predictions since the last reset."""
        found: list[dict[str, Any]] = (await self._ask("GET", "/control/state"))["predictions"]
        return found

    async def reset(self) -> None:
        await self._ask("POST", "/control/reset")

    async def _ask(self, method: str, path: str) -> Any:
        async with httpx.AsyncClient() as client:
            response = await client.request(method, self._control + path)
        response.raise_for_status()
        return response.json() if response.content else None


@contextlib.contextmanager
def running_simulator(speed: float) -> Iterator[Simulator]:
    """Starts a simulator on free ports and stops it at the end."""
    ports = [f"--{name}-port=0" for name in ("api", "delivery", "control")]
    options = [f"--speed={speed}", "--video=stamp", "--log-format=json"]
    with subprocess.Popen(
        [sys.executable, "-m", "services.simulator", *ports, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield Simulator(json.loads(process.stdout.readline()))
        finally:
            process.terminate()
