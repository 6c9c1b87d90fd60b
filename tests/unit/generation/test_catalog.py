"""What can be asked for, what is refused and why, and what the provider is sent."""

import json
from dataclasses import replace
from importlib.resources import files

import pytest

from services.generation.catalog import Catalog, Problem, Reason, load_catalog
from services.generation.inputs import read_schema
from services.generation.state import Kind, Request

PROMPT = "a red fox runs through fresh snow"
IMAGE = "https://images.example.com/fox.png"
UPLOAD = "upload:0190a000-0000-7000-8000-000000000000"
TEXT = Request(Kind.TEXT_TO_VIDEO, "t2v-14B", "720p", PROMPT)
SMALL = Request(Kind.TEXT_TO_VIDEO, "t2v-1.3B", "480p", PROMPT)
PICTURE = Request(Kind.IMAGE_TO_VIDEO, "i2v-14B", "480p", PROMPT, image_uri=IMAGE)
INVALID = Reason.INVALID_FIELD
MODEL = Reason.MODEL_NOT_FOUND
SIZE = Reason.RESOLUTION_NOT_SUPPORTED
PARAMETER = Reason.PARAMETER_NOT_SUPPORTED
IMAGE_REFUSED = Reason.IMAGE_NOT_ACCEPTED


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


def test_the_catalog_offers_what_the_provider_makes_at_its_price(catalog: Catalog) -> None:
    offered = {
        (m.model, m.kind.value, v.resolution): (v.price_credits, v.provider_model)
        for m in catalog.models
        for v in m.variants
    }

    assert offered == {
        ("t2v-1.3B", "TEXT_TO_VIDEO", "480p"): (10, "wan-video/wan-2.1-1.3b"),
        ("t2v-14B", "TEXT_TO_VIDEO", "480p"): (10, "wavespeedai/wan-2.1-t2v-480p"),
        ("t2v-14B", "TEXT_TO_VIDEO", "720p"): (20, "wavespeedai/wan-2.1-t2v-720p"),
        ("i2v-14B", "IMAGE_TO_VIDEO", "480p"): (10, "wavespeedai/wan-2.1-i2v-480p"),
        ("i2v-14B", "IMAGE_TO_VIDEO", "720p"): (20, "wavespeedai/wan-2.1-i2v-720p"),
    }


def test_every_model_is_found_by_its_name_only(catalog: Catalog) -> None:
    for model in catalog.models:
        assert catalog.find(model.model) is model
        assert model.display_name
    assert catalog.find("T2V-14B") is None


def test_parameters_and_aspect_ratios_are_those_of_the_schema(catalog: Catalog) -> None:
    large, small = catalog.variant_of(TEXT), catalog.variant_of(SMALL)

    assert large.parameters == ("negative_prompt", "aspect_ratio", "seed")
    assert small.parameters == ("aspect_ratio", "seed")
    assert large.schema.aspect_ratios("720p") == small.schema.aspect_ratios("480p")


def test_a_changed_schema_makes_another_catalog(catalog: Catalog) -> None:
    smaller = read_schema({"Input": {"properties": {"prompt": {}}}}, Kind.TEXT_TO_VIDEO)

    changed = catalog.with_schema("wavespeedai/wan-2.1-t2v-720p", smaller)

    assert changed.variant_of(TEXT).schema is smaller
    assert catalog.variant_of(TEXT).schema is not smaller
    at_480p = replace(TEXT, resolution="480p")
    assert changed.variant_of(at_480p) == catalog.variant_of(at_480p)
    with_ratio = replace(TEXT, aspect_ratio="9:16")
    assert [p.reason for p in changed.problems(with_ratio)] == [PARAMETER]
    assert list(catalog.problems(with_ratio)) == []


@pytest.mark.parametrize(
    "request_",
    [
        TEXT,
        SMALL,
        PICTURE,
        replace(TEXT, prompt="x" * 10),
        replace(TEXT, prompt="ж" * 500),
        replace(TEXT, negative_prompt="x" * 500, aspect_ratio="9:16", seed=0),
        replace(SMALL, aspect_ratio="16:9", seed=2**31 - 1),
        replace(PICTURE, image_uri="https://" + "x" * 2040),
        replace(PICTURE, image_uri="HTTPS://user@images.example.com:8443/fox.png?w=1#a"),
        replace(PICTURE, resolution="720p"),
        replace(PICTURE, image_uri=UPLOAD),
    ],
)
def test_what_the_models_can_make_is_accepted(catalog: Catalog, request_: Request) -> None:
    assert list(catalog.problems(request_)) == []


@pytest.mark.parametrize(
    ("request_", "field", "reason"),
    [
        (replace(TEXT, prompt="x" * 9), "prompt", INVALID),
        (replace(TEXT, prompt="x" * 501), "prompt", INVALID),
        (replace(TEXT, prompt=PROMPT + "\0"), "prompt", INVALID),
        (replace(TEXT, negative_prompt="x" * 501), "negative_prompt", INVALID),
        (replace(TEXT, negative_prompt="a\0"), "negative_prompt", INVALID),
        (replace(TEXT, seed=-1), "seed", INVALID),
        (replace(TEXT, seed=2**31), "seed", INVALID),
        (replace(TEXT, aspect_ratio="4:3"), "aspect_ratio", INVALID),
        (replace(TEXT, kind=Kind.IMAGE_TO_VIDEO), "kind", INVALID),
        (replace(PICTURE, kind=Kind.TEXT_TO_VIDEO), "kind", INVALID),
        (replace(TEXT, model="t2v-15B"), "model", MODEL),
        (replace(TEXT, model=""), "model", MODEL),
        (replace(PICTURE, model="i2v-1.3B"), "model", MODEL),
        (replace(TEXT, resolution="1080p"), "resolution", SIZE),
        (replace(SMALL, resolution="720p"), "resolution", SIZE),
        (replace(SMALL, negative_prompt="blurry"), "negative_prompt", PARAMETER),
        (replace(TEXT, image_uri=IMAGE), "image_uri", IMAGE_REFUSED),
        (replace(PICTURE, image_uri=""), "image_uri", IMAGE_REFUSED),
        (
            replace(PICTURE, image_uri="http://images.example.com/fox.png"),
            "image_uri",
            IMAGE_REFUSED,
        ),
        (replace(PICTURE, image_uri="upload:fox"), "image_uri", IMAGE_REFUSED),
        (replace(PICTURE, image_uri=f"{UPLOAD}/.."), "image_uri", IMAGE_REFUSED),
        (replace(TEXT, image_uri=UPLOAD), "image_uri", IMAGE_REFUSED),
        (replace(PICTURE, image_uri="file:///etc/passwd"), "image_uri", IMAGE_REFUSED),
        (replace(PICTURE, image_uri="data:image/png;base64,AAAA"), "image_uri", IMAGE_REFUSED),
        (replace(PICTURE, image_uri="images.example.com/fox.png"), "image_uri", IMAGE_REFUSED),
        (replace(PICTURE, image_uri="https://"), "image_uri", IMAGE_REFUSED),
        (replace(PICTURE, image_uri="https:///fox.png"), "image_uri", IMAGE_REFUSED),
        (replace(PICTURE, image_uri="https://:443/fox.png"), "image_uri", IMAGE_REFUSED),
        (replace(PICTURE, image_uri="https://?fox.png"), "image_uri", IMAGE_REFUSED),
        (replace(PICTURE, image_uri="https://[::1/fox.png"), "image_uri", IMAGE_REFUSED),
        (
            replace(PICTURE, image_uri="https://images.example.com/a fox.png"),
            "image_uri",
            IMAGE_REFUSED,
        ),
        (
            replace(PICTURE, image_uri="https://images.example.com/fox\n.png"),
            "image_uri",
            IMAGE_REFUSED,
        ),
        (replace(PICTURE, image_uri="https://" + "x" * 2041), "image_uri", IMAGE_REFUSED),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_made_is_refused_by_field_and_reason(
    catalog: Catalog, request_: Request, field: str, reason: Reason
) -> None:
    problems = list(catalog.problems(request_))

    assert [(p.field, p.reason) for p in problems] == [(field, reason)]
    assert problems[0].rule.startswith("must ")


def test_a_problem_says_what_would_be_right(catalog: Catalog) -> None:
    no_model = list(catalog.problems(replace(TEXT, model="t2v-15B")))
    no_size = list(catalog.problems(replace(SMALL, resolution="720p")))
    no_key = list(catalog.problems(replace(SMALL, negative_prompt="blurry")))

    assert no_model == [
        Problem(
            "model", "must be one of t2v-1.3B, t2v-14B, i2v-14B", MODEL, (("model", "t2v-15B"),)
        )
    ]
    assert no_size == [
        Problem(
            "resolution",
            "must be 480p for t2v-1.3B",
            SIZE,
            (("model", "t2v-1.3B"), ("resolution", "720p")),
        )
    ]
    assert no_key == [
        Problem(
            "negative_prompt",
            "must not be set: t2v-1.3B has no such parameter",
            PARAMETER,
            (("model", "t2v-1.3B"), ("parameter", "negative_prompt")),
        )
    ]


def test_all_problems_are_named_at_once(catalog: Catalog) -> None:
    wrong = Request(
        Kind.IMAGE_TO_VIDEO,
        "t2v-1.3B",
        "480p",
        "short",
        negative_prompt="blurry",
        image_uri=IMAGE,
        aspect_ratio="4:3",
        seed=-1,
    )

    fields = [problem.field for problem in catalog.problems(wrong)]

    assert sorted(fields) == [
        "aspect_ratio",
        "image_uri",
        "kind",
        "negative_prompt",
        "prompt",
        "seed",
    ]


def test_an_input_has_all_that_its_schema_requires_and_nothing_else(catalog: Catalog) -> None:
    for model in catalog.models:
        for variant in model.variants:
            image_uri = IMAGE if model.kind is Kind.IMAGE_TO_VIDEO else ""
            request = Request(model.kind, model.model, variant.resolution, PROMPT, "", image_uri)
            schema = variant.schema.schemas["Input"]

            built = variant.schema.build(request, 7)

            assert set(schema["required"]) <= built.keys() <= schema["properties"].keys()
            assert not list(catalog.problems(request))


def test_a_request_whose_model_is_gone_is_told_so(catalog: Catalog) -> None:
    for lost in (replace(TEXT, model="t2v-15B"), replace(SMALL, resolution="720p")):
        with pytest.raises(LookupError):
            catalog.variant_of(lost)


def test_each_bundled_schema_says_when_it_was_read() -> None:
    schemas = list(files("services.generation").joinpath("schemas").iterdir())

    assert len(schemas) == 3
    for file in schemas:
        document = json.loads(file.read_text("utf-8"))
        assert document.keys() == {"read_on", "schemas"}
        assert "prompt" in document["schemas"]["Input"]["properties"]


def test_characters_of_a_text_that_is_too_long_are_not_looked_at(catalog: Catalog) -> None:
    long = "\0" * 501

    problems = catalog.problems(replace(TEXT, prompt=long, negative_prompt=long))

    assert [(problem.field, problem.rule) for problem in problems] == [
        ("prompt", "must have 10 to 500 characters, has 501"),
        ("negative_prompt", "must have at most 500 characters, has 501"),
    ]
