"""Follows work from process to process: makes spans, and sends them where the environment says.

OpenTelemetry has its one home here, and is told by its own variables (`OTEL_…`) where a collector
is. Without one no span is made; the ids of a trace are handed on all the same, so that the logs of
all processes speak of one thing by one id. Spans hold ids and words of ours, never what people
wrote, and never an address.
"""

import contextlib
import os
import re
import secrets
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    get_current_span,
    set_span_in_context,
)

from services.runtime.settings import exit_with

__all__ = [
    "TRACEPARENT",
    "CallSpan",
    "Kind",
    "add_trace_ids",
    "begin_call",
    "begin_request",
    "current_traceparent",
    "enter_call",
    "is_tracing",
    "join_trace",
    "leave_trace",
    "resume_trace",
    "spanning",
    "tracing",
]

TRACEPARENT: Final = "traceparent"
"""The name under which a trace is handed on: https://www.w3.org/TR/trace-context/."""
FLUSH_S_MAX = 2.0
"""How long a process that leaves tries to send its last spans."""
TRACE_BITS, SPAN_BITS = 128, 64
_FORM = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NOWHERE = Context()

Kind = SpanKind
"""Which side of a call a span is."""
Attributes = Mapping[str, str | int]


class _Process:
    """What this process sends spans with, as the log is what it writes lines with."""

    tracer: Tracer | None = None


class CallSpan:
    """One call under way, from either side."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def traceparent(self) -> str | None:
        """What is handed on to whoever is called."""
        return _written(self._span.get_span_context())

    @property
    def trace_id(self) -> str:
        """The id of the whole trace, hexadecimal."""
        return f"{self._span.get_span_context().trace_id:032x}"

    def tell(self, **attributes: str | int) -> None:
        """Adds what was learned, `a__b` for the attribute `a.b`; empty words tell nothing."""
        if self._span.is_recording():
            for name, value in attributes.items():
                if value != "":
                    self._span.set_attribute(name.replace("__", "."), value)

    def rename(self, name: str) -> None:
        """Gives the span the name that was not known when it began."""
        self._span.update_name(name)

    def link(self, traceparent: str | None) -> None:
        """Says that another trace, as it was handed on, has to do with this."""
        context = _read(traceparent)
        if context is not None and self._span.is_recording():
            self._span.add_link(context)

    def fail(self, why: str) -> None:
        """Says that it failed; `why` is a word of ours."""
        if self._span.is_recording():
            self._span.set_status(StatusCode.ERROR, why)

    def end(self) -> None:
        """Ends it now."""
        self._span.end()


@contextlib.contextmanager
def tracing(service: str, environment: str) -> Iterator[None]:
    """Sends the spans of this process during the block, if the variables say where to.

    A collector that is away costs no call anything: spans wait in a queue with a bound, and those
    above it are lost. Variables that make no sense end the process with exit code 2.
    """
    if not _is_wanted():
        yield
        return
    try:
        # Most processes never send a span, and should not pay for learning how.
        from services.runtime.span_sender import SpanSender

        sender = SpanSender(service, environment)
    except ValueError as error:
        # What is said of the queue names its arguments; of others, their variables.
        names = sorted(name for name in os.environ if name.startswith("OTEL_BSP_"))
        exit_with(f"{', '.join(names) or 'OTEL_*'}: {error}")
    _Process.tracer = sender.tracer
    try:
        yield
    finally:
        _Process.tracer = None
        sender.close(FLUSH_S_MAX)


def is_tracing() -> bool:
    """Tells whether this process makes spans."""
    return _Process.tracer is not None


def begin_request(name: str, *, is_told: bool = True) -> CallSpan:
    """Begins a trace with a stranger's request, whose own trace is not believed.

    It is current until the context of the caller ends. One that `is_told` nobody has an id only.
    """
    tracer = _Process.tracer
    span: Span
    if tracer is not None and is_told:
        span = tracer.start_span(name, _NOWHERE, Kind.SERVER, record_exception=False)
    else:
        span = NonRecordingSpan(
            SpanContext(
                trace_id=secrets.randbits(TRACE_BITS) or 1,
                span_id=secrets.randbits(SPAN_BITS) or 1,
                is_remote=False,
                trace_flags=TraceFlags(TraceFlags.SAMPLED if is_told else TraceFlags.DEFAULT),
            )
        )
    attach(set_span_in_context(span))
    return CallSpan(span)


def enter_call(name: str, traceparent: str | None, attributes: Attributes) -> CallSpan | None:
    """Begins to answer a call of another process; None where there is nothing to end.

    It is current until the context of the caller ends.
    """
    parent = _read(traceparent)
    tracer = _Process.tracer
    if tracer is None:
        if parent is not None:
            attach(set_span_in_context(NonRecordingSpan(parent)))
        return None
    span = tracer.start_span(
        name, _within(parent), Kind.SERVER, dict(attributes), record_exception=False
    )
    attach(set_span_in_context(span))
    return CallSpan(span)


def begin_call(name: str, attributes: Attributes) -> CallSpan | None:
    """Begins a call to another process, which somebody ends; None if no spans are made."""
    tracer = _Process.tracer
    if tracer is None:
        return None
    return CallSpan(
        tracer.start_span(name, None, Kind.CLIENT, dict(attributes), record_exception=False)
    )


@contextlib.contextmanager
def spanning(
    name: str,
    *,
    traceparent: str | None = None,
    links: Sequence[str | None] = (),
    kind: Kind = Kind.INTERNAL,
    attributes: Attributes | None = None,
) -> Iterator[CallSpan]:
    """Makes the block one span, of the trace that was handed on as `traceparent`, if one was.

    Otherwise it belongs to whatever is current; it begins no trace. What is raised marks it as
    failed.
    """
    parent, tracer = _read(traceparent), _Process.tracer
    within = None if parent is None else _within(parent)
    if tracer is None or (parent is None and not get_current_span().get_span_context().is_valid):
        span: Span = INVALID_SPAN if parent is None else NonRecordingSpan(parent)
    else:
        linked = [Link(context) for context in map(_read, links) if context is not None]
        span = tracer.start_span(
            name, within, kind, dict(attributes or {}), linked, record_exception=False
        )
    call = CallSpan(span)
    token = attach(set_span_in_context(span, within)) if span is not INVALID_SPAN else None
    try:
        yield call
    except BaseException as error:
        call.fail(type(error).__name__)
        raise
    finally:
        if token is not None:
            detach(token)
        span.end()


def join_trace(name: str, traceparent: str | None, attributes: Attributes) -> None:
    """Says that what goes on now has to do with the trace that was handed on as `traceparent`.

    Each gets a link to the other, and that one a span of this `name`.
    """
    context, current = _read(traceparent), get_current_span()
    if context is None or not current.is_recording():
        return
    current.add_link(context)
    here = _written(current.get_span_context())
    with spanning(
        name, traceparent=traceparent, links=(here,), kind=Kind.CONSUMER, attributes=attributes
    ):
        pass


def resume_trace(traceparent: str | None) -> None:
    """Has what the current context does from now on belong to a trace that was handed on."""
    parent = _read(traceparent)
    if parent is not None:
        attach(set_span_in_context(NonRecordingSpan(parent)))


def current_traceparent() -> str | None:
    """Returns what is handed on of the current trace; None outside of any."""
    return _written(get_current_span().get_span_context())


def leave_trace() -> None:
    """Has what the current context does from now on belong to no trace."""
    attach(_NOWHERE)


def add_trace_ids(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Adds the ids of the current trace to a line of the log."""
    context = get_current_span().get_span_context()
    if context.is_valid:
        event.setdefault("trace_id", f"{context.trace_id:032x}")
        event.setdefault("span_id", f"{context.span_id:016x}")
    return event


def _is_wanted() -> bool:
    """Tells whether the variables name a collector; ends the process if they make no sense."""
    variables = os.environ
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = variables.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter not in ("", "none", "otlp"):
        exit_with(f"OTEL_TRACES_EXPORTER: must be otlp or none, not {exporter}")
    endpoints = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    given = [name for name in endpoints if variables.get(name)]
    if exporter == "none" or not (given or exporter):
        return False
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = variables.get(name) or "http/protobuf"
        if protocol != "http/protobuf":
            exit_with(f"{name}: must be http/protobuf, not {protocol}")
    for name in given:
        try:
            parts = urlsplit(variables[name])
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            is_address = False
        if not is_address:
            # Not what it is: it may hold a key.
            exit_with(f"{name}: must be http://host:port or https://host:port")
    return True


def _within(parent: SpanContext | None) -> Context:
    return _NOWHERE if parent is None else set_span_in_context(NonRecordingSpan(parent), _NOWHERE)


def _read(traceparent: str | None) -> SpanContext | None:
    found = _FORM.fullmatch(traceparent) if traceparent else None
    if found is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in found.groups())
    context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags & 1))
    return context if context.is_valid else None


def _written(context: SpanContext) -> str | None:
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"
