"""ListModels."""

from google.protobuf import json_format

from services.generation.catalog import load_catalog
from tests.contract.generation.harness import Kind, Service


async def test_the_catalog_is_answered_in_its_order_with_prices_and_parameters(
    service: Service,
) -> None:
    answer = await service.call("ListModels")

    assert [model.model for model in answer.models] == ["t2v-1.3B", "t2v-14B", "i2v-14B"]
    assert json_format.MessageToDict(answer.models[1], preserving_proto_field_name=True) == {
        "model": "t2v-14B",
        "display_name": "Wan 2.1 text to video, 14B",
        "kind": "TEXT_TO_VIDEO",
        "resolutions": [
            {
                "resolution": size,
                "price_credits": price,
                "parameters": ["negative_prompt", "aspect_ratio", "seed"],
            }
            for size, price in (("480p", "10"), ("720p", "20"))
        ],
        "prompt_characters_min": 10,
        "prompt_characters_max": 500,
    }
    (only,) = answer.models[0].resolutions
    assert (only.resolution, list(only.parameters)) == ("480p", ["aspect_ratio", "seed"])
    assert answer.models[2].kind == Kind.IMAGE_TO_VIDEO


async def test_what_is_listed_can_be_asked_for_at_the_price_that_is_listed(
    service: Service,
) -> None:
    answer = await service.call("ListModels")

    offered = [(model, size) for model in answer.models for size in model.resolutions]
    for model, size in offered:
        image = "https://images.example/a.png" if model.kind == Kind.IMAGE_TO_VIDEO else ""
        created = await service.create(
            kind=model.kind, model=model.model, resolution=size.resolution, image_uri=image
        )
        assert created.cost_credits == size.price_credits
    assert len(offered) == sum(len(model.variants) for model in load_catalog().models) == 5
