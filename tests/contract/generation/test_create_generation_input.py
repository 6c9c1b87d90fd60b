"""CreateGeneration: what bad input gets."""

import asyncio
import time
from typing import Any

import grpc
import pytest
from reelworks.generation.v1 import generation_pb2

from services.generation import tables
from services.generation.catalog import SEED_MAX
from services.runtime.errors import InvalidRequest
from tests.contract.generation.harness import Kind, Service, refusal, violations, wanted
from tests.integration.generation.harness import USER

IMAGE = {
    "kind": Kind.IMAGE_TO_VIDEO,
    "model": "i2v-14B",
    "image_uri": "https://images.example/fox.png",
}
ID_RULE = "must be 1 to 64 characters of A-Z a-z 0-9 _ -"
UUID_RULE = "must be a UUID in lower case with hyphens"

ONE_BAD_FIELD: list[tuple[dict[str, Any], str, str, str, dict[str, str]]] = [
    # What is changed, the field that is named, its rule, the reason, the reason's metadata.
    (
        {"prompt": " a red fo "},
        "prompt",
        "must have 10 to 500 characters, has 8",
        "INVALID_FIELD",
        {},
    ),
    (
        {"prompt": "x" * 501},
        "prompt",
        "must have 10 to 500 characters, has 501",
        "INVALID_FIELD",
        {},
    ),
    ({"prompt": ""}, "prompt", "must be set", "INVALID_FIELD", {}),
    (
        {"prompt": "a red fox\0in snow"},
        "prompt",
        "must not contain control characters",
        "INVALID_FIELD",
        {},
    ),
    (
        {"model": "t2v-15B"},
        "model",
        "must be one of t2v-1.3B, t2v-14B, i2v-14B",
        "MODEL_NOT_FOUND",
        {"model": "t2v-15B"},
    ),
    (
        {"model": "t2v-1.3B", "resolution": "720p"},
        "resolution",
        "must be 480p for t2v-1.3B",
        "RESOLUTION_NOT_SUPPORTED",
        {"model": "t2v-1.3B", "resolution": "720p"},
    ),
    (
        {"resolution": "1080p"},
        "resolution",
        "must be 480p or 720p for t2v-14B",
        "RESOLUTION_NOT_SUPPORTED",
        {"model": "t2v-14B", "resolution": "1080p"},
    ),
    (
        IMAGE | {"image_uri": ""},
        "image_uri",
        "must be set for image to video",
        "IMAGE_NOT_ACCEPTED",
        {},
    ),
    (
        IMAGE | {"image_uri": "http://images.example/fox.png"},
        "image_uri",
        "must be what UploadImage answered, or an https address",
        "IMAGE_NOT_ACCEPTED",
        {},
    ),
    (
        IMAGE | {"image_uri": "https:///fox.png"},
        "image_uri",
        "must be what UploadImage answered, or an https address",
        "IMAGE_NOT_ACCEPTED",
        {},
    ),
    (
        IMAGE | {"image_uri": "https://images.example/" + "x" * 2048},
        "image_uri",
        "must have at most 2048 characters",
        "IMAGE_NOT_ACCEPTED",
        {},
    ),
    (
        {"image_uri": "https://images.example/fox.png"},
        "image_uri",
        "must be empty for text to video",
        "IMAGE_NOT_ACCEPTED",
        {},
    ),
    (
        {"kind": Kind.IMAGE_TO_VIDEO},
        "kind",
        "must be TEXT_TO_VIDEO for t2v-14B",
        "INVALID_FIELD",
        {},
    ),
    ({"kind": 0}, "kind", "must be set", "INVALID_FIELD", {}),
    ({"kind": 99}, "kind", "must be TEXT_TO_VIDEO or IMAGE_TO_VIDEO", "INVALID_FIELD", {}),
    (
        {"model": "t2v-1.3B", "negative_prompt": "rain"},
        "negative_prompt",
        "must not be set: t2v-1.3B has no such parameter",
        "PARAMETER_NOT_SUPPORTED",
        {"model": "t2v-1.3B", "parameter": "negative_prompt"},
    ),
    (
        {"negative_prompt": "x" * 501},
        "negative_prompt",
        "must have at most 500 characters, has 501",
        "INVALID_FIELD",
        {},
    ),
    (
        {"aspect_ratio": "4:3"},
        "aspect_ratio",
        "must be 16:9 or 9:16",
        "INVALID_FIELD",
        {},
    ),
    ({"seed": -1}, "seed", f"must be between 0 and {SEED_MAX}", "INVALID_FIELD", {}),
    ({"seed": SEED_MAX + 1}, "seed", f"must be between 0 and {SEED_MAX}", "INVALID_FIELD", {}),
    ({"user_id": "ada lovelace"}, "user_id", ID_RULE, "INVALID_FIELD", {}),
    ({"user_id": "x" * 65}, "user_id", ID_RULE, "INVALID_FIELD", {}),
    ({"user_id": "ada\n"}, "user_id", ID_RULE, "INVALID_FIELD", {}),
    ({"generation_id": "fox"}, "generation_id", UUID_RULE, "INVALID_FIELD", {}),
    (
        {"generation_id": "A" * 8 + "-0000-4000-8000-" + "0" * 12},
        "generation_id",
        UUID_RULE,
        "INVALID_FIELD",
        {},
    ),
]


async def nothing_was_written(service: Service) -> bool:
    rows = await service.replica.rows(tables.generations)
    return rows == [] and await service.credits.balance(USER) == (100, 0)


async def test_one_bad_field_is_named_with_its_rule_and_the_specific_reason(
    service: Service,
) -> None:
    for changes, field, rule, reason, metadata in ONE_BAD_FIELD:
        told = await refusal(InvalidRequest, service.create(**changes))
        found, rules = await violations(service.create(**changes))

        assert rules == {field: rule}
        assert (found, told) == (reason, (reason, metadata))
        assert reason in generation_pb2.ErrorReason.DESCRIPTOR.values_by_name

    assert await nothing_was_written(service)


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        (
            {
                "user_id": "",
                "generation_id": "",
                "kind": 0,
                "model": "",
                "resolution": "",
                "prompt": "",
                "seed": -1,
            },
            {"user_id", "generation_id", "kind", "model", "resolution", "prompt", "seed"},
        ),
        (
            {
                "user_id": "!",
                "generation_id": "!",
                "kind": Kind.IMAGE_TO_VIDEO,
                "model": "t2v-1.3B",
                "resolution": "720p",
                "prompt": "short",
                "negative_prompt": "x" * 501,
                "image_uri": "file:///etc/passwd",
                "seed": 2**40,
            },
            {
                "user_id",
                "generation_id",
                "kind",
                "resolution",
                "prompt",
                "negative_prompt",
                "image_uri",
                "seed",
            },
        ),
        (
            IMAGE | {"image_uri": "upload:1", "aspect_ratio": "1:1", "prompt": "short"},
            {"image_uri", "aspect_ratio", "prompt"},
        ),
    ],
)
async def test_all_bad_fields_are_named_at_once(
    service: Service, changes: dict[str, Any], fields: set[str]
) -> None:
    reason, rules = await violations(service.create(**changes))

    assert set(rules) == fields
    assert reason == "INVALID_FIELD"
    assert all(rule.startswith("must ") for rule in rules.values())
    assert await nothing_was_written(service)


async def test_a_refused_id_can_be_used_for_a_good_request(service: Service) -> None:
    request = wanted()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await service.stub.CreateGeneration(
            generation_pb2.CreateGenerationRequest(**request | {"prompt": "short"})
        )

    created = await service.call("CreateGeneration", **request)

    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.details() == "prompt must have 10 to 500 characters, has 5"
    assert created.generation_id == request["generation_id"]


async def test_the_outermost_good_values_are_accepted(service: Service) -> None:
    # A character is a code point, whatever it takes in bytes.
    for changes in (
        {"prompt": "x" * 10},
        {"prompt": "🦊" * 500, "negative_prompt": "雨" * 500},
        {"seed": SEED_MAX},
        IMAGE,
        IMAGE | {"image_uri": "HTTPS://images.example:8443/fox.png?size=1"},
    ):
        created = await service.create(**changes)
        for field, value in changes.items():
            assert getattr(created, field) == value
    created = await service.create(user_id=USER, prompt=f"\t{'x' * 500}\n")
    assert len(created.prompt) == 500


async def test_prompts_like_books_keep_nobody_waiting(service: Service) -> None:
    generation = await service.create()
    book = "a red fox\u00a0" * 1_000_000
    strangers = [
        asyncio.create_task(violations(service.call(method, **fields)))
        for _ in range(4)
        for method, fields in (
            ("CreateGeneration", wanted(prompt=book)),
            ("QuoteGeneration", {"user_id": USER, "negative_prompt": book}),
        )
    ]

    slowest_s = 0.0
    while not all(stranger.done() for stranger in strangers):
        began = time.monotonic()
        await service.get(generation.generation_id)
        slowest_s = max(slowest_s, time.monotonic() - began)

    # To look at one character after the other takes seconds for each of them.
    assert slowest_s < 5
    for stranger in strangers:
        _, rules = await stranger
        assert rules["request"].startswith("must have at most 65536 bytes")
