"""What the faults at files do, seen from a bare socket."""

import pytest

from services.simulator.faults.action import Action, Operation
from services.simulator.faults.actions import (
    Drop,
    ExpireNow,
    FileAction,
    NotMp4,
    Redirect,
    ResetMidway,
    SlowBytes,
    Status,
    Truncate,
    WrongLength,
    WrongType,
)
from services.simulator.faults.fault import Match
from tests.integration.simulator.harness import Running, Start
from tests.integration.simulator.raw_call import Heard, raw_call


def kind(value: object) -> str | None:
    return value.kind if isinstance(value, Action) else None


async def video_of(running: Running) -> tuple[str, bytes]:
    """Returns address and content of a new video."""
    created = await running.create()
    address = (await running.reaches(created["id"], "succeeded"))["output"]
    return address, (await raw_call("GET", address)).body


async def spoiled(running: Running, action: FileAction) -> tuple[Heard, bytes]:
    """Returns how a file arrives at which `action` fires, and what it should have been."""
    address, whole = await video_of(running)
    await running.control.fault(action, Match(operation=Operation.FILE))
    heard = await raw_call("GET", address)
    assert (await raw_call("GET", address)).body == whole
    (firing,) = await running.control.firings()
    assert (firing.kind, address.split("/")[-2]) == (action.kind, firing.prediction)
    return heard, whole


@pytest.mark.parametrize("status", [403, 404, 503])
async def test_a_file_is_refused(start: Start, status: int) -> None:
    heard, _ = await spoiled(await start(video="stamp"), Status(status=status))

    assert heard.status == status


async def test_a_file_is_not_answered_for(start: Start) -> None:
    heard, _ = await spoiled(await start(video="stamp"), Drop())

    assert heard.content == b""


async def test_a_file_is_said_to_be_elsewhere(start: Start) -> None:
    running = await start(video="stamp")
    heard, _ = await spoiled(running, Redirect())

    assert heard.status == 302
    assert heard.headers["location"].startswith(f"{running.addresses.api}/xezq/")


async def test_a_file_is_cut_as_if_it_were_whole(start: Start) -> None:
    heard, whole = await spoiled(await start(video="stamp"), Truncate())

    assert heard.body == whole[: len(whole) // 2]
    assert heard.headers["content-length"] == str(len(heard.body))


async def test_a_file_is_shorter_than_announced(start: Start) -> None:
    heard, whole = await spoiled(await start(video="stamp"), WrongLength())

    assert heard.body == whole
    assert int(heard.headers["content-length"]) > len(whole)


async def test_a_file_has_the_wrong_type(start: Start) -> None:
    heard, whole = await spoiled(await start(video="stamp"), WrongType())

    assert heard.headers["content-type"] == "text/html"
    assert heard.body == whole


async def test_a_file_is_no_video(start: Start) -> None:
    heard, _ = await spoiled(await start(video="stamp"), NotMp4())

    assert heard.headers["content-type"] == "video/mp4"
    assert heard.body.startswith(b"<html>")


async def test_a_connection_is_reset_midway(start: Start) -> None:
    heard, whole = await spoiled(await start(video="stamp"), ResetMidway())

    assert heard.ended_by == "reset"
    assert heard.headers["content-length"] == str(len(whole))
    assert heard.body == whole[: len(whole) // 2]


async def test_a_file_drips(start: Start) -> None:
    heard, whole = await spoiled(await start(video="stamp"), SlowBytes(bytes_per_s=20_000))

    assert heard.body == whole
    assert heard.pieces > 3


async def test_a_file_expires_when_it_is_asked_for(start: Start) -> None:
    running = await start(video="stamp")
    address, _ = await video_of(running)
    await running.control.fault(ExpireNow())

    assert (await raw_call("GET", address)).status == 404
    assert (await raw_call("GET", address)).status == 404
    read = await running.get(address.split("/")[-2])
    assert (read["data_removed"], read["output"], read["input"]) == (True, None, {})


async def test_files_may_need_the_token_of_their_account(start: Start) -> None:
    running = await start(tokens=("r8_one", "r8_two"))
    address, whole = await video_of(running)
    await running.control.switch(files_need_authorization=True)

    statuses = [(await raw_call("GET", address, token)).status for token in ("", "x", "r8_two")]

    assert statuses == [401, 401, 401]
    assert (await raw_call("GET", address, "r8_one")).body == whole
