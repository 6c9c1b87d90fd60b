from typing import Any

import pytest

from services.simulator.creates import (
    cancel_after_s,
    check_input,
    model_target,
    read_body,
    version_target,
    wait_s,
)
from services.simulator.problems import Problem
from services.simulator.registry import Registry, load_registry

T2V = "wavespeedai/wan-2.1-t2v-480p"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


def refused(status: int, function: Any, *arguments: Any) -> dict[str, Any]:
    with pytest.raises(Problem) as caught:
        function(*arguments)
    assert caught.value.status == status
    return caught.value.body


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("5", 5),
        ("300", 300),
        ("30s", 30),
        ("5m", 300),
        ("1h30m45s", 5445),
        ("1h", 3600),
        (" 90s ", 90),
    ],
)
def test_a_deadline_is_read(header: str | None, seconds: float | None) -> None:
    assert cancel_after_s(header) == seconds


@pytest.mark.parametrize(
    "header", ["", "4", "4s", "0h0m", "-5", "5.5s", "1m1h", "soon", "5d", "\u0665"]
)
def test_a_wrong_deadline_is_refused(header: str) -> None:
    assert refused(422, cancel_after_s, header)["status"] == 422


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("wait", 60), ("wait=5", 5), ("wait=0", 1), ("wait=99", 60), ("respond", None)],
)
def test_a_wish_to_wait_is_read(header: str | None, seconds: int | None) -> None:
    assert wait_s(header) == seconds


def test_the_outer_body_is_closed_in_the_words_of_replicate() -> None:
    body = refused(422, read_body, '{"version":"x","inptu":{"text":"Alice"}}', True)

    assert body == {
        "detail": "- Additional property inptu is not allowed\n- input is required\n",
        "status": 422,
        "title": "Input validation failed",
        "invalid_fields": [
            {
                "type": "additional_property_not_allowed",
                "field": "",
                "description": "Additional property inptu is not allowed",
            },
            {"type": "required", "field": "", "description": "input is required"},
        ],
    }


@pytest.mark.parametrize(
    ("text", "with_version", "field"),
    [
        ('{"input":{},"version":"x"}', False, ""),
        ('{"input":{}}', True, ""),
        ('{"input":{},"webhook_completed":"http://127.0.0.1/"}', False, ""),
        ('{"input":[]}', False, "input"),
        ('{"input":{},"webhook":5}', False, "webhook"),
        ('{"input":{},"webhook":"no address"}', False, "webhook"),
        ('{"input":{},"webhook_events_filter":["end"]}', False, "webhook_events_filter.0"),
        ("[]", False, ""),
        ("null", False, ""),
    ],
)
def test_what_the_outer_body_may_not_hold_is_named(
    text: str, with_version: bool, field: str
) -> None:
    body = refused(422, read_body, text, with_version)

    assert [one["field"] for one in body["invalid_fields"]] == [field]


@pytest.mark.parametrize("text", ["", "{", '{"input":{"seed":NaN}}', '"\\ud800"', "[" * 100_000])
def test_what_is_no_json_is_refused(text: str) -> None:
    refused(400, read_body, text, False)


def test_an_input_is_checked_in_the_words_of_replicate(registry: Registry) -> None:
    target = model_target(registry, T2V)

    assert refused(422, check_input, target, {}) == {
        "detail": "- input: prompt is required\n",
        "status": 422,
        "title": "Input validation failed",
        "invalid_fields": [
            {"type": "required", "field": "input", "description": "prompt is required"}
        ],
    }


@pytest.mark.parametrize(
    ("key", "value", "kind", "description"),
    [
        (
            "aspect_ratio",
            "1:1",
            "enum",
            'aspect_ratio must be one of the following: "16:9", "9:16"',
        ),
        ("sample_steps", 0, "number_gte", "Must be greater than or equal to 1"),
        ("sample_steps", 41, "number_lte", "Must be less than or equal to 40"),
        ("seed", "x", "invalid_type", "Invalid type. Expected: integer, given: string"),
        ("seed", None, "invalid_type", "Invalid type. Expected: integer, given: null"),
        ("seed", 1.5, "invalid_type", "Invalid type. Expected: integer, given: number"),
        ("sample_shift", True, "invalid_type", "Invalid type. Expected: integer, given: boolean"),
    ],
)
def test_a_wrong_value_is_named(
    registry: Registry, key: str, value: object, kind: str, description: str
) -> None:
    target = model_target(registry, T2V)

    body = refused(422, check_input, target, {"prompt": "a lake", key: value})

    assert body["invalid_fields"] == [
        {"type": kind, "field": f"input.{key}", "description": description}
    ]
    assert body["detail"] == f"- input.{key}: {description}\n"


def test_an_image_must_be_an_address(registry: Registry) -> None:
    target = model_target(registry, "wavespeedai/wan-2.1-i2v-480p")

    missing = refused(422, check_input, target, {"prompt": "a lake"})
    wrong = refused(422, check_input, target, {"prompt": "a lake", "image": "cat.png"})

    assert missing["detail"] == "- input: image is required\n"
    assert wrong["detail"] == "- input.image: Does not match format 'uri'\n"
    check_input(target, {"prompt": "a lake", "image": "https://example.org/cat.png"})


def test_an_unknown_input_key_is_no_fault(registry: Registry) -> None:
    check_input(model_target(registry, T2V), {"prompt": "a lake", "num_frames": "many"})


def test_a_version_is_found_in_its_three_forms(registry: Registry) -> None:
    version = model_target(registry, T2V).version.id

    by_name = version_target(registry, T2V)
    by_both = version_target(registry, f"{T2V}:{version}")
    by_id = version_target(registry, version)

    assert [one.model.full_name for one in (by_name, by_both, by_id)] == [T2V] * 3
    assert [one.shown for one in (by_name, by_both, by_id)] == ["hidden", version, version]


@pytest.mark.parametrize("reference", ["", "no/model", "0" * 64, f"{T2V}:{'0' * 64}", "a:b:c"])
def test_an_unknown_version_is_refused(registry: Registry, reference: str) -> None:
    body = refused(422, version_target, registry, reference)

    assert body["title"] == "Invalid version or not permitted"


def test_a_version_of_another_model_is_refused(registry: Registry) -> None:
    foreign = model_target(registry, "wan-video/wan-2.1-1.3b").version.id

    refused(422, version_target, registry, f"{T2V}:{foreign}")


def test_an_unknown_model_is_not_found(registry: Registry) -> None:
    refused(404, model_target, registry, "no/model")
