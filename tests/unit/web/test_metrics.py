"""Whatever strangers send, labels have few values."""

from services.runtime.metrics import Metrics
from services.web.metrics import WebMetrics


def test_unknown_routes_and_methods_are_other() -> None:
    metrics = Metrics()
    measures = WebMetrics(metrics)

    for number in range(100):
        measures.answered(None, f"METHOD{number}", 404, 0.01)
    measures.answered("/api/generations/{generation_id}", "GET", 200, 0.01)

    def counted(route: str, method: str, status: str) -> float | None:
        labels = {"route": route, "method": method, "status": status}
        return metrics.registry.get_sample_value("reelworks_http_seconds_count", labels)

    assert counted("other", "other", "404") == 100
    assert counted("/api/generations/{generation_id}", "GET", "200") == 1


def test_a_clock_that_is_behind_makes_no_change_younger_than_nothing() -> None:
    metrics = Metrics()

    WebMetrics(metrics).event_sent(-3.0)

    assert metrics.registry.get_sample_value("reelworks_sse_event_age_seconds_sum") == 0
