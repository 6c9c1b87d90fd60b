"""QuoteGeneration, and what CreateGeneration makes of its token."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.generation.gate import GatePolicy
from services.generation.quotes import Terms, sign_quote
from services.generation.state import Kind as Kinds
from services.generation.state import Stage as Stages
from services.runtime.errors import AlreadyExists, Overloaded, PreconditionFailed, Unavailable
from tests.contract.generation.harness import (
    KEYS,
    UNFINISHED_MAX,
    Kind,
    Service,
    Status,
    refusal,
    violations,
    wanted,
)
from tests.integration.generation.harness import USER, generation_in

BOTH = pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
NOT_OURS = "must be what QuoteGeneration answered for the same user, model and resolution"
TERMS = Terms(USER, Kinds.TEXT_TO_VIDEO, "t2v-14B", "480p")
IMAGE = {"kind": Kind.IMAGE_TO_VIDEO, "model": "i2v-14B", "image_uri": "https://example.com/a.png"}


async def quote(service: Service, **fields: Any) -> Any:
    request = wanted(**fields)
    del request["generation_id"]
    return await service.call("QuoteGeneration", **request)


@BOTH
async def test_a_quote_tells_price_balance_and_time_and_creates_nothing(service: Service) -> None:
    before = datetime.now(UTC)

    quoted = await quote(service, resolution="720p")

    assert (quoted.cost_credits, quoted.available_credits) == (20, 100)
    assert (quoted.available_after_credits, quoted.queue_ahead) == (80, 0)
    likely, latest = (
        moment.ToDatetime(UTC) for moment in (quoted.eta.likely_time, quoted.eta.latest_time)
    )
    # As the catalog says, since nothing was measured yet.
    assert timedelta(seconds=150) < likely - before < timedelta(seconds=200)
    assert likely < latest
    holds = quoted.expire_time.ToDatetime(UTC) - before
    assert timedelta(minutes=4) < holds < timedelta(minutes=6)
    assert await service.replica.generations() == []
    assert await service.credits.balance(USER) == (100, 0)


async def test_too_few_credits_are_told_and_no_error(service: Service) -> None:
    await service.credits.add(USER, -95)

    quoted = await quote(service)
    of_nobody = await quote(service, user_id="nobody")

    assert (quoted.available_credits, quoted.available_after_credits) == (5, -5)
    assert (of_nobody.available_credits, of_nobody.available_after_credits) == (0, -10)


async def test_the_queue_ahead_is_what_waits(service: Service) -> None:
    await service.replica.insert(*(generation_in(Stages.READY, user_id="bob") for _ in range(3)))

    assert (await quote(service)).queue_ahead == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "short"},
        {"kind": 0},
        {"kind": 7},
        {"model": "t2v-15B", "prompt": ""},
        {"resolution": "1080p", "seed": -1},
        {"model": "t2v-1.3B", "negative_prompt": "rain"},
        {"image_uri": "ftp://example.com"},
        IMAGE | {"image_uri": ""},
        {"user_id": "a b"},
    ],
)
async def test_what_a_create_would_refuse_is_refused_in_the_same_words(
    service: Service, fields: dict[str, Any]
) -> None:
    assert await violations(quote(service, **fields)) == await violations(service.create(**fields))


async def test_without_credits_there_is_no_quote(service: Service) -> None:
    await service.credits.stop()

    assert (await refusal(Unavailable, quote(service)))[0] == "CREDITS_UNAVAILABLE"


@BOTH
async def test_a_quote_holds_its_price(service: Service) -> None:
    # As it was quoted before the price rose, and before the keys changed.
    for price_credits, key in zip((7, 8), KEYS, strict=True):
        token, _ = sign_quote(key, TERMS, price_credits, datetime.now(UTC))

        created = await service.create(quote_token=token)

        assert created.cost_credits == price_credits
    assert await service.credits.balance(USER) == (85, 15)


async def test_what_was_quoted_can_be_created(service: Service) -> None:
    for fields in ({}, {"resolution": "720p"}, IMAGE):
        quoted = await quote(service, **fields)

        created = await service.create(**fields, quote_token=quoted.quote_token)

        assert (created.status, created.cost_credits) == (Status.QUEUED, quoted.cost_credits)


async def test_a_quote_that_holds_no_more_is_refused_with_when_it_did(service: Service) -> None:
    signed_at = datetime.now(UTC) - timedelta(minutes=5, seconds=1)
    token, said = sign_quote(KEYS[0], TERMS, 7, signed_at)

    reason, metadata = await refusal(PreconditionFailed, service.create(quote_token=token))

    assert reason == "QUOTE_EXPIRED"
    assert datetime.fromisoformat(metadata["expired"]) == said.expires_at
    assert await service.replica.generations() == []


@pytest.mark.parametrize(
    ("token", "fields"),
    [
        (sign_quote(KEYS[0], TERMS, 1, datetime.now(UTC))[0], {"resolution": "720p"}),
        (sign_quote(KEYS[0], TERMS, 1, datetime.now(UTC))[0], {"model": "t2v-1.3B"}),
        (sign_quote(KEYS[0], TERMS, 1, datetime.now(UTC))[0], {"user_id": "bob"}),
        (sign_quote(b"x" * 32, TERMS, 1, datetime.now(UTC))[0], {}),
        ("1.2.3", {}),
        ("x" * 512, {}),
    ],
    ids=["resolution", "model", "user", "key", "form", "length"],
)
async def test_a_token_that_is_not_ours_or_for_something_else_is_refused(
    service: Service, token: str, fields: dict[str, Any]
) -> None:
    refused = await violations(service.create(quote_token=token, **fields))

    assert refused == ("INVALID_FIELD", {"quote_token": NOT_OURS})
    assert await service.replica.generations() == []


async def test_a_token_is_named_among_all_that_is_wrong(service: Service) -> None:
    _, at_once = await violations(service.create(quote_token="x", seed=-1))
    _, too_long = await violations(service.create(quote_token="x" * 513, seed=-1))

    assert at_once.keys() == {"quote_token", "seed"}
    assert too_long["quote_token"] == "must have at most 512 characters"
    assert too_long.keys() == {"quote_token", "seed"}


async def test_a_repetition_needs_no_token_and_minds_none(service: Service) -> None:
    token, _ = sign_quote(KEYS[0], TERMS, 7, datetime.now(UTC))
    request = wanted()
    await service.call("CreateGeneration", **request, quote_token=token)

    for other in ("", token, "none of ours"):
        again = await service.call("CreateGeneration", **request, quote_token=other)
        assert again.cost_credits == 7
    reason, _ = await refusal(AlreadyExists, service.create(**request | {"seed": 1}))
    assert reason == "GENERATION_ID_REUSED"
    assert await service.credits.balance(USER) == (93, 7)


@BOTH
async def test_a_user_has_so_many_unfinished_generations_at_the_most(service: Service) -> None:
    request = wanted()
    await service.call("CreateGeneration", **request)
    stages = [Stages.READY, Stages.RUNNING, Stages.PARKED, Stages.REFUNDING, Stages.CANCELING]
    await service.replica.insert(
        *(generation_in(stages[n % len(stages)]) for n in range(UNFINISHED_MAX - 2)),
        *(generation_in(Stages.FAILED) for _ in range(3)),
        *(generation_in(Stages.READY, user_id="bob") for _ in range(UNFINISHED_MAX)),
    )
    await service.create()

    reason, metadata = await refusal(Overloaded, service.create())
    again = await service.call("CreateGeneration", **request)

    assert (reason, metadata) == ("TOO_MANY_GENERATIONS", {"limit": str(UNFINISHED_MAX)})
    assert again.status == Status.QUEUED
    assert await service.credits.balance(USER) == (80, 20)


@BOTH
async def test_what_a_user_begins_at_once_counts_too(service: Service) -> None:
    await service.credits.add(USER, 1_000)
    known = wanted()
    await service.call("CreateGeneration", **known)
    requests = [wanted() for _ in range(60)]
    other = wanted(user_id="bob")
    await service.credits.open("bob")

    async def create(request: dict[str, Any]) -> Any:
        try:
            return await service.call("CreateGeneration", **request)
        except Overloaded as error:
            return error

    *answers, again, others = await asyncio.gather(*map(create, [*requests, known, other]))

    refused = [answer for answer in answers if isinstance(answer, Overloaded)]
    assert len(answers) - len(refused) == UNFINISHED_MAX - 1
    assert {error.reason for error in refused} == {"TOO_MANY_GENERATIONS"}
    assert {error.retry_after_s for error in refused} == {10.0}
    assert again.generation_id == known["generation_id"]
    assert others.user_id == "bob"


class TestOfSlowSubmissions:
    @pytest.fixture
    def policy(self) -> GatePolicy:
        # 2,700 s less what the model takes at most are enough for about 130.
        return GatePolicy(rate_per_s=0.05, burst=1, in_flight_max=100)

    async def test_what_could_not_be_made_in_time_is_not_taken_on(self, service: Service) -> None:
        request = wanted()
        await service.call("CreateGeneration", **request)
        await service.replica.insert(
            *(generation_in(Stages.READY, user_id=f"user{n}") for n in range(140))
        )
        refused = await _refused_in_the_end(service)
        again = await service.call("CreateGeneration", **request)

        assert refused.reason == "BACKLOG_FULL"
        assert 1 <= refused.retry_after_s <= 60
        assert again.status == Status.QUEUED
        assert again.queue_position == 1
        assert (await quote(service)).queue_ahead > 140


async def _refused_in_the_end(service: Service) -> Overloaded:
    """The error of a create; what waits is looked at once a second."""
    async with asyncio.timeout(10):
        while True:
            try:
                await service.create()
            except Overloaded as error:
                return error
            await asyncio.sleep(0.2)
