"""Commands about generations as they are typed, against a service that runs without a worker."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from services.cli.following import follow
from services.client.generations import Generation, GenerationClient
from services.generation.cancellation import CancelPolicy
from services.generation.events import CancelRequested
from services.generation.state import Kind, Stage
from tests.conftest import NewDatabase
from tests.contract.generation.harness import Service, running_service
from tests.integration.generation.credits_service import running_credits
from tests.integration.generation.harness import (
    OUTPUT,
    REQUEST,
    USER,
    eventually,
    generation_in,
)

NOBODYS = "01890000-0000-7000-8000-000000000000"


@dataclass(frozen=True)
class Result:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def documents(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class Desk:
    """A terminal beside the service."""

    service: Service
    folder: Path

    async def run(self, *arguments: str) -> Result:
        """Runs `reelworks generations …`."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("REELWORKS_")}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.cli", "generations", *arguments,
            env=inherited
            | {
                "REELWORKS_VAR": str(self.folder / "var"),
                "REELWORKS_CREDITS_ADDRESS": self.service.credits.address,
                "REELWORKS_GENERATION_ADDRESS": self.service.address,
            },
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(40):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode is not None
        return Result(process.returncode, out.decode(), err.decode())


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
async def desk(
    new_database: NewDatabase, tmp_path: Path, templates: dict[tuple[str, str], str]
) -> AsyncIterator[Desk]:
    async with (
        running_credits(tmp_path, templates) as credits_service,
        running_service(new_database("generation"), credits_service) as service,
    ):
        await credits_service.open(USER)
        yield Desk(service, tmp_path)


async def test_what_is_parked_is_listed_with_its_reason_and_goes_on_or_back(desk: Desk) -> None:
    now = datetime.now(UTC)
    older, newer = (
        generation_in(
            Stage.PARKED,
            parked_from=Stage.COMMITTING,
            park_reason="credits answered ALREADY_REFUNDED",
            stage_since=now - timedelta(minutes=minutes),
            output=OUTPUT,
        )
        for minutes in (10, 5)
    )
    await desk.service.replica.insert(newer, older)

    table, lines, impossible = await asyncio.gather(
        desk.run("parked"),
        desk.run("parked", "--json"),
        desk.run("resume", older.generation_id, "--at", "ready"),
    )
    resumed, refunded = await asyncio.gather(
        desk.run("resume", older.generation_id),
        desk.run("refund", newer.generation_id, "--json"),
    )
    nothing, unknown = await asyncio.gather(desk.run("parked"), desk.run("refund", NOBODYS))

    assert table.code == 0, table.err
    first, second = table.out.splitlines()[1:]
    assert first.split()[:2] == [older.generation_id, USER]
    assert first.endswith("10 min  committing       10  credits answered ALREADY_REFUNDED")
    assert second.startswith(newer.generation_id)
    assert [document["stage"] for document in lines.documents] == ["COMMITTING", "COMMITTING"]
    assert (impossible.code, impossible.err.count("\n")) == (1, 1)
    assert f"`reelworks generations resume {older.generation_id}`" in impossible.err
    assert resumed.out.startswith(f"{older.generation_id} goes on, committing; follow it with ")
    assert refunded.documents[0]["stage"] == "REFUNDING"
    assert (len(nothing.out.splitlines()), nothing.err) == (1, "nothing is parked\n")
    assert (unknown.code, unknown.err.count("\n")) == (1, 1)


async def test_what_is_not_parked_is_not_resumed(desk: Desk) -> None:
    running = generation_in(Stage.RUNNING, job_id="job")
    await desk.service.replica.insert(running)

    result = await desk.run("resume", running.generation_id)

    assert result.code == 1
    assert result.err.endswith("`reelworks generations parked` lists what is\n")


async def test_a_list_is_filtered_by_words_and_kind(desk: Desk) -> None:
    fox = generation_in(Stage.FAILED)
    boat = generation_in(
        Stage.FAILED,
        request=replace(
            REQUEST,
            kind=Kind.IMAGE_TO_VIDEO,
            model="i2v-14B",
            prompt="A Boat on the lake",
            image_uri="https://images.example/boat.png",
        ),
    )
    await desk.service.replica.insert(fox, boat)

    async def listed(*arguments: str) -> set[str]:
        result = await desk.run("list", "--user", USER, "--json", *arguments)
        assert result.code == 0, result.err
        return {document["generation_id"] for document in result.documents}

    assert await listed() == {fox.generation_id, boat.generation_id}
    assert await listed("--query", "boat ON") == {boat.generation_id}
    assert await listed("--kind", "text-to-video") == {fox.generation_id}


async def test_an_empty_list_says_so_and_a_wrong_option_names_itself(desk: Desk) -> None:
    empty, wrong = await asyncio.gather(
        desk.run("list", "--user", "nobody"), desk.run("list", "--query", "x" * 101)
    )

    assert (empty.code, empty.err) == (0, "there are none\n")
    assert wrong.code == 2
    assert wrong.err == "error: query (--query) must have at most 100 characters\n"


async def test_what_has_not_ended_is_not_deleted_and_a_cancel_under_way_says_so(
    desk: Desk,
) -> None:
    running = generation_in(Stage.RUNNING, job_id="job")
    ended = generation_in(Stage.FAILED, finished_at=datetime.now(UTC))
    await desk.service.replica.insert(running, ended)

    deleted, canceled = await asyncio.gather(
        desk.run("delete", running.generation_id, ended.generation_id, "--user", USER),
        desk.run("cancel", running.generation_id, "--user", USER),
    )
    shown = await desk.run("show", running.generation_id, "--user", USER)

    assert deleted.code == 1
    assert deleted.out == "deleted: 1\n"
    assert deleted.err.startswith(f"error: {running.generation_id} has not ended; cancel it first")
    assert canceled.code == 0, canceled.err
    assert canceled.out.splitlines()[0] == (
        "being canceled: 10 of 10 credits will be given back, unless the video comes first"
    )
    facts = {line[:21].rstrip(): line[22:] for line in shown.out.splitlines()}
    assert (facts["stage"], facts["cancel refund credits"]) == ("canceling", "10")
    assert (facts["kind"], facts["created at"][-4:]) == ("text-to-video", " UTC")


async def test_following_shows_places_that_change_while_the_generation_does_not(
    desk: Desk,
) -> None:
    replica, shown = desk.service.replica, list[Generation]()
    first, second = await replica.ready(), await replica.ready()

    def places() -> list[int | None]:
        return [generation.queue_position for generation in shown]

    async with GenerationClient(desk.service.address) as client, asyncio.timeout(30):
        waiting = await client.get(USER, second.generation_id)
        following = asyncio.create_task(follow(client, waiting, shown.append))
        await eventually(lambda: answered(places()[-1:] == [2]))
        await replica.tell(first, CancelRequested(CancelPolicy()))
        await eventually(lambda: answered(places()[-1:] == [1]))
        following.cancel()
        await asyncio.wait([following])

    assert {generation.generation_id for generation in shown} == {second.generation_id}
    assert len({generation.version for generation in shown}) == 1


async def answered(answer: bool) -> bool:
    return answer
