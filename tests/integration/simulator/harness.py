"""What the tests of the simulator share: a running one, and a customer's web server."""

import asyncio
import io
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from aiohttp import ClientSession
from replicate.client import Client

from services.simulator.addresses import Addresses
from services.simulator.client import SimulatorControl

SMALL = "wan-video/wan-2.1-1.3b"
WAIT_S = 15.0

T = TypeVar("T")


@dataclass(frozen=True)
class Running:
    """A running simulator and what a test does with it."""

    addresses: Addresses
    session: ClientSession
    token: str
    control: SimulatorControl

    def client(self, token: str | None = None) -> Client:
        """Returns Replicate's own client for this simulator."""
        return Client(api_token=token or self.token, base_url=self.addresses.api)

    async def call(
        self, method: str, path: str, token: str | None = None, **more: Any
    ) -> tuple[int, Any]:
        """Returns status and body of a request to the API."""
        headers = {"Authorization": f"Bearer {token or self.token}", **more.pop("headers", {})}
        address = path if path.startswith("http") else f"{self.addresses.api}/v1{path}"
        async with self.session.request(method, address, headers=headers, **more) as response:
            is_json = response.content_type == "application/json"
            return response.status, await response.json() if is_json else None

    async def upload(self, content: bytes) -> tuple[int, Any]:
        """Returns status and body of the answer to an upload."""
        return await self.call("POST", "/files", data={"content": io.BytesIO(content)})

    async def create(self, prompt: str = "a red fox in snow", **more: Any) -> dict[str, Any]:
        """Returns the create answer for a short video of the small model."""
        headers = more.pop("headers", {})
        body = {"input": {"prompt": prompt, "frame_num": 17}, **more}
        status, answer = await self.call(
            "POST", f"/models/{SMALL}/predictions", json=body, headers=headers
        )
        assert status == 201, answer
        assert isinstance(answer, dict)
        return answer

    async def get(self, prediction_id: str) -> dict[str, Any]:
        status, answer = await self.call("GET", f"/predictions/{prediction_id}")
        assert status == 200
        assert isinstance(answer, dict)
        return answer

    async def reaches(self, prediction_id: str, *statuses: str) -> dict[str, Any]:
        """Returns the prediction once it has one of `statuses`."""

        async def reached() -> dict[str, Any] | None:
            answer = await self.get(prediction_id)
            return answer if answer["status"] in statuses else None

        return await eventually(reached)

    async def truth(self, prediction_id: str) -> dict[str, Any]:
        """Returns what the control listener knows about a prediction."""
        address = f"{self.addresses.control}/control/state?id={prediction_id}"
        async with self.session.get(address) as response:
            (truth,) = (await response.json())["predictions"]
            assert isinstance(truth, dict)
            return truth


async def eventually(question: Callable[[], Awaitable[T | None]]) -> T:
    """Returns the first answer of `question` that is not None; fails after 15 s."""
    give_up_at = time.monotonic() + WAIT_S
    while (answer := await question()) is None:
        assert time.monotonic() < give_up_at, "it did not happen in time"
        await asyncio.sleep(0.01)
    return answer


class Start(Protocol):
    async def __call__(self, **options: Any) -> Running: ...


@dataclass
class Received:
    """One request that the receiver got."""

    path: str
    headers: dict[str, str]
    body: str
    at: float

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """A customer's web server, which takes webhooks and serves images."""

    address: str
    answers: list[int] = field(default_factory=list)
    """Statuses of the next answers; 200 when it is empty."""
    received: list[Received] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)

    async def gets(self, count: int) -> list[Received]:
        """Returns what was received once there are `count` requests."""

        async def enough() -> list[Received] | None:
            return list(self.received) if len(self.received) >= count else None

        return await eventually(enough)
