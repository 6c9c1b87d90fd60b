"""What people do with their generations besides waiting, as they type it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from services.cli.statement import moved_by, net_credits
from services.client.credits import CreditsClient, TransactionType
from services.client.generations import Generation, GenerationClient, Kind, Status
from tests.end_to_end.running import Running, eventually

# The first test of a worker waits until the stack is up.
pytestmark = pytest.mark.timeout(90)

STARTED_S_MAX = 20.0


async def begin(stack: Running, user: str, prompt: str, until: Status) -> Generation:
    """Opens an account and begins a video; returns the generation once it is so far."""
    addresses = stack.up_file.addresses
    async with (
        CreditsClient(addresses["credits"]) as credits_client,
        GenerationClient(addresses["generation"]) as generations,
        asyncio.timeout(STARTED_S_MAX),
    ):
        await credits_client.open_account(user)
        begun = await generations.create(user, Kind.TEXT_TO_VIDEO, "t2v-14B", "480p", prompt)
        changes = generations.watch(user, [begun.generation_id])
        async for change in changes:
            if change.status is until:
                break
        await changes.aclose()
        return change


async def test_a_cancel_stops_the_job_gives_the_credits_back_and_a_retry_makes_the_video(
    stack: Running, user: str
) -> None:
    prompt = "a dog that waits for its master [stuck]"
    begun = await begin(stack, user, prompt, Status.PROCESSING)

    canceled = stack.run("generations", "cancel", begun.generation_id, "--user", user)
    again = stack.json("generations", "cancel", begun.generation_id, "--user", user)

    assert canceled.returncode == 0, canceled.stderr
    assert canceled.stdout.splitlines() == [
        "canceled: 10 of 10 credits are given back",
        f"{user}: 100 credits available, 0 reserved",
    ]
    assert (again["status"], again["error"]["code"]) == ("CANCELED", "CANCELED")
    eventually(lambda: [p["status"] for p in stack.predictions(prompt)] == ["canceled"])
    async with CreditsClient(stack.up_file.addresses["credits"]) as client:
        record = [transaction async for transaction in client.transactions(user)][::-1]
    own = moved_by(record, begun.generation_id)
    assert [t.type for t in own] == [TransactionType.RESERVATION, TransactionType.REFUND]
    assert net_credits(own) == 0


async def test_a_failed_video_is_made_again_as_a_generation_of_its_own(
    stack: Running, user: str
) -> None:
    failed = await begin(stack, user, "a bridge that breaks [fail]", Status.FAILED)

    result = stack.run("generations", "retry", failed.generation_id, "--user", user, "--json")

    document = json.loads(result.stdout)
    assert result.returncode == 1, "it fails again"
    assert document["generation"]["retry_of"] == failed.generation_id
    assert document["generation"]["generation_id"] != failed.generation_id
    assert document["generation"]["error"]["code"] == "MODEL_FAILED"
    assert document["balance"]["available_credits"] == 100


async def test_what_is_made_cannot_be_canceled_but_deleted_with_its_video(
    stack: Running, user: str
) -> None:
    made = await begin(stack, user, "a swan on a still lake", Status.COMPLETED)
    assert made.video_uri

    late = stack.run("generations", "cancel", made.generation_id, "--user", user)
    retried = stack.run("generations", "retry", made.generation_id, "--user", user)
    deleted = stack.run("generations", "delete", made.generation_id, "--user", user)
    stranger = stack.run("generations", "delete", made.generation_id, "--user", "somebody")
    left = stack.run("generations", "list", "--user", user, "--json")

    assert (late.returncode, late.stderr.count("\n")) == (1, 1)
    assert f"`reelworks generations show {made.generation_id} --user {user}`" in late.stderr
    assert (retried.returncode, retried.stderr.count("\n")) == (1, 1)
    assert (deleted.returncode, deleted.stdout) == (0, "deleted: 1\n")
    assert stranger.returncode == 1
    assert stranger.stderr == f"error: somebody has no generation {made.generation_id}\n"
    assert left.stdout == ""


def test_a_quote_says_price_balance_and_time_and_makes_nothing(stack: Running, user: str) -> None:
    prompt = "a comet over the mountains"

    told = stack.run("generate", prompt, "--user", user, "--quote", "--resolution", "720p")
    quote = stack.json("generate", prompt, "--user", user, "--quote")

    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert lines[:2] == [
        "price    20 credits, held for 5 min",
        "balance  100 credits available, 80 afterwards",
    ]
    assert [line.split()[0] for line in lines[2:]] == ["queue", "ready"]
    assert (quote["cost_credits"], quote["available_after_credits"]) == (10, 90)
    assert quote["quote_token"]
    assert stack.predictions(prompt) == []


def test_an_image_file_becomes_a_video_and_what_is_no_image_is_refused(
    stack: Running, user: str, tmp_path: Path
) -> None:
    picture, text = tmp_path / "boat.png", tmp_path / "boat.txt.png"
    Image.new("RGB", (320, 240), "navy").save(picture)
    text.write_text("not a picture")
    prompt = "the boat begins to move"

    made = stack.json("generate", prompt, "--image", str(picture), "--user", user)
    refused = stack.run("generate", prompt, "--image", str(text), "--user", user)

    assert made["generation"]["model"] == "i2v-14B"
    assert made["generation"]["image_uri"].startswith("upload:")
    assert Path(made["file"]).name
    (prediction,) = stack.predictions(prompt)
    assert prediction["status"] == "succeeded"
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: content (--image) must be ")
    assert "JPEG, PNG or WebP" in refused.stderr
    assert refused.stderr.count("\n") == 1


async def test_operators_see_how_it_is_doing(stack: Running, user: str) -> None:
    await begin(stack, user, "a garden in the rain", Status.COMPLETED)

    screen = stack.run("generations", "stats")
    stats: Any = stack.json("generations", "stats")
    parked = stack.run("generations", "parked")
    nobody = stack.run("generations", "resume", "01890000-0000-7000-8000-000000000000")

    names = [line.split("  ")[0] for line in screen.stdout.splitlines()[:8]]
    assert names == [
        "submissions", "parked", "credits", "orphans", "ledger", "success", "duration", "ends told",
    ]  # fmt: skip
    ended = {end["status"]: end["generations"] for end in stats["ends"]}
    assert ended["COMPLETED"] >= 1
    assert stats["completion_p50_s"] <= stats["completion_p90_s"]
    assert stats["ends_by_webhook"] + stats["ends_by_poll"] >= 1
    assert (parked.returncode, parked.stdout.split()[0]) == (0, "GENERATION")
    assert nobody.returncode == 1
    assert nobody.stderr.count("\n") == 1
