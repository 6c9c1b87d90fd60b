"""What users read when the provider makes no video, whatever it said itself."""

import pytest

from services.generation.failures import InvalidField, explain_failure, explain_refusal
from services.generation.prediction import Prediction

GENERAL = "The model failed. You were not charged; try again, or change the prompt."


def explained(error: str | None, status: str = "failed") -> str:
    return explain_failure(Prediction("job", status, error=error))


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("NSFW content detected. Try running it again, or try a different prompt.", "the prompt"),
        ("The input or output was flagged as sensitive. (E005)", "change the prompt or the image"),
        ("Prediction failed: the model ran out of memory (code: E1001)", "a lower resolution"),
        ("CUDA out of memory. Tried to allocate 20.00 GiB", "a lower resolution"),
        ("Could not fetch image: HTTP 404", "upload the image"),
        ("cannot identify image file <_io.BytesIO object at 0x7f1c>", "upload the image"),
        ("404 Client Error: Not Found for url: (address)", "upload the image"),
        ("The image could not be downloaded", "upload the image"),
        ("Prediction timed out", "took too long"),
        ("Prediction interrupted; please retry (code: PA)", "The provider's machines failed"),
        ("Director: unexpected error handling prediction (E8765)", "provider's machines failed"),
    ],
)
def test_a_failure_says_what_to_do_in_words_of_ours(error: str, advice: str) -> None:
    sentence = explained(error)

    assert advice in sentence
    assert "You were not charged" in sentence
    assert error not in sentence


@pytest.mark.parametrize(
    "error",
    [
        "Traceback (most recent call last): File '/src/predict.py', line 7, in predict: KeyError",
        "failed to load file /weights/model.safetensors",
        "",
        None,
    ],
)
def test_any_other_failure_is_told_without_its_words(error: str | None) -> None:
    assert explained(error) == GENERAL


@pytest.mark.parametrize(
    ("status", "begins"),
    [
        ("canceled", "The provider stopped"),
        ("aborted", "The provider never"),
        ("succeeded", "The model made no video"),
    ],
)
def test_an_end_without_words_of_a_known_kind_is_told_by_its_status(
    status: str, begins: str
) -> None:
    assert explained("whatever", status).startswith(begins)
    assert explained("whatever: E1001", status).startswith("The model ran out of memory")


@pytest.mark.parametrize(
    ("field", "told", "change"),
    [
        ("prompt", "prompt: must be shorter", "change the prompt"),
        ("image", "image: must be shorter", "use another image"),
        ("num_frames", "num_frames: must be shorter", "choose another model or resolution"),
        ("", "must be shorter", "choose another model or resolution"),
    ],
)
def test_a_refusal_names_the_field_and_what_to_change(field: str, told: str, change: str) -> None:
    sentence = explain_refusal(422, [InvalidField(field, "must be shorter.")])

    assert sentence == f"The provider refused the input: {told}. You were not charged; {change}."


@pytest.mark.parametrize("status", [400, 403, 404, 405, 413, 415, 422])
def test_no_refusal_says_to_try_the_same_again(status: int) -> None:
    several = [
        InvalidField(f"field{number}" * 99, "https://a.b/c \x00" * 99) for number in range(9)
    ]

    for sentence in (explain_refusal(status), explain_refusal(status, several)):
        assert "try again" not in sentence
        assert "You were not charged" in sentence
        assert "https" not in sentence
        assert sentence.isprintable()
        assert len(sentence) <= 500
