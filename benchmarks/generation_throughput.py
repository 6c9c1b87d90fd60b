"""Measures jobs a second through the whole saga, beside the same calls made by a plain loop.

Credits, simulator, file host and the code of the webhook service are the same for both. The
provider's limit of creates is lifted, and its models take milliseconds, so processors are what
bounds both.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import grpc
from reelworks.generation.v1 import generation_pb2, generation_pb2_grpc
from sqlalchemy import update

from benchmarks.generation_ground import Databases, generation_plan, limitless, new_stack
from benchmarks.process_costs import cpu_s, memory_of
from services.cli.stack import WEBHOOK_PATH, Stack
from services.cli.supervisor import ProcessPlan, Supervisor
from services.client.credits import CreditsClient, TransactionType
from services.client.generations import GenerationClient
from services.generation import tables
from services.generation.state import Kind
from services.runtime.database import open_database
from services.simulator.client import SimulatorControl
from tests.serving import free_address

__all__ = ["LOOP", "SAGA", "Ground", "Round", "Throughput", "measure_throughput", "prepare_ground"]

SAGA, LOOP = "saga", "plain loop"
SPEED = 1000.0
PRICE_CREDITS = 10
CALLS_AT_ONCE = 32
CALL_S = 30.0
LOOK_S = 0.05
ROUND_S_MAX = 300.0
TOKENS = 100_000
WARM_UP_JOBS = 32
STEADY_JOBS = 50
STEADY_JOBS_PER_S = 5.0
"""Half of what the provider lets be created."""
_LOOP_WEBHOOK = "webhook of the loop"


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of one way took."""

    jobs: int
    seconds: float
    cpu_s: float
    """Of the service that makes the jobs, and of its database's server."""
    all_cpu_s: float
    """Of the credits and the webhook service too; the simulator's is left out."""
    memory_mib: float
    """Of the service, at the end."""

    @property
    def jobs_per_s(self) -> float:
        """Videos that were made, saved and paid in a second."""
        return self.jobs / self.seconds


@dataclass(frozen=True, slots=True)
class Throughput:
    """What was measured on one kind of database."""

    rounds: Mapping[str, list[Round]]
    """By way; those of a number ran one after the other."""
    settle_times_s: tuple[float, ...]
    """From the provider's end of a job to its video being paid, under half of its limit's load."""


@dataclass(frozen=True)
class Ground:
    """Databases and settings of all processes."""

    databases: Databases
    stack: Stack
    loop_plans: tuple[ProcessPlan, ...]
    """Those that the loop needs in place of the stack's own."""
    loop_address: str

    def database_processes(self, service: str) -> Collection[int]:
        """Returns the processes of the database's server that work for a service now."""
        return self.databases.servers(self.stack.settings(service)["REELWORKS_DATABASE_URL"])


def prepare_ground(databases: Databases) -> Ground:
    """Returns the ground on new databases; no event loop may run in this thread."""
    urls = {
        f"{service.upper()}_DATABASE_URL": databases.make(service, f"{service}-throughput")
        for service in ("credits", "generation", "webhook")
    }
    stack = new_stack(
        databases.folder,
        SPEED,
        **urls,
        UNFINISHED_MAX="100000",
        CREATES_BURST=str(TOKENS),
        IN_FLIGHT_MAX=str(TOKENS),
    )
    address, http_address = free_address(), free_address()
    loop = generation_plan(
        stack,
        LOOP,
        address,
        module="benchmarks.plain_generation",
        WEBHOOK_PUBLIC_URL=f"http://{http_address}{WEBHOOK_PATH}",
    )
    [of_stack] = (p for stage in stack.stages() for p in stage if p.name == "webhook")
    environment = dict(of_stack.environment) | {
        "REELWORKS_ADDRESS": free_address(),
        "REELWORKS_METRICS_ADDRESS": free_address(),
        "REELWORKS_HTTP_ADDRESS": http_address,
        "REELWORKS_GENERATION_ADDRESS": address,
        "REELWORKS_DATABASE_URL": databases.make("webhook", "webhook-of-the-loop"),
    }
    webhook = replace(of_stack, name=_LOOP_WEBHOOK, environment=environment)
    return Ground(databases, stack, (loop, webhook), address)


async def measure_throughput(
    ground: Ground, jobs: int, rounds: int, advance: Callable[[], None]
) -> Throughput:
    """Returns the rounds of both ways, taken in turns; `advance` is told of each."""
    await _fill_gate(ground.stack.settings("generation")["REELWORKS_DATABASE_URL"])
    simulator, *services = (plan for stage in ground.stack.stages() for plan in stage)
    supervisor = Supervisor(lambda _name, _line: None)
    done: dict[str, list[Round]] = {SAGA: [], LOOP: []}
    stages = [[limitless(simulator)], [*services, *ground.loop_plans]]
    async with supervisor.running(stages):
        for number in range(-1, rounds):
            for way, found in done.items():
                # The first round opens connections and loads code.
                count = jobs if number >= 0 else WARM_UP_JOBS
                measured = await _run(ground, supervisor.process_ids, way, count)
                if number >= 0:
                    found.append(measured)
                    advance()
        user = await _make_steadily(ground.stack)
        settle_times_s = await _settle_times_s(ground.stack, user)
        advance()
    return Throughput(done, settle_times_s)


async def _run(ground: Ground, processes: Mapping[str, int], way: str, jobs: int) -> Round:
    """Makes so many videos, all wanted at once."""
    addresses = ground.stack.addresses
    is_saga = way == SAGA
    address = addresses["generation"] if is_saga else ground.loop_address
    made = [processes["generation" if is_saga else LOOP]]
    others = [processes["credits"], processes["webhook" if is_saga else _LOOP_WEBHOOK]]
    async with _account(ground.stack, jobs) as account:
        # An idle connection of a pool has its process too.
        made += ground.database_processes("generation") if is_saga else ()
        others += ground.database_processes("credits")
        before, others_before = sum(map(cpu_s, made)), sum(map(cpu_s, others))
        began = time.monotonic()
        numbers = iter(range(jobs))

        async def create(stub: Any) -> None:
            for number in numbers:
                await stub.CreateGeneration(_request(account.user, number), timeout=CALL_S)

        async with grpc.aio.insecure_channel(address) as channel:
            stub = generation_pb2_grpc.GenerationServiceStub(channel)
            await asyncio.gather(*(create(stub) for _ in range(CALLS_AT_ONCE)))
        await account.paid()
        seconds = time.monotonic() - began
        cpu, others_cpu = sum(map(cpu_s, made)) - before, sum(map(cpu_s, others)) - others_before
    return Round(jobs, seconds, cpu, cpu + others_cpu, memory_of(made[0]).resident)


async def _make_steadily(stack: Stack) -> str:
    """Makes some videos by the saga, one after the other, and returns whose they are."""
    async with (
        _account(stack, STEADY_JOBS) as account,
        grpc.aio.insecure_channel(stack.addresses["generation"]) as channel,
        asyncio.TaskGroup() as creating,
    ):
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)

        async def create(number: int) -> None:
            await stub.CreateGeneration(_request(account.user, number), timeout=CALL_S)

        for number in range(STEADY_JOBS):
            creating.create_task(create(number))
            await asyncio.sleep(1 / STEADY_JOBS_PER_S)
        await account.paid()
    return account.user


@dataclass(frozen=True, slots=True)
class _Account:
    """Who pays for some videos, and can pay for no more."""

    client: CreditsClient
    user: str
    rest: int
    """What is left in the end."""

    async def paid(self) -> None:
        """Waits until all are paid; raises RuntimeError if one was not made."""
        async with asyncio.timeout(ROUND_S_MAX):
            balance = await self.client.get_balance(self.user)
            while balance.reserved_credits > 0:
                await asyncio.sleep(LOOK_S)
                balance = await self.client.get_balance(self.user)
        if balance.available_credits != self.rest:
            raise RuntimeError(f"{balance.available_credits} credits are left, not {self.rest}")


@contextlib.asynccontextmanager
async def _account(stack: Stack, jobs: int) -> AsyncIterator[_Account]:
    """Gives a new account that has the credits for so many videos."""
    async with CreditsClient(stack.addresses["credits"]) as client:
        user = f"benchmark-{time.monotonic_ns()}"
        opened = await client.open_account(user)
        added = jobs * PRICE_CREDITS
        await client.add_credits(user, added, TransactionType.BONUS, f"{user}-credits")
        yield _Account(client, user, opened.balance.available_credits)


def _request(user: str, number: int) -> generation_pb2.CreateGenerationRequest:
    return generation_pb2.CreateGenerationRequest(
        user_id=user,
        generation_id=str(uuid.uuid4()),
        kind=Kind.TEXT_TO_VIDEO.value,
        model="t2v-14B",
        resolution="480p",
        prompt=f"a red fox running through fresh snow, number {number}",
    )


async def _fill_gate(url: str) -> None:
    """Lets so many creates through at once that the limit a second is never felt."""
    database = open_database(url)
    try:
        async with database.write() as connection:
            await connection.execute(
                update(tables.gates).where(tables.gates.c.name == "create").values(tokens=TOKENS)
            )
    finally:
        await database.close()


async def _settle_times_s(stack: Stack, user: str) -> tuple[float, ...]:
    """Returns how long after the provider's end each video was paid."""
    async with SimulatorControl(stack.addresses["control"]) as simulator:
        ends = {one["id"]: one["completed_at"] for one in await simulator.predictions()}
    times, token = [], ""
    async with GenerationClient(stack.addresses["generation"]) as generations:
        while True:
            page = await generations.list(user, 500, token)
            for one in page.generations:
                if one.finished_at is not None and one.job_id is not None:
                    ended_at = datetime.fromtimestamp(ends[one.job_id], UTC)
                    times.append((one.finished_at - ended_at).total_seconds())
            token = page.next_page_token
            if not token:
                return tuple(times)
