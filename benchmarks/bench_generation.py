"""Measures the whole path: prompts in, paid videos out, by real processes and the simulator.

    make bench-generation                   a table
    .venv/bin/python -m benchmarks.bench_generation --jobs 300 --json

Beside Reelworks the same run measures a control: the naive way, a loop that creates each prediction
with the provider's own package, polls it and downloads the video, with no ledger, no saga and no
webhook. Both drive the same simulator in turn, in rounds. What is compared:

* jobs a second, both held to the provider's limit of ten creates a second;
* CPU seconds a job, of all three services against the control's process (the simulator's left out);
* the time from the provider's end to the paid video, in seconds of this machine;
* memory of the generation service before and after.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import httpx
from replicate.client import Client
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from services.cli.migrations import migrate
from services.cli.stack import DATABASE_SERVICES, Ports, Stack, choose_ports, make_keys
from services.cli.supervisor import Supervisor
from services.client.credits import CreditsClient, TransactionType
from services.client.generations import Generation, GenerationClient, Kind, Status

USER = "bench"
PROMPT = "a red fox running through fresh snow, number"
PROVIDER_MODEL = "wavespeedai/wan-2.1-t2v-480p"
SERVICES = ("credits", "generation", "webhook")
CREATE_PAUSE_S = 0.1
POLL_S = 0.5


@dataclass(frozen=True)
class Round:
    """What one round of one way took."""

    way: str
    jobs: int
    seconds: float
    cpu_s: float
    settle_times_s: tuple[float, ...] = ()


async def main(jobs: int, rounds: int, speed: float, *, as_json: bool) -> None:
    """Runs the rounds in turn and prints what they took."""
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="reelworks-bench-") as folder:
        ports = choose_ports(Ports(0, 0, 0, 0, 0, 0), ())
        environment = {k: v for k, v in os.environ.items() if not k.startswith("REPLICATE")}
        environment["REELWORKS_LOG_LEVEL"] = "WARNING"
        stack = Stack(Path(folder), ports, speed, environment)
        make_keys(stack.var)
        await migrate(stack, DATABASE_SERVICES)
        supervisor = Supervisor(lambda _name, _line: None)
        done: list[Round] = []
        with Progress(console=console) as progress:
            task = progress.add_task("jobs", total=2 * jobs * rounds)

            def advance() -> None:
                progress.advance(task)

            async with supervisor.running(stack.stages()):
                memory = {"before": resident_mebibytes(supervisor.process_ids["generation"])}
                for _ in range(rounds):
                    done.append(await reelworks(stack, supervisor.process_ids, jobs, advance))
                    done.append(await naive(stack, jobs, advance))
                memory["after"] = resident_mebibytes(supervisor.process_ids["generation"])
    report(done, memory, as_json=as_json)


async def reelworks(
    stack: Stack, processes: Mapping[str, int], jobs: int, advance: Callable[[], None]
) -> Round:
    """Makes videos by the services."""
    addresses = stack.addresses
    ids = [processes[name] for name in SERVICES]
    async with (
        CreditsClient(addresses["credits"]) as accounts,
        GenerationClient(addresses["generation"]) as generations,
    ):
        await accounts.open_account(USER)
        await accounts.add_credits(
            USER, jobs * 10, TransactionType.BONUS, f"bench-{time.monotonic_ns()}"
        )
        began, cpu_before = time.monotonic(), sum(map(cpu_s, ids))
        waiting: set[str] = set()
        ended: list[Generation] = []

        async def create() -> None:
            for number in range(jobs):
                generation = await generations.create(
                    USER, Kind.TEXT_TO_VIDEO, "t2v-14B", "480p", f"{PROMPT} {number}"
                )
                waiting.add(generation.generation_id)

        creating = asyncio.create_task(create())
        while not creating.done() or waiting:
            page = await generations.list(USER, page_size=1000)
            for generation in page.generations:
                if generation.is_final and generation.generation_id in waiting:
                    waiting.discard(generation.generation_id)
                    ended.append(generation)
                    advance()
            await asyncio.sleep(POLL_S)
        await creating
        seconds = time.monotonic() - began
        cpu = sum(map(cpu_s, ids)) - cpu_before
    bad = [generation for generation in ended if generation.status is not Status.COMPLETED]
    if bad:
        sys.exit(f"{len(bad)} of {jobs} jobs did not complete: {bad[0].error}")
    settle = await settle_times_s(stack, ended)
    return Round("reelworks", jobs, seconds, cpu, settle)


async def naive(stack: Stack, jobs: int, advance: Callable[[], None]) -> Round:
    """Makes videos by a loop around the provider's own package."""
    client = Client(
        api_token="r8_simulator",  # noqa: S106  The simulator's, known to everybody.
        base_url=stack.addresses["simulator"],
    )

    async def make(number: int, http: httpx.AsyncClient) -> None:
        prediction = await client.models.predictions.async_create(
            PROVIDER_MODEL, input={"prompt": f"{PROMPT} {number}"}
        )
        while prediction.status not in ("succeeded", "failed", "canceled"):
            await asyncio.sleep(POLL_S)
            prediction = await client.predictions.async_get(prediction.id)
        video = await http.get(str(prediction.output))
        (stack.var / f"naive-{number}.mp4").write_bytes(video.content)
        advance()

    began, cpu_before = time.monotonic(), time.process_time()
    async with httpx.AsyncClient() as http, asyncio.TaskGroup() as group:
        for number in range(jobs):
            group.create_task(make(number, http))
            await asyncio.sleep(CREATE_PAUSE_S)
    return Round("naive loop", jobs, time.monotonic() - began, time.process_time() - cpu_before)


async def settle_times_s(stack: Stack, ended: list[Generation]) -> tuple[float, ...]:
    """Returns how long after the provider's end each video was paid."""
    times: list[float] = []
    headers = {"Authorization": "Bearer r8_simulator"}
    async with httpx.AsyncClient(base_url=stack.addresses["simulator"], headers=headers) as http:
        for generation in ended:
            answer = await http.get(f"/v1/predictions/{generation.job_id}")
            completed_at = datetime.fromisoformat(answer.json()["completed_at"])
            assert generation.finished_at is not None, "the generation ended"
            times.append((generation.finished_at - completed_at).total_seconds())
    return tuple(times)


def report(rounds: list[Round], memory: dict[str, float], *, as_json: bool) -> None:
    """Prints what was measured, and the ratios of each round to the control beside it."""
    ours = [r for r in rounds if r.way == "reelworks"]
    control = [r for r in rounds if r.way != "reelworks"]
    settle = sorted(t for r in ours for t in r.settle_times_s)
    figures = {
        "jobs_per_round": ours[0].jobs,
        "rounds": len(ours),
        "jobs_per_s": [round(r.jobs / r.seconds, 2) for r in ours],
        "throughput_against_naive": ratio(
            [
                (a.jobs / a.seconds) / (b.jobs / b.seconds)
                for a, b in zip(ours, control, strict=True)
            ]
        ),
        "cpu_ms_per_job": [round(1000 * r.cpu_s / r.jobs, 1) for r in ours],
        "cpu_against_naive": ratio([a.cpu_s / b.cpu_s for a, b in zip(ours, control, strict=True)]),
        "settled_after_s_p50": round(settle[len(settle) // 2], 3),
        "settled_after_s_p99": round(settle[len(settle) * 99 // 100], 3),
        "memory_mib_before": memory["before"],
        "memory_mib_after": memory["after"],
    }
    if as_json:
        print(json.dumps(figures))
        return
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, str(value))
    Console().print(table)


def ratio(values: list[float]) -> dict[str, float]:
    """Returns the least, the middle and the greatest of some ratios."""
    return {
        "min": round(min(values), 2),
        "median": round(statistics.median(values), 2),
        "max": round(max(values), 2),
    }


def cpu_s(process_id: int) -> float:
    """Returns the processor time that a process has used (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mebibytes(process_id: int) -> float:
    """Returns the memory that a process holds."""
    pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measures the whole path.")
    parser.add_argument("--jobs", type=int, default=100, help="videos a round and way")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--speed", type=float, default=20.0, help="of the simulator")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.jobs, arguments.rounds, arguments.speed, as_json=arguments.json))
