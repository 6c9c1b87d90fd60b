"""What the provider's answers are read as, and that nothing they hold can do harm."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.generation.prediction import (
    FINAL_STATUSES,
    NotAPrediction,
    Prediction,
    is_interruption,
    parse_prediction,
    printable,
)

JOB_ID = "gm3qorzdhgbfurvjtvhg6dckhu"
VIDEO = "https://replicate.delivery/xezq/9fQ/out.mp4"
WEBHOOK = "https://hooks.example.com/api/webhooks/replicate?g=4b7f6a52&a=1&k=abc"
# As recorded: the create's answer lacks `output` and all later times.
CREATED = {
    "id": JOB_ID,
    "model": "wavespeedai/wan-2.1-t2v-480p",
    "version": "dp-4ad6b4b0e8d1e7b0c8a1b9a4f6d2",
    "input": {"prompt": "a red fox", "seed": 1234},
    "logs": "",
    "data_removed": False,
    "error": None,
    "source": "api",
    "status": "starting",
    "created_at": "2026-03-15T10:00:00.123456789Z",
    "webhook": WEBHOOK,
    "urls": {"get": f"https://api.replicate.com/v1/predictions/{JOB_ID}"},
}
ENDED = CREATED | {
    "status": "succeeded",
    "output": VIDEO,
    "logs": "Using seed: 1234\n100%|██████████| 30/30 [00:35<00:00,  1.17s/it]\n",
    "metrics": {"predict_time": 39.1},
    "started_at": "2026-03-15T10:00:01.5Z",
    "completed_at": "2026-03-15T10:00:40.6Z",
}


def parsed(document: Any) -> Prediction:
    return parse_prediction(json.dumps(document).encode())


def test_a_create_s_answer_is_read() -> None:
    assert parsed(CREATED) == Prediction(
        job_id=JOB_ID,
        status="starting",
        created_at=datetime(2026, 3, 15, 10, 0, 0, 123456, tzinfo=UTC),
        input={"prompt": "a red fox", "seed": 1234},
        callback_query="g=4b7f6a52&a=1&k=abc",
    )


def test_a_finished_prediction_is_read() -> None:
    prediction = parsed(ENDED)

    assert prediction == Prediction(
        job_id=JOB_ID,
        status="succeeded",
        output_url=VIDEO,
        progress_percent=100,
        created_at=datetime(2026, 3, 15, 10, 0, 0, 123456, tzinfo=UTC),
        started_at=datetime(2026, 3, 15, 10, 0, 1, 500_000, tzinfo=UTC),
        input={"prompt": "a red fox", "seed": 1234},
        predict_seconds=39.1,
        callback_query="g=4b7f6a52&a=1&k=abc",
    )
    assert prediction.is_final


def test_after_an_hour_input_and_output_are_gone_and_the_end_is_still_known() -> None:
    removed = ENDED | {"input": {}, "output": None, "logs": "", "data_removed": True}

    prediction = parsed(removed)

    assert (prediction.status, prediction.output_url) == ("succeeded", None)
    assert prediction.data_removed
    assert prediction.oddities == ()


def test_id_and_status_are_enough() -> None:
    assert parsed({"id": "x", "status": "aborted"}) == Prediction("x", "aborted")
    everything_null = dict.fromkeys(ENDED) | {"id": "x", "status": "aborted"}
    assert parsed(everything_null) == Prediction("x", "aborted")


@pytest.mark.parametrize(
    ("status", "final", "processing"),
    [
        ("starting", False, False),
        ("processing", False, True),
        ("succeeded", True, False),
        ("failed", True, False),
        ("canceled", True, False),
        ("aborted", True, False),
        ("SUCCEEDED", False, False),
        ("resurrected", False, False),
    ],
)
def test_only_known_words_are_final(status: str, final: bool, processing: bool) -> None:
    prediction = parsed({"id": "x", "status": status})

    assert prediction.status == status
    assert (prediction.is_final, prediction.is_processing) == (final, processing)
    assert (status in FINAL_STATUSES) is final


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"<html>502 Bad Gateway</html>",
        b"null",
        b'"text"',
        b"[]",
        b"{}",
        b'{"status": "starting"}',
        b'{"id": "x"}',
        b'{"id": 7, "status": "starting"}',
        b'{"id": "", "status": "starting"}',
        b'{"id": "' + b"x" * 65 + b'", "status": "starting"}',
        b'{"id": "a\\nb", "status": "starting"}',
        b'{"id": "\\ud800", "status": "starting"}',
        '{"id": "ж", "status": "starting"}'.encode(),
        b'{"id": "x", "status": null}',
        b'{"id": "x", "status": ""}',
        b'{"id": "x", "status": "' + b"s" * 65 + b'"}',
        b'{"id": "x", "status": ["starting"]}',
        b'{"title": "Not Found", "detail": "The requested resource could not be found."}',
        b"[" * 100_000,
        b'{"id": "x", "status": "starting", "logs": ' + b"1" * 5_000 + b"}",
    ],
)
def test_what_has_no_id_or_status_is_no_prediction(body: bytes) -> None:
    with pytest.raises(NotAPrediction):
        parse_prediction(body)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("output", 7),
        ("output", {"video": VIDEO}),
        ("output", "not an address"),
        ("output", "/relative.mp4"),
        ("output", "https://[::1"),
        ("output", "https://replicate.delivery/a\x00b"),
        ("output", "https://replicate.delivery/" + "x" * 5_000),
        ("logs", ["a line"]),
        ("input", "a red fox"),
        ("webhook", 7),
        ("started_at", 1_773_568_800),
        ("started_at", "yesterday"),
        ("started_at", "2026-03-15T10:00:00"),
        ("started_at", "0001-01-01T00:00:00+14:00"),
    ],
)
def test_an_odd_field_counts_as_absent_and_is_named(field: str, value: object) -> None:
    odd = parsed({"id": "x", "status": "starting", field: value})

    assert odd == Prediction("x", "starting", oddities=(field,))


@pytest.mark.parametrize(
    ("value", "output_url"),
    [
        ([VIDEO, "https://replicate.delivery/second.mp4"], VIDEO),
        ([None, 7, VIDEO], VIDEO),
        ([], None),
        ([None], None),
    ],
)
def test_of_a_list_of_outputs_the_first_counts(value: object, output_url: str | None) -> None:
    prediction = parsed(ENDED | {"output": value})

    assert (prediction.output_url, prediction.oddities) == (output_url, ())


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, None),
        ("", None),
        ("CUDA out of memory (code: E1001)", "CUDA out of memory (code: E1001)"),
        ({"code": 7, "text": "ж"}, '{"code": 7, "text": "ж"}'),
        (["a", None], '["a", null]'),
        ("one\ntwo\x00\ud800", "one two  "),
        ("x" * 501, "x" * 500),
    ],
)
def test_an_error_of_any_form_becomes_text(value: object, error: str | None) -> None:
    assert parsed({"id": "x", "status": "failed", "error": value}).error == error


def test_an_error_that_is_nested_as_deeply_as_can_be_read_does_no_harm() -> None:
    for depth in range(900, 1_001):
        body = '{"id":"x","status":"failed","error":' + "[" * depth + "]" * depth + "}"
        try:
            prediction = parse_prediction(body.encode())
        except NotAPrediction:
            break  # Deeper than this Python reads.
        assert prediction.error is not None


@pytest.mark.parametrize(
    ("logs", "percent"),
    [
        (None, None),
        ("", None),
        ("Using seed: 1234\nloading at 99% of speed\n", None),
        ("  0%|          | 0/30 [00:00<?, ?it/s]", 0),
        (" 37%|███▋      | 11/30 [00:12<00:22,  1.17s/it]", 37),
        ("  3%|▎  | 1/30 [00:01]\r 10%|█  | 3/30 [00:03]\r 17%|█▋ | 5/30 [00:05]", 17),
        (" 37%|###7      | 11/30 [00:12]\nencoding video\n", 37),
        ("100%|██████████| 30/30 [00:35<00:00]\n", 100),
        ("999%|██████████| 30/3 [00:35]\n", 100),
        (" 37%|███▋", None),
        (" 37%|██| 11/30 [\n" + "x" * 10_000 + "\n 40%|██| 12/30 [", 40),
    ],
)
def test_progress_is_the_last_complete_line_of_the_log(
    logs: str | None, percent: int | None
) -> None:
    assert parsed({"id": "x", "status": "processing", "logs": logs}).progress_percent == percent


@pytest.mark.parametrize(
    ("echoed", "seed"),
    [({}, None), ({"seed": 0}, 0), ({"seed": True}, None), ({"seed": "7"}, None)],
)
def test_only_a_number_is_a_seed(echoed: object, seed: int | None) -> None:
    assert parsed({"id": "x", "status": "starting", "input": echoed}).seed == seed


def test_a_webhook_without_a_query_names_nothing() -> None:
    bare = parsed(CREATED | {"webhook": "https://hooks.example.com/api/webhooks/replicate"})

    assert bare.callback_query is None
    assert bare.oddities == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(VIDEO),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.fixed_dictionaries(
    {"id": st.just(JOB_ID) | st.text(min_size=1), "status": st.text(min_size=1)},
    optional={name: JSON for name in ENDED if name not in ("id", "status")},
)


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(FIELDS)
def test_whatever_the_fields_hold_the_id_is_kept_or_refused(document: dict[str, Any]) -> None:
    try:
        prediction = parsed(document)
    except NotAPrediction:
        job_id, status = document["id"], document["status"]
        good_id = len(job_id) <= 64 and job_id.isascii() and job_id.isprintable()
        assert not good_id or len(status) > 64
        return
    assert prediction.job_id == document["id"]
    # What is kept can be stored and shown.
    texts = (prediction.status, prediction.error, prediction.output_url, prediction.callback_query)
    for text in texts:
        assert text is None or (text.isprintable() and text.encode())
    assert prediction.progress_percent is None or 0 <= prediction.progress_percent <= 100
    assert prediction.started_at is None or prediction.started_at.tzinfo is UTC


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_whatever_the_bytes_nothing_but_not_a_prediction_is_raised(data: st.DataObject) -> None:
    body = bytearray(json.dumps(ENDED, ensure_ascii=data.draw(st.booleans())).encode())
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=4))
        if not body:
            break
    try:
        prediction = parse_prediction(bytes(body))
    except NotAPrediction:
        return
    assert 1 <= len(prediction.job_id) <= 64


@given(st.text())
def test_printable_keeps_the_length_and_what_can_be_shown(text: str) -> None:
    shown = printable(text)

    assert shown.isprintable()
    assert len(shown) == len(text)
    assert all(a == b for a, b in zip(text, shown, strict=True) if a.isprintable())


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        ("failed", "Prediction interrupted; please retry (code: PA)", True),
        ("failed", "Director: unexpected error handling prediction (E9828)", True),
        ("failed", "Error E6716: the model could not be started", True),
        ("failed", "E1001: out of memory", False),
        ("failed", "The input or output was flagged as sensitive (E005)", False),
        ("failed", "XE67160", False),
        ("failed", None, False),
        ("canceled", "Prediction interrupted; please retry (code: PA)", False),
    ],
)
def test_only_failures_of_the_provider_s_machines_are_interruptions(
    status: str, error: str | None, expected: bool
) -> None:
    assert is_interruption(Prediction(JOB_ID, status, error=error)) is expected


@pytest.mark.parametrize("value", [True, "39", -1, 1e12, None, float("nan")])
def test_a_run_time_that_is_none_is_absent(value: object) -> None:
    assert parsed(ENDED | {"metrics": {"predict_time": value}}).predict_seconds is None
