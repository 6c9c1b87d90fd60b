"""Alerts about webhooks: what waits, what is dead, what is refused, what does not come."""

from deploy.observability.alerting import Alert, Case, Condition, Severity

__all__ = ["ALERTS"]

PAGE, TICKET = Severity.PAGE, Severity.TICKET

# Strangers send anything; what is well formed and still refused may be a secret that was rotated.
_REFUSED = 'reelworks_webhook_rejected_total{reason=~"wrong_signature|too_old|too_new"}'
_WRONG = 'reelworks_webhook_rejected_total{reason="wrong_signature"}'
_BAD_QUERY = 'reelworks_webhook_query_total{verdict!="good"}'
_UNMATCHED = 'reelworks_webhook_deliveries_total{disposition="UNMATCHED"}'
_ACK = "reelworks_webhook_ack_seconds"
_ENDED = "reelworks_outcomes_total"
_SOURCE = 'reelworks_outcomes_total{source="poll"}'
_ARRIVED = 'reelworks_terminal_webhooks_total{timely="yes"}'
_LAST = "reelworks_webhook_last_received_timestamp"
_STARTED = "process_start_time_seconds"
_ASKED = "reelworks_webhooks_asked"
_RUNNING = 'reelworks_generations{stage="RUNNING"}'

ALERTS = (
    Alert(
        name="WebhooksWait",
        job="webhook",
        summary="Webhooks are stored and do not reach the generation service.",
        conditions={
            # The provider keeps a video for 60 minutes.
            PAGE: Condition("max(reelworks_webhook_oldest_pending_seconds) > 3000"),
            TICKET: Condition("max(reelworks_webhook_oldest_pending_seconds) > 60", "1m"),
        },
        cases=(
            Case({"reelworks_webhook_oldest_pending_seconds": "0+60x60"}, "55m", (PAGE, TICKET)),
            Case({"reelworks_webhook_oldest_pending_seconds": "0+60x60"}, "10m", (TICKET,)),
            Case({"reelworks_webhook_oldest_pending_seconds": "3x60"}, "55m"),
        ),
    ),
    Alert(
        name="WebhooksDead",
        job="webhook",
        summary="A webhook was given up, and waits for an operator.",
        conditions={PAGE: Condition("max(reelworks_webhook_dead) > 0")},
        cases=(
            Case({"reelworks_webhook_dead": "0x5 1x5"}, "8m", (PAGE,)),
            Case({"reelworks_webhook_dead": "0x10"}, "8m"),
        ),
    ),
    Alert(
        name="WebhooksUnmatched",
        job="webhook",
        summary="A genuine webhook came that is about none of our generations.",
        conditions={
            TICKET: Condition(
                f"sum(increase({_BAD_QUERY}[15m])) > 0\nor sum(increase({_UNMATCHED}[15m])) > 0"
            )
        },
        cases=(
            Case({'reelworks_webhook_query_total{verdict="bad"}': "0x5 1x5"}, "8m", (TICKET,)),
            Case(
                {
                    'reelworks_webhook_query_total{verdict="bad"}': "0x10",
                    'reelworks_webhook_deliveries_total{code="OK",disposition="UNMATCHED"}': (
                        "0x5 1x5"
                    ),
                },
                "8m",
                (TICKET,),
            ),
            Case(
                {
                    'reelworks_webhook_query_total{verdict="good"}': "0+10x10",
                    'reelworks_webhook_query_total{verdict="bad"}': "1x10",
                    'reelworks_webhook_deliveries_total{code="OK",disposition="APPLIED"}': (
                        "0+10x10"
                    ),
                },
                "8m",
            ),
        ),
    ),
    Alert(
        name="WebhookSignaturesRejected",
        job="webhook",
        summary="More well-formed webhooks are refused for their signature than is usual.",
        conditions={
            PAGE: Condition(
                f"sum(increase({_REFUSED}[10m]))\n"
                f"> 10 + 3 * sum(increase({_REFUSED}[1d] offset 10m) or {_REFUSED} * 0) / 144"
            )
        },
        cases=(
            Case({_WRONG: "0x60 0+5x20"}, "75m", (PAGE,)),
            # A stranger who tries all day is the baseline.
            Case({_WRONG: "0+2x1500"}, "20h"),
            Case({_WRONG: "0x60 1x20"}, "75m"),
        ),
    ),
    Alert(
        name="WebhookTailSlow",
        job="webhook",
        summary="One webhook in a hundred is acknowledged later than after a second.",
        conditions={
            TICKET: Condition(
                f"histogram_quantile(0.99, sum by (le) (rate({_ACK}_bucket[10m]))) > 1\n"
                f"and sum(increase({_ACK}_count[10m])) >= 100",
                "10m",
            )
        },
        cases=(
            Case(
                {
                    f'{_ACK}_bucket{{le="1.0"}}': "0+90x40",
                    f'{_ACK}_bucket{{le="2.5"}}': "0+100x40",
                    f'{_ACK}_bucket{{le="+Inf"}}': "0+100x40",
                    f"{_ACK}_count": "0+100x40",
                },
                "30m",
                (TICKET,),
            ),
            Case(
                {
                    f'{_ACK}_bucket{{le="1.0"}}': "0+100x40",
                    f'{_ACK}_bucket{{le="2.5"}}': "0+100x40",
                    f'{_ACK}_bucket{{le="+Inf"}}': "0+100x40",
                    f"{_ACK}_count": "0+100x40",
                },
                "30m",
            ),
        ),
    ),
    Alert(
        name="WebhooksSilent",
        job="webhook",
        summary="No webhook has come for a quarter of an hour, although generations run.",
        conditions={
            TICKET: Condition(
                # A process that has just begun has had none yet.
                f"time() - max({_LAST} > {_STARTED}\n"
                f"  or {_STARTED} and {_LAST}) > 900\n"
                f"and min_over_time(max({_RUNNING})[15m:1m]) > 0\n"
                # Where only polls tell of ends, none comes.
                f"and max({_ASKED}) > 0"
            )
        },
        cases=(
            Case(
                {_LAST: "60x60", _STARTED: "1x60", _RUNNING: "2x60", _ASKED: "1x60"},
                "30m",
                (TICKET,),
            ),
            Case(
                {_LAST: "0x60", _STARTED: "60x60", _RUNNING: "2x60", _ASKED: "1x60"},
                "30m",
                (TICKET,),
            ),
            Case({_LAST: "60+60x60", _STARTED: "1x60", _RUNNING: "2x60", _ASKED: "1x60"}, "30m"),
            # Polls only.
            Case(
                {_LAST: "0x60", _STARTED: "60x60", _RUNNING: "2x60", _ASKED: "0x60"},
                "30m",
            ),
            # It has just begun.
            Case({_LAST: "0x60", _STARTED: "1500x60", _RUNNING: "2x60", _ASKED: "1x60"}, "30m"),
            # Nothing runs.
            Case(
                {_LAST: "60x60", _STARTED: "1x60", _RUNNING: "2x20 0 2x39", _ASKED: "1x60"}, "30m"
            ),
        ),
    ),
    Alert(
        name="WebhooksMissing",
        job="webhook",
        summary="Of a hundred predictions that ended, more than one sent no webhook in 90 s.",
        conditions={
            TICKET: Condition(
                f"1 - sum(increase({_ARRIVED}[1h])) / sum(increase({_ENDED}[1h])) > 0.01\n"
                f"and sum(increase({_ENDED}[1h])) - sum(increase({_ARRIVED}[1h])) >= 3\n"
                f"and max({_ASKED}) > 0",
                "15m",
            )
        },
        cases=(
            Case({_SOURCE: "0+100x120", _ARRIVED: "0+95x120", _ASKED: "1x120"}, "90m", (TICKET,)),
            # None comes at all.
            Case({_SOURCE: "0+100x120", _ARRIVED: "0x120", _ASKED: "1x120"}, "90m", (TICKET,)),
            # None was asked for.
            Case({_SOURCE: "0+100x120", _ARRIVED: "0x120", _ASKED: "0x120"}, "90m"),
            # Polls may be the first to tell: what counts is that the webhook came.
            Case({_SOURCE: "0+1000x120", _ARRIVED: "0+995x120", _ASKED: "1x120"}, "90m"),
            Case({_SOURCE: "0x60 9x60", _ARRIVED: "0x60 7x60", _ASKED: "1x120"}, "90m"),
        ),
    ),
)
