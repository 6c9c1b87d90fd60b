"""What the web service measures."""

from services.runtime.metrics import OTHER, CallMetrics, Metrics

__all__ = ["METHODS", "WebMetrics"]

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class WebMetrics:
    """Measures answers, and how fresh what is streamed is."""

    def __init__(self, metrics: Metrics | None = None) -> None:
        """Takes the measures of the process; without them it counts for nobody."""
        metrics = metrics or Metrics()
        self._answered_s = metrics.histogram("http_seconds")
        self._streams = metrics.gauge("sse_streams")
        self._event_age_s = metrics.histogram("sse_event_age_seconds")
        self.calls = CallMetrics.of_clients(metrics)
        """Of the calls to other services."""

    def answered(self, route: str | None, method: str, status: int, after_s: float) -> None:
        """Measures an answer; `route` is its template, None for an address that nothing has."""
        known = method if method in METHODS else OTHER
        self._answered_s.labels(route or OTHER, known, status).observe(after_s)

    def stream_opened(self) -> None:
        """Counts a stream of events."""
        self._streams.inc()

    def stream_ended(self) -> None:
        """Counts it no more."""
        self._streams.dec()

    def event_sent(self, age_s: float) -> None:
        """Measures how old a change is when it is sent."""
        self._event_age_s.observe(max(age_s, 0.0))
