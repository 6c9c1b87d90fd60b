"""A video from its prompt to its bill, and everything that can come in between."""

import asyncio
import contextlib
import json
import signal
import urllib.request
from collections.abc import AsyncIterator

import av
import pytest

from services.cli.statement import find_faults, moved_by, net_credits
from services.client.credits import Balance, CreditsClient, Transaction, TransactionType
from services.client.generations import (
    Generation,
    GenerationClient,
    GenerationErrorCode,
    Kind,
    Stage,
    Status,
    new_generation_id,
)
from tests.end_to_end.running import Running, environment, eventually, reelworks

# The first test of a worker waits until the stack is up.
pytestmark = pytest.mark.timeout(300)

RESERVATION, DEDUCTION, REFUND = (
    TransactionType.RESERVATION,
    TransactionType.DEDUCTION,
    TransactionType.REFUND,
)


async def read_record(stack: Running, user: str) -> tuple[list[Transaction], Balance]:
    """The whole statement of a user, oldest first, which must add up."""
    async with CreditsClient(stack.up_file.addresses["credits"]) as client:
        record = [transaction async for transaction in client.transactions(user)][::-1]
        balance = await client.get_balance(user)
    assert find_faults(record, balance) == []
    return record, balance


async def follow(stack: Running, user: str, generation_id: str) -> AsyncIterator[Generation]:
    async with GenerationClient(stack.up_file.addresses["generation"]) as client:
        changes = client.watch(user, [generation_id])
        async with contextlib.aclosing(changes):
            async for change in changes:
                yield change
                if change.is_final:
                    return


async def create(stack: Running, user: str, prompt: str) -> str:
    """Opens an account and begins a video; returns the generation's id."""
    addresses = stack.up_file.addresses
    async with (
        CreditsClient(addresses["credits"]) as credits_client,
        GenerationClient(addresses["generation"]) as generations,
    ):
        await credits_client.open_account(user)
        generation = await generations.create(user, Kind.TEXT_TO_VIDEO, "t2v-14B", "480p", prompt)
    return generation.generation_id


async def test_a_prompt_becomes_a_playable_video_that_is_charged_once(
    stack: Running, user: str
) -> None:
    prompt = "a red fox running through fresh snow"
    file = stack.var / f"{user}.mp4"

    result = stack.run("generate", prompt, "--user", user, "--output", str(file))

    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[-1] == f"video: {file}"
    assert f"{user}: 90 credits available, 0 reserved" in lines
    assert not any(ord(character) in range(0x2500, 0x2600) for character in result.stdout)
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        frames = sum(1 for _ in container.decode(stream))
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 832, 480)
        assert frames == 81
        assert container.metadata["comment"] == prompt, "it is the video of another prompt"
    (prediction,) = stack.predictions(prompt)
    record, _ = await read_record(stack, user)
    assert [t.type for t in record] == [TransactionType.BONUS, RESERVATION, DEDUCTION]
    assert net_credits(record) == 90
    (shown,) = [
        json.loads(line)
        for line in stack.run("generations", "list", "--user", user, "--json").stdout.splitlines()
    ]
    assert shown["job_id"] == prediction["id"]
    assert (shown["status"], shown["charged_credits"]) == ("COMPLETED", 10)


def test_the_webhooks_of_a_video_are_shown_and_the_way_they_take_is_proven(
    stack: Running, user: str
) -> None:
    made = stack.json("generate", "a harbor at first light", "--user", user)
    generation_id = made["generation"]["generation_id"]

    checked = stack.json("webhooks", "check")
    sent = stack.json("webhooks", "send-test")

    def found(*arguments: str) -> list[tuple[str, str]]:
        result = stack.run("webhooks", "list", *arguments, "--json")
        events = map(json.loads, result.stdout.splitlines())
        return [(event["state"], event["disposition"]) for event in events]

    # A generation may end by a poll, and its last webhook come after that.
    eventually(
        lambda: {state for state, _ in found("--generation", generation_id)} == {"DELIVERED"}
    )
    eventually(lambda: found("--webhook-id", sent["webhook_id"]) == [("DELIVERED", "UNMATCHED")])
    assert (checked["status"], checked["problem"]) == (401, None)
    address = stack.up_file.addresses["webhook_metrics"]
    with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310  Its own.
        assert b'deliveries_total{code="OK",disposition="UNMATCHED"}' in answer.read()


async def test_a_failed_job_is_refunded(stack: Running, user: str) -> None:
    prompt = "a paper boat in a storm [fail]"

    result = stack.run("generate", prompt, "--user", user, "--json")

    assert result.returncode == 1
    document = json.loads(result.stdout)
    assert document["generation"]["error"]["code"] == "MODEL_FAILED"
    assert document["file"] is None
    record, balance = await read_record(stack, user)
    own = moved_by(record, document["generation"]["generation_id"])
    assert [t.type for t in own] == [RESERVATION, REFUND]
    assert (net_credits(own), balance.available_credits) == (0, 100)
    assert len(stack.predictions(prompt)) == 1


async def test_too_few_credits_submit_nothing_and_the_attempt_is_on_record(
    stack: Running, user: str
) -> None:
    prompt = "a lighthouse in the fog that nobody pays"
    generation_id = new_generation_id()
    opened = stack.json("credits", "open", "--user", user)
    assert opened["created"]
    stack.json("credits", "grant", "-95", "--type", "adjustment", "--user", user)

    result = stack.run("generate", prompt, "--user", user, "--generation-id", generation_id)

    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "10 credits are required, 5 are available" in result.stderr
    assert f"reelworks credits grant 100 --user {user}" in result.stderr
    assert stack.predictions(prompt) == []
    attempt = stack.json("generations", "show", generation_id, "--user", user)
    assert attempt["error"]["code"] == GenerationErrorCode.INSUFFICIENT_CREDITS
    assert (attempt["status"], attempt["stage"]) == ("FAILED", "REJECTED")
    assert (attempt["attempt"], attempt["job_id"]) == (0, "")
    record, balance = await read_record(stack, user)
    assert moved_by(record, generation_id) == []
    assert balance.available_credits == 5


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["short"], "prompt must have 10 to 500 characters"),
        (["x" * 501], "prompt must have 10 to 500 characters"),
        (["a long enough prompt", "--model", "t2v-9B"], "model (--model) must be one of"),
        (["a long enough prompt", "--model", "t2v-1.3B", "--resolution", "720p"], "resolution"),
        (["a long enough prompt", "--model", "i2v-14B"], "image_uri (--image-uri) must be set"),
        (
            ["a long enough prompt", "--model", "i2v-14B", "--image-uri", "http://a.example/b"],
            "image_uri (--image-uri) must be what UploadImage answered, or an https address",
        ),
        (
            ["a long enough prompt", "--seed", "-1"],
            "seed (--seed) must be between 0 and",
        ),
        (["a long enough prompt", "--generation-id", "x"], "generation_id must be a UUID"),
    ],
)
async def test_what_cannot_be_made_is_refused_by_field_and_rule_and_costs_nothing(
    stack: Running, arguments: list[str], field: str
) -> None:
    result = stack.run("generate", *arguments, "--user", "careless")

    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {field}")
    assert result.stderr.count("\n") == 1
    record, _ = await read_record(stack, "careless")
    assert [t.type for t in record] == [TransactionType.BONUS]


@pytest.mark.parametrize(
    ("amount", "kind"), [("0", "bonus"), ("-5", "purchase"), ("1000000000000001", "bonus")]
)
def test_impossible_amounts_are_refused(stack: Running, amount: str, kind: str) -> None:
    stack.json("credits", "open", "--user", "careless")

    result = stack.run("credits", "grant", amount, "--type", kind, "--user", "careless")

    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("error: credits must be ")
    assert stack.json("credits", "balance", "--user", "careless")["available_credits"] == 100


def test_impossible_user_ids_are_refused(stack: Running) -> None:
    result = stack.run("credits", "open", "--user", "ann@example.com")

    assert result.returncode == 2
    assert result.stderr.startswith("error: user_id (--user) must be 1 to 64 characters of")


def test_the_same_generation_id_is_charged_once_and_refused_with_another_prompt(
    stack: Running, user: str
) -> None:
    generation_id = new_generation_id()
    first = ("generate", "a kite over the dunes", "--user", user, "--generation-id", generation_id)

    made = stack.json(*first)
    repeated = stack.json(*first)
    other = stack.run(*first[:1], "a kite over the sea", *first[2:])

    assert made["generation"] == repeated["generation"]
    assert repeated["balance"]["available_credits"] == 90
    assert other.returncode == 1
    assert "used with another prompt; it is the id of another generation" in other.stderr
    assert stack.predictions("a kite over the sea") == []


async def test_a_webhook_that_never_comes_is_replaced_by_polling(stack: Running, user: str) -> None:
    prompt = "a silent forest at dawn [nowebhook]"

    made = stack.json("generate", prompt, "--user", user)

    (prediction,) = stack.predictions(prompt)
    assert made["generation"]["job_id"] == prediction["id"]
    record, _ = await read_record(stack, user)
    assert [t.type for t in record[1:]] == [RESERVATION, DEDUCTION]


@pytest.mark.parametrize("service", ["generation", "webhook", "credits"])
async def test_a_service_killed_while_a_job_runs_costs_neither_the_video_nor_a_second_charge(
    stack: Running, user: str, service: str
) -> None:
    prompt = f"a tower that does not fall without {service} [slow]"
    generation_id = await create(stack, user, prompt)
    async for change in follow(stack, user, generation_id):
        if change.stage is Stage.RUNNING:
            break

    killed = stack.kill(service)
    (prediction,) = stack.predictions(prompt)
    changes = [change async for change in follow(stack, user, generation_id)]

    assert prediction["status"] in ("starting", "processing"), "it was killed too late to matter"
    assert changes[-1].status is Status.COMPLETED
    assert changes[-1].charged_credits == 10
    assert len(stack.predictions(prompt)) == 1, "it was submitted twice"
    eventually(lambda: stack.up_file.processes.get(service, killed) != killed)
    record, _ = await read_record(stack, user)
    assert [t.type for t in moved_by(record, generation_id)] == [RESERVATION, DEDUCTION]
    assert net_credits(record) == 90


async def test_ctrl_c_leaves_a_generation_to_go_on(stack: Running, user: str) -> None:
    generation_id = new_generation_id()
    prompt = "a candle that burns on [slow]"
    # The larger model takes long enough for a signal to come before its end.
    options = ("--model", "t2v-14B", "--user", user, "--generation-id", generation_id)
    command = reelworks("generate", prompt, *options)
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment(REELWORKS_VAR=str(stack.var)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await process.stdout.readline()

    process.send_signal(signal.SIGINT)

    _, error = await process.communicate()
    assert process.returncode == 130
    assert f"reelworks generations show {generation_id} --user {user}" in error.decode()
    assert f"reelworks generations cancel {generation_id} --user {user}" in error.decode()
    changes = [change async for change in follow(stack, user, generation_id)]
    assert changes[-1].status is Status.COMPLETED


def test_lists_are_lines_for_people_and_documents_for_programs(stack: Running) -> None:
    models = stack.run("models")
    lines = stack.run("models", "--json").stdout.splitlines()

    assert models.stdout.splitlines()[0].split()[:2] == ["MODEL", "NAME"]
    assert {json.loads(line)["model"] for line in lines} == {"t2v-1.3B", "t2v-14B", "i2v-14B"}


def test_a_second_stack_does_not_take_the_same_folder(stack: Running) -> None:
    result = stack.run("up", REELWORKS_CREDITS_PORT="0", REELWORKS_GENERATION_PORT="0")

    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
