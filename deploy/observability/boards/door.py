"""The dashboard that shows what Replicate sends, and what becomes of it."""

from deploy.observability.panels import RATE, Board, Panel, Row, quantiles, zero

__all__ = ["BOARD"]

BOARD = Board(
    "door",
    "Reelworks: door",
    "What Replicate sends, and what becomes of it.",
    (
        Row(
            "In",
            (
                Panel(
                    "Answers",
                    "By HTTP status. 401 are strangers or a wrong secret, 503 our own trouble.",
                    (
                        (
                            f"sum by (answer) (rate(reelworks_webhook_requests_total{RATE}))",
                            "{{answer}}",
                        ),
                    ),
                    "reqps",
                ),
                quantiles(
                    "Acknowledged after",
                    "From the headers of a webhook to our 200. The promise is 1 s.",
                    "reelworks_webhook_ack_seconds",
                    limit=1,
                ),
                Panel(
                    "Refused",
                    "Signatures that were not accepted, by reason.",
                    (
                        (
                            f"sum by (reason) (rate(reelworks_webhook_rejected_total{RATE}))",
                            "{{reason}}",
                        ),
                    ),
                    "reqps",
                ),
                Panel(
                    "What addresses proved",
                    "Genuine webhooks: all should be good.",
                    (
                        (
                            f"sum by (verdict) (rate(reelworks_webhook_query_total{RATE}))",
                            "{{verdict}}",
                        ),
                    ),
                    "reqps",
                ),
                Panel(
                    "Secret",
                    "Which secret signed; 0 is the newest.",
                    (
                        (
                            f"sum by (number) (rate(reelworks_webhook_secret_number_total{RATE}))",
                            "number {{number}}",
                        ),
                    ),
                    "reqps",
                ),
                Panel(
                    "Odd connections",
                    "What was no HTTP, and what was one connection too many.",
                    (
                        (f"sum(rate(reelworks_webhook_broken_requests_total{RATE}))", "no HTTP"),
                        (
                            f"sum(rate(reelworks_webhook_connections_refused_total{RATE}))",
                            "too many",
                        ),
                    ),
                    "reqps",
                ),
            ),
        ),
        Row(
            "Stored",
            (
                quantiles(
                    "Stored after",
                    "From a verified webhook to its durable row, the wait included.",
                    "reelworks_webhook_store_seconds",
                ),
                Panel(
                    "Rows at once",
                    "In one database transaction: 99 of 100 have at most so many.",
                    (
                        (
                            (
                                "histogram_quantile(0.99, sum by (le) "
                                f"(rate(reelworks_webhook_batch_rows_bucket{RATE})))"
                            ),
                            "rows",
                        ),
                    ),
                ),
                Panel(
                    "Duplicates",
                    "Webhooks that were stored before.",
                    ((f"sum(rate(reelworks_webhook_duplicates_total{RATE}))", "duplicates"),),
                    "reqps",
                ),
            ),
        ),
        Row(
            "Out",
            (
                Panel(
                    "Waiting",
                    "Events that generation has not recorded yet.",
                    (("max(reelworks_webhook_pending)", "pending"),),
                    width=6,
                ),
                Panel(
                    "Oldest",
                    "How long the oldest of them waits: from 60 s on there is a ticket.",
                    (("max(reelworks_webhook_oldest_pending_seconds)", "oldest"),),
                    "s",
                    6,
                    red_above=60,
                ),
                Panel(
                    "Deliveries",
                    "Tries, by generation's status and what it did.",
                    (
                        (
                            (
                                "sum by (code, disposition) "
                                f"(rate(reelworks_webhook_deliveries_total{RATE}))"
                            ),
                            "{{code}} {{disposition}}",
                        ),
                    ),
                    "reqps",
                    6,
                ),
                zero(
                    "Dead",
                    "Events that were given up, and wait for a person.",
                    "max(reelworks_webhook_dead)",
                    3,
                ),
                Panel(
                    "Last webhook",
                    "How long ago a genuine one came.",
                    (("time() - (max(reelworks_webhook_last_received_timestamp) > 0)", ""),),
                    "dtdurations",
                    3,
                    "number",
                ),
            ),
        ),
    ),
)
