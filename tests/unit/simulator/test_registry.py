import re

from services.simulator.registry import load_registry

CURRENT_14B = {
    "prompt",
    "negative_prompt",
    "aspect_ratio",
    "fast_mode",
    "sample_steps",
    "sample_guide_scale",
    "sample_shift",
    "lora_weights",
    "lora_scale",
    "disable_safety_checker",
    "seed",
}


def test_the_whole_catalog_is_there_with_its_inputs() -> None:
    inputs = {
        model.full_name: set(model.latest().schemas["Input"]["properties"])
        for model in load_registry()
    }

    assert inputs == {
        "wan-video/wan-2.1-1.3b": {
            "prompt",
            "frame_num",
            "resolution",
            "aspect_ratio",
            "sample_shift",
            "sample_steps",
            "sample_guide_scale",
            "seed",
        },
        "wavespeedai/wan-2.1-t2v-480p": CURRENT_14B,
        "wavespeedai/wan-2.1-t2v-720p": CURRENT_14B,
        "wavespeedai/wan-2.1-i2v-480p": CURRENT_14B | {"image"},
        "wavespeedai/wan-2.1-i2v-720p": CURRENT_14B | {"image"},
    }


def test_versions_are_unlike_and_look_like_replicates() -> None:
    ids = [model.latest().id for model in load_registry()]

    assert len(set(ids)) == 5
    assert all(re.fullmatch("[0-9a-f]{64}", one) for one in ids)


def test_durations_and_sizes_are_those_of_the_catalog() -> None:
    facts = {model.name: (model.run_s, model.sizes["16:9"]) for model in load_registry()}

    assert facts == {
        "wan-2.1-1.3b": (20, (832, 480)),
        "wan-2.1-t2v-480p": (39, (832, 480)),
        "wan-2.1-i2v-480p": (39, (832, 480)),
        "wan-2.1-t2v-720p": (150, (1280, 720)),
        "wan-2.1-i2v-720p": (150, (1280, 720)),
    }


def test_a_value_is_the_given_one_else_the_schemas_else_the_fallback() -> None:
    small = load_registry().find("wan-video/wan-2.1-1.3b")
    assert small is not None

    assert small.latest().value({"frame_num": 17}, "frame_num", 5) == 17
    assert small.latest().value({}, "frame_num", 5) == 81
    assert small.latest().value({}, "seed", 5) == 5
    assert small.latest().value({"num_frames": "many"}, "num_frames", 5) == 5


def test_each_14b_model_has_the_inputs_of_spring_2025_too() -> None:
    spring = {"prompt", "num_frames", "frames_per_second", "sample_steps", "seed"}
    spring |= {"sample_guide_scale", "sample_shift"}
    image_only = {"image", "max_area", "fast_mode", "lora_weights", "lora_scale"}

    for model in load_registry():
        version = model.latest("spring-2025")
        if model.name == "wan-2.1-1.3b":  # It came later.
            assert version is model.latest()
            continue
        more = image_only if "i2v" in model.name else {"aspect_ratio"}
        properties = version.schemas["Input"]["properties"]
        assert set(properties) == spring | more
        assert (properties["num_frames"]["minimum"], properties["num_frames"]["maximum"]) == (
            5,
            100,
        )
        assert version.invalid_fields({"prompt": "a", "sample_shift": 0}) != []
        assert load_registry().find_version(version.id) is not None
