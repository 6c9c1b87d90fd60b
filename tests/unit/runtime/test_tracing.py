"""What is handed on of a trace has one form, and what makes no sense ends the process."""

import contextvars

import pytest

from services.runtime.tracing import (
    begin_call,
    current_traceparent,
    enter_call,
    is_tracing,
    resume_trace,
    spanning,
    tracing,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = f"00-{TRACE}-{SPAN}-01"


def resumed(traceparent: str | None) -> str | None:
    """What is current after a trace was resumed, in a context of its own."""

    def look() -> str | None:
        resume_trace(traceparent)
        return current_traceparent()

    return contextvars.Context().run(look)


def test_what_was_handed_on_is_handed_on() -> None:
    assert resumed(GIVEN) == GIVEN


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "hello",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"01-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"{GIVEN}-more",
        f"{GIVEN}\n",
        GIVEN * 1000,
    ],
)
def test_what_has_another_form_is_no_trace(given: str | None) -> None:
    assert resumed(given) is None


@pytest.mark.parametrize("variables", [{}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_without_a_collector_no_span_is_made(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with tracing("credits", "test"):
        assert not is_tracing()
        assert begin_call("Service/Method", {}) is None
        assert contextvars.Context().run(enter_call, "Service/Method", GIVEN, {}) is None
        with spanning("step") as span:
            assert span.traceparent is None


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "must be otlp or none, not zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "must be http/protobuf, not grpc"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "otel:4318", "must be http://host:port"),
        # 512 spans are sent at once.
        ("OTEL_BSP_MAX_QUEUE_SIZE", "511", "max_export_batch_size must be less than or equal"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0", "schedule_delay_millis must be positive"),
    ],
)
def test_a_variable_that_makes_no_sense_is_named(
    name: str,
    value: str,
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv(name, value)

    with pytest.raises(SystemExit) as raised, tracing("credits", "test"):
        pytest.fail("it cannot be")

    assert raised.value.code == 2
    assert f"{name}: {problem}" in capsys.readouterr().err
