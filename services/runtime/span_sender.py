"""Sends the spans of a process to a collector, in a thread of its own."""

import logging
import os
import threading
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Tracer

__all__ = ["SpanSender"]


class SpanSender:
    """Takes spans into a queue with a bound, and loses those above it.

    Where to send them, how many may wait and which are kept say OpenTelemetry's variables; those
    that make no sense raise ValueError.
    """

    def __init__(self, service: str, environment: str) -> None:
        # What the exporter has to say about a collector that is away, one line of ours says.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        named = {"service.namespace": "reelworks", "deployment.environment.name": environment}
        if "OTEL_SERVICE_NAME" not in os.environ:
            named["service.name"] = service
        self._provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Reporting(OTLPSpanExporter())))
        self.tracer: Tracer = self._provider.get_tracer("reelworks")

    def close(self, within_s: float) -> None:
        """Sends what waits, for as long as there is time."""
        # It waits for a collector that does not answer, however long that takes.
        sending = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        sending.start()
        sending.join(within_s)


class _Reporting(SpanExporter):
    """Says once that the collector is away, and once that it is back."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._is_away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
        is_away = result is not SpanExportResult.SUCCESS
        if is_away != self._is_away:
            self._is_away = is_away
            logging.getLogger(__name__).warning(
                "spans are lost: the collector is away" if is_away else "spans are sent again"
            )
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()
