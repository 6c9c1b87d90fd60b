"""Who delivers an event learns in which trace it was stored, once."""

import contextvars

import pytest

from services.runtime.tracing import resume_trace
from services.webhook import traces as module
from services.webhook.traces import Traces

GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def keep(traces: Traces, webhook_id: str, traceparent: str | None = GIVEN) -> None:
    def work() -> None:
        resume_trace(traceparent)
        traces.keep(webhook_id)

    contextvars.Context().run(work)


def test_a_trace_is_told_once_and_of_its_event() -> None:
    traces = Traces()
    keep(traces, "one")

    assert traces.take("another") is None
    assert traces.take("one") == GIVEN
    assert traces.take("one") is None


def test_an_event_without_a_trace_has_none() -> None:
    traces = Traces()
    keep(traces, "one", None)

    assert traces.take("one") is None


def test_the_oldest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRACES_MAX", 2)
    traces = Traces()

    for name in ("first", "second", "third"):
        keep(traces, name)

    assert [traces.take(name) for name in ("first", "second", "third")] == [None, GIVEN, GIVEN]
