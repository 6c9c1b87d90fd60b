"""How a request becomes a model's input, in both generations of the provider's schemas."""

import json
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.generation.inputs import InputSchema, NoSuchParameter, read_schema
from services.generation.state import Kind, Request

PROMPT = "a red fox runs through fresh snow"
IMAGE = "upload:0190a000-0000-7000-8000-000000000000"
TEXT = Request(Kind.TEXT_TO_VIDEO, "t2v-14B", "720p", PROMPT)
PICTURE = Request(Kind.IMAGE_TO_VIDEO, "i2v-14B", "480p", PROMPT, image_uri=IMAGE)

ANY: dict[str, Any] = {"type": "string"}
RATIO = {"allOf": [{"$ref": "#/components/schemas/aspect_ratio"}], "default": "16:9"}
RATIOS = {"aspect_ratio": {"type": "string", "enum": ["16:9", "9:16"]}}
FRAMES = {"type": "integer", "minimum": 5, "maximum": 100, "default": 81}
RATE = {"type": "integer", "minimum": 5, "maximum": 24, "default": 16}
AREA = {"type": "string", "enum": ["832x480", "480x832"], "default": "832x480"}


def published(*required: str, schemas: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    return {"Input": {"required": list(required), "properties": keys}, **(schemas or RATIOS)}


SPRING_TEXT = published(
    "prompt",
    prompt=ANY,
    num_frames=FRAMES,
    frames_per_second=RATE,
    aspect_ratio=RATIO,
    sample_steps=ANY,
    seed=ANY,
)
SPRING_PICTURE = published(
    "prompt",
    "image",
    prompt=ANY,
    image=ANY,
    max_area=AREA,
    num_frames=FRAMES,
    frames_per_second=RATE,
    fast_mode=ANY,
    seed=ANY,
)


def current(name: str) -> dict[str, Any]:
    content = files("services.generation").joinpath("schemas", f"{name}.json").read_bytes()
    schemas: dict[str, Any] = json.loads(content)["schemas"]
    return schemas


TEXT_SCHEMA = read_schema(current("wan-2.1-t2v"), Kind.TEXT_TO_VIDEO)
SMALL_SCHEMA = read_schema(current("wan-2.1-1.3b"), Kind.TEXT_TO_VIDEO)
PICTURE_SCHEMA = read_schema(current("wan-2.1-i2v"), Kind.IMAGE_TO_VIDEO)
SPRING_TEXT_SCHEMA = read_schema(SPRING_TEXT, Kind.TEXT_TO_VIDEO)
SPRING_PICTURE_SCHEMA = read_schema(SPRING_PICTURE, Kind.IMAGE_TO_VIDEO)


@pytest.mark.parametrize(
    ("schema", "request_", "built"),
    [
        (TEXT_SCHEMA, TEXT, {"prompt": PROMPT, "seed": 7}),
        (
            TEXT_SCHEMA,
            replace(TEXT, negative_prompt="blurry", aspect_ratio="9:16", seed=0),
            {"prompt": PROMPT, "negative_prompt": "blurry", "aspect_ratio": "9:16", "seed": 0},
        ),
        (
            SPRING_TEXT_SCHEMA,
            replace(TEXT, aspect_ratio="9:16"),
            {
                "prompt": PROMPT,
                "num_frames": 81,
                "frames_per_second": 16,
                "aspect_ratio": "9:16",
                "seed": 7,
            },
        ),
        (
            SMALL_SCHEMA,
            replace(TEXT, resolution="480p"),
            {"prompt": PROMPT, "resolution": "480p", "frame_num": 81, "seed": 7},
        ),
        (PICTURE_SCHEMA, PICTURE, {"prompt": PROMPT, "image": IMAGE, "seed": 7}),
        (
            SPRING_PICTURE_SCHEMA,
            PICTURE,
            {
                "prompt": PROMPT,
                "image": IMAGE,
                "max_area": "832x480",
                "num_frames": 81,
                "frames_per_second": 16,
                "seed": 7,
            },
        ),
        (
            SPRING_PICTURE_SCHEMA,
            replace(PICTURE, aspect_ratio="9:16"),
            {
                "prompt": PROMPT,
                "image": IMAGE,
                "max_area": "480x832",
                "num_frames": 81,
                "frames_per_second": 16,
                "seed": 7,
            },
        ),
    ],
)
def test_a_request_is_mapped_onto_the_keys_that_the_schema_has(
    schema: InputSchema, request_: Request, built: dict[str, Any]
) -> None:
    seed = 7 if request_.seed is None else request_.seed

    assert schema.build(request_, seed) == built


@pytest.mark.parametrize(
    ("schema", "request_", "field"),
    [
        (SMALL_SCHEMA, replace(TEXT, negative_prompt="blurry"), "negative_prompt"),
        (SPRING_TEXT_SCHEMA, replace(TEXT, negative_prompt="blurry"), "negative_prompt"),
        (SPRING_PICTURE_SCHEMA, replace(PICTURE, negative_prompt="blurry"), "negative_prompt"),
        (SPRING_PICTURE_SCHEMA, replace(PICTURE, aspect_ratio="4:3"), "aspect_ratio"),
        # This model makes 480p only, so nothing of its `max_area` is 720p.
        (
            SPRING_PICTURE_SCHEMA,
            replace(PICTURE, resolution="720p", aspect_ratio="9:16"),
            "aspect_ratio",
        ),
        (TEXT_SCHEMA, replace(TEXT, image_uri=IMAGE), "image_uri"),
        (
            read_schema(published(prompt=ANY), Kind.TEXT_TO_VIDEO),
            replace(TEXT, aspect_ratio="16:9"),
            "aspect_ratio",
        ),
        (read_schema(published(prompt=ANY), Kind.TEXT_TO_VIDEO), replace(TEXT, seed=0), "seed"),
    ],
)
def test_what_the_user_chose_and_the_schema_lacks_is_not_left_out(
    schema: InputSchema, request_: Request, field: str
) -> None:
    with pytest.raises(NoSuchParameter) as raised:
        schema.build(request_, 7)
    assert str(raised.value) == field


def test_a_default_that_does_not_fit_is_left_to_the_model() -> None:
    keys: dict[str, Any] = {
        "num_frames": FRAMES | {"maximum": 80},
        "frames_per_second": RATE | {"minimum": 24},
        "resolution": {"enum": ["1080p"]},
        "max_area": {"enum": ["1920x1080"]},
    }
    schema = read_schema(published("prompt", prompt=ANY, **keys), Kind.TEXT_TO_VIDEO)

    assert schema.build(TEXT, 7) == {"prompt": PROMPT}


def test_parameters_are_what_can_be_chosen() -> None:
    assert TEXT_SCHEMA.parameters("720p") == ("negative_prompt", "aspect_ratio", "seed")
    assert SMALL_SCHEMA.parameters("480p") == ("aspect_ratio", "seed")
    assert SPRING_PICTURE_SCHEMA.parameters("480p") == ("aspect_ratio", "seed")
    assert SPRING_PICTURE_SCHEMA.parameters("720p") == ("seed",)


def test_aspect_ratios_are_those_of_the_enum_wherever_it_is_written() -> None:
    def ratios(schema: dict[str, Any], **schemas: Any) -> tuple[str, ...]:
        found = published(prompt=ANY, aspect_ratio=schema, schemas=schemas)
        return read_schema(found, Kind.TEXT_TO_VIDEO).aspect_ratios("480p")

    reference = {"$ref": "#/components/schemas/ratio"}
    assert ratios({"enum": ["1:1"]}) == ("1:1",)
    assert ratios(reference, ratio={"enum": ["1:1"]}) == ("1:1",)
    assert ratios({"allOf": [reference]}, ratio={"enum": ["1:1"]}) == ("1:1",)
    assert ratios({"anyOf": [reference]}, ratio={"enum": ["1:1"]}) == ("1:1",)
    assert ratios({"allOf": [reference]}) == ()
    assert ratios({"type": "string"}) == ()
    assert SPRING_PICTURE_SCHEMA.aspect_ratios("480p") == ("16:9", "9:16")
    assert SPRING_PICTURE_SCHEMA.aspect_ratios("720p") == ()


def test_the_digest_is_that_of_the_input_and_what_it_refers_to() -> None:
    again = read_schema(
        {"Output": ANY, **{name: SPRING_TEXT[name] for name in reversed(SPRING_TEXT)}},
        Kind.TEXT_TO_VIDEO,
    )
    other = read_schema(
        SPRING_TEXT | {"aspect_ratio": {"type": "string", "enum": ["1:1"]}}, Kind.TEXT_TO_VIDEO
    )

    assert again.sha256 == SPRING_TEXT_SCHEMA.sha256 != other.sha256
    assert again.schemas.keys() == {"Input", "aspect_ratio"}
    assert json.loads(again.canonical) == again.schemas


def test_what_is_referred_to_is_kept_however_deep_and_even_in_circles() -> None:
    chain = {
        "aspect_ratio": {"allOf": [{"$ref": "#/components/schemas/inner"}]},
        "inner": {"enum": ["1:1"], "not": {"$ref": "#/components/schemas/aspect_ratio"}},
        "other": ANY,
    }

    schema = read_schema(published(prompt=ANY, aspect_ratio=RATIO, schemas=chain), TEXT.kind)

    assert schema.schemas.keys() == {"Input", "aspect_ratio", "inner"}


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({}, "it has no Input with properties"),
        ({"Input": None}, "it has no Input with properties"),
        ({"Input": []}, "it has no Input with properties"),
        ({"Input": {"properties": []}}, "it has no Input with properties"),
        ({"Input": {"properties": {}}}, "Input has no prompt"),
        ({"Input": {"properties": {"prompt": 7}}}, "a property of Input is no object"),
        (published(image=ANY), "Input has no prompt"),
        ({"Input": {"properties": {"prompt": {}}, "required": "prompt"}}, "no list of names"),
        ({"Input": {"properties": {"prompt": {}}, "required": [7]}}, "no list of names"),
        (published("prompt", "image", prompt=ANY, image=ANY), "Input requires image"),
        (published("mood", "prompt", prompt=ANY, mood=ANY), "Input requires mood"),
        (published(prompt={"description": "x" * 300_000}), "more than 262144 characters"),
    ],
)
def test_a_schema_that_no_input_of_ours_would_fit_is_not_believed(
    found: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        read_schema(found, Kind.TEXT_TO_VIDEO)


def test_image_to_video_takes_an_image() -> None:
    with pytest.raises(ValueError, match="Input has no image"):
        read_schema(SPRING_TEXT, Kind.IMAGE_TO_VIDEO)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
ODD_SCHEMA = st.dictionaries(
    st.sampled_from(["enum", "$ref", "allOf", "anyOf", "minimum", "maximum", "type"]), JSON
)
KEYS = ["image", "seed", "num_frames", "max_area", "aspect_ratio", "resolution", "mood"]


@given(
    properties=st.dictionaries(st.sampled_from(KEYS), ODD_SCHEMA | JSON),
    required=JSON | st.lists(st.sampled_from(["prompt", *KEYS])),
    others=st.dictionaries(st.sampled_from(["aspect_ratio", "x"]), JSON),
    request_=st.sampled_from([TEXT, replace(TEXT, aspect_ratio="9:16"), replace(TEXT, seed=3)]),
)
def test_whatever_is_believed_can_be_worked_with(
    properties: dict[str, Any], required: object, others: dict[str, Any], request_: Request
) -> None:
    found = {"Input": {"properties": {"prompt": {}, **properties}, "required": required}, **others}
    try:
        schema = read_schema(found, Kind.TEXT_TO_VIDEO)
    except ValueError:
        return

    for resolution in ("480p", "720p"):
        schema.parameters(resolution)
        schema.aspect_ratios(resolution)
    try:
        built = schema.build(request_, 3)
    except NoSuchParameter:
        return
    assert built["prompt"] == PROMPT
    assert built.keys() <= schema.schemas["Input"]["properties"].keys()
    assert json.loads(json.dumps(built)) == built
