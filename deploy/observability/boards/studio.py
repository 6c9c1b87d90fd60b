"""The dashboard that shows what people and their programs meet."""

from deploy.observability.panels import RATE, Board, Panel, Row, quantiles

__all__ = ["BOARD"]

BOARD = Board(
    "studio",
    "Reelworks: studio",
    "What people and their programs meet: the REST API, and the events of the page.",
    (
        Row(
            "REST",
            (
                Panel(
                    "Requests",
                    "By route, the busiest ten.",
                    (
                        (
                            f"topk(10, sum by (route) (rate(reelworks_http_seconds_count{RATE})))",
                            "{{route}}",
                        ),
                    ),
                    "reqps",
                ),
                Panel(
                    "Answers",
                    "By status.",
                    (
                        (
                            f"sum by (status) (rate(reelworks_http_seconds_count{RATE}))",
                            "{{status}}",
                        ),
                    ),
                    "reqps",
                ),
                Panel(
                    "Our faults",
                    "The share of answers with 5xx.",
                    (
                        (
                            (
                                f'sum(rate(reelworks_http_seconds_count{{status=~"5.."}}{RATE}))'
                                f" / sum(rate(reelworks_http_seconds_count{RATE}))"
                            ),
                            "5xx",
                        ),
                    ),
                    "percentunit",
                    red_above=0.01,
                ),
                quantiles("Answered after", "All routes.", "reelworks_http_seconds", width=12),
                Panel(
                    "Slow routes",
                    "What 99 of 100 requests of a route took at most, the slowest ten.",
                    (
                        (
                            (
                                "topk(10, histogram_quantile(0.99, sum by (le, route) "
                                f"(rate(reelworks_http_seconds_bucket{RATE}))))"
                            ),
                            "{{route}}",
                        ),
                    ),
                    "s",
                    12,
                ),
            ),
        ),
        Row(
            "Events",
            (
                Panel(
                    "Open streams",
                    "Of all replicas, and of the one with the most.",
                    (
                        ("sum(reelworks_sse_streams)", "all"),
                        ("max(reelworks_sse_streams)", "most in one"),
                    ),
                    width=12,
                ),
                quantiles(
                    "From change to browser",
                    "The promise is 2 s.",
                    "reelworks_sse_event_age_seconds",
                    limit=2,
                    width=12,
                ),
            ),
        ),
    ),
)
