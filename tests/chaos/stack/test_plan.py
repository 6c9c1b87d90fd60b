"""A seed draws one plan, links do what they are told, and what is read is what was written."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from services.generation.timing import FAST
from services.simulator.faults.actions import CreateThenHang, ListLag
from services.simulator.faults.fault import Fault
from services.simulator.faults.profiles import Profile, profile_faults
from tests.chaos.cases import POINTS
from tests.chaos.stack.exhibits import title_of
from tests.chaos.stack.journal import Journal, read_lines
from tests.chaos.stack.links import Link, opened_links
from tests.chaos.stack.performance import databases_at
from tests.chaos.stack.plan import FAILPOINTS, FAULTS, SILENCE, Kind, Mode, Service, Settings, draw
from tests.chaos.stack.stack import opened_stack
from tests.chaos.stack.troubles import weather
from tests.chaos.stack.videos import video_of

SERVICES = Path(__file__).parents[3] / "services"


def test_a_seed_draws_one_plan() -> None:
    settings = Settings(seed=7)

    assert draw(settings) == draw(settings)
    assert draw(settings).troubles != draw(replace(settings, seed=8)).troubles
    assert draw(settings).errands != draw(replace(settings, seed=8)).errands


def test_more_work_shifts_no_trouble() -> None:
    few, many = draw(Settings(jobs=40)), draw(Settings(jobs=80))

    assert few.troubles == many.troubles


def test_a_plan_has_all_kinds_of_work_and_trouble() -> None:
    plan = draw(Settings())

    assert {errand.kind for errand in plan.errands} == set(Kind)
    assert {trouble.what for trouble in plan.troubles} == {
        "kill", "failpoint", "freeze", "network", "weather", "fault", "skew", "leave", "join",
        "restart",
    }  # fmt: skip
    assert all(0 <= trouble.at_s <= plan.settings.load_s for trouble in plan.troubles)
    assert len({errand.generation_id for errand in plan.errands}) == len(plan.errands)


@pytest.mark.parametrize("seed", range(5))
def test_every_service_dies_at_failpoints_and_elsewhere(seed: int) -> None:
    troubles = draw(Settings(seed=seed, kills=16)).troubles

    for what in ("kill", "failpoint"):
        assert {trouble.service for trouble in troubles if trouble.what == what} == set(Service)


@pytest.mark.parametrize("seed", range(5))
def test_some_of_what_stands_still_outlasts_every_lease(seed: int) -> None:
    freezes = [t for t in draw(Settings(seed=seed)).troubles if t.what == "freeze"]
    leases_s = [value for name, value in asdict(FAST).items() if name.endswith("lease_s")]

    assert any(freeze.lasts_s > max(leases_s) for freeze in freezes)
    assert any(freeze.lasts_s < min(leases_s) for freeze in freezes)


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"jobs": 0}, "jobs must be at least 1"),
        ({"replicas": 0}, "replicas must be at least 1"),
        ({"kills": -1}, "kills must be at least 0"),
        ({"load_s": 0.0}, "load_s must be more than 0"),
    ],
)
def test_a_run_of_nothing_is_refused(wrong: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Settings(**wrong)


@pytest.mark.parametrize("profile", Profile)
def test_a_weather_breaks_nothing_that_nobody_promised(profile: Profile) -> None:
    quickened = weather(profile, 2.0)

    assert len(quickened) == len(profile_faults(profile))
    for fault in quickened:
        assert fault.lasts_s == 2.0
        if isinstance(fault.action, ListLag):
            assert fault.action.lag_s < FAST.search_grace_s
        if isinstance(fault.action, CreateThenHang):
            assert fault.action.hang_s > FAST.provider_call_s


async def test_the_simulator_draws_by_the_seed_of_the_run(tmp_path: Path) -> None:
    settings = Settings(seed=77, database="sqlite", replicas=1)
    with (tmp_path / "journal.jsonl").open("w") as file:
        opened = opened_stack(settings, tmp_path, Journal(file), databases_at(tmp_path, None), None)
        async with (
            opened as stack,
            ClientSession(stack.addresses["control"]) as session,
            session.get("/control/state") as answer,
        ):
            state = await answer.json()

    assert state["seed"] == 77


def test_one_process_of_each_service_is_all_that_sqlite_bears() -> None:
    plan = draw(Settings(database="sqlite", replicas=1))

    assert not {"restart", "join"} & {trouble.what for trouble in plan.troubles}
    assert {trouble.replica for trouble in plan.troubles} == {0}
    assert not any(trouble.link.startswith("database") for trouble in plan.troubles)


@pytest.mark.parametrize("fault", [*FAULTS, SILENCE], ids=str)
def test_the_provider_knows_each_fault(fault: dict[str, object]) -> None:
    assert Fault.model_validate(fault).action


def test_each_failpoint_of_the_services_is_tried_somewhere() -> None:
    source = "\n".join(path.read_text() for path in SERVICES.rglob("*.py"))
    named = set(re.findall(r'\bfailpoint\(f?"([^"]+)"\)', source))
    tried = {point for points in FAILPOINTS.values() for point in points}
    tried |= {kill.partition("=")[0] for point in POINTS for kill in point.kills}

    stages = {name for name in named if name.startswith("{generation.stage}")}
    assert stages == {"{generation.stage}.claimed", "{generation.stage}.answered"}
    assert named - stages <= tried
    ends = (".claimed", ".answered")
    assert all(point in named or point.endswith(ends) for point in tried)


def test_what_was_noted_is_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with path.open("w") as file:
        journal = Journal(file)
        journal.note("told", call="create")

        lines = list(read_lines(path))

    assert [(line["kind"], line["call"]) for line in lines] == [("told", "create")]
    with pytest.raises(FileNotFoundError):
        list(read_lines(tmp_path / "nothing"))


@contextlib.asynccontextmanager
async def echoing() -> AsyncIterator[str]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(100):
            writer.write(chunk)
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@contextlib.asynccontextmanager
async def linked() -> AsyncIterator[Link]:
    async with echoing() as address, opened_links([Link("one", [address])]) as links:
        yield links["one"]


async def connected(link: Link) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = link.address.partition(":")
    return await asyncio.open_connection(host, int(port))


async def said(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit_s: float) -> bytes:
    """Returns what is answered in time, nothing if the connection ended."""
    writer.write(b"hello")
    async with asyncio.timeout(limit_s):
        try:
            return await reader.read(100)
        except ConnectionError:
            return b""


@pytest.mark.parametrize("mode", [Mode.PASSING, Mode.SLOW])
async def test_what_passes_a_link_arrives(mode: Mode) -> None:
    async with linked() as link:
        link.change(mode)

        assert await said(*await connected(link), 5.0) == b"hello"


async def test_a_cut_ends_connections_and_lasts_until_it_is_mended() -> None:
    async with linked() as link:
        before = await connected(link)
        assert await said(*before, 5.0) == b"hello"

        link.change(Mode.CUT)

        assert await said(*before, 5.0) == b""
        assert await said(*await connected(link), 5.0) == b""
        link.change(Mode.PASSING)
        assert await said(*await connected(link), 5.0) == b"hello"


async def test_a_silent_link_answers_nothing_and_is_cut_when_it_is_mended() -> None:
    async with linked() as link:
        before = await connected(link)
        link.change(Mode.SILENT)

        with pytest.raises(TimeoutError):
            await said(*before, 0.2)

        link.change(Mode.PASSING)
        assert await said(*before, 5.0) == b""
        assert await said(*await connected(link), 5.0) == b"hello"


async def test_a_link_leads_to_whoever_is_there() -> None:
    async with echoing() as address, opened_links([Link("two", ["127.0.0.1:1", address])]) as links:
        for _ in range(4):
            assert await said(*await connected(links["two"]), 5.0) == b"hello"


def test_a_video_says_whose_it_is_and_a_broken_one_nothing(tmp_path: Path) -> None:
    own = video_of(tmp_path / "own.mp4", "job1")
    shared = video_of(tmp_path / "shared.mp4", "simulated")
    with shared.open("ab") as file:
        file.write(b"\0\0\0\x0dfreejob2\na fox")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(own.read_bytes()[:200])

    assert [title_of(path) for path in (own, shared, broken)] == ["job1", "job2", ""]


def test_failpoints_are_told_to_the_services_that_have_them() -> None:
    for service in Service:
        source = "\n".join(path.read_text() for path in (SERVICES / service).rglob("*.py"))
        for point in FAILPOINTS[service]:
            is_stage = point.split(".")[0].isupper()
            assert is_stage or f'failpoint("{point}")' in source, point
