"""Declares every name that a process shows to Prometheus, and what it means.

Rules, dashboards and the page about operating are checked against this one list. No label ever
holds an id, an address or words that people wrote, and each has few values: what a process does not
know is `other`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["DECLARED", "PREFIX", "Kind", "Measure"]

PREFIX = "reelworks_"

_QUICK_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_CALL_S = (*_QUICK_S, 10.0, 30.0)
_AGE_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_SETTLE_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0)
_STAGE_S = (0.05, 0.25, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_COMPLETION_S = (10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 240.0, 300.0, 600.0, 1800.0)
_MARGIN_S = (0.0, 60.0, 300.0, 600.0, 1200.0, 1800.0, 2400.0, 3000.0, 3300.0, 3500.0, 3600.0)
_ROWS = (1, 2, 5, 10, 20, 50, 100, 200)

_ALL = ("credits", "generation", "webhook", "web")
_WITH_DATABASE = ("credits", "generation", "webhook")
_CREDITS = ("credits",)
_GENERATION = ("generation",)
_WEB = ("web",)
_WEBHOOK = ("webhook",)


class Kind(StrEnum):
    """How a measure behaves over time."""

    COUNTER = "counter"
    """Only grows, from 0 at the start of the process."""
    GAUGE = "gauge"
    """Goes up and down."""
    HISTOGRAM = "histogram"
    """Counts observations by size."""


@dataclass(frozen=True, slots=True)
class Measure:
    """Something that a process measures."""

    kind: Kind
    services: tuple[str, ...]
    """Who shows it."""
    help: str
    """What it says, with its unit."""
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = _QUICK_S
    """Upper bounds; of a histogram only."""


_CALLS = {
    "rpc_server_seconds": Measure(
        Kind.HISTOGRAM,
        _WITH_DATABASE,
        "How long calls took to be answered, by gRPC service, method and status.",
        ("service", "method", "code"),
        _CALL_S,
    ),
    "rpc_client_seconds": Measure(
        Kind.HISTOGRAM,
        ("generation", "webhook", "web"),
        "How long calls to other services took, by gRPC service, method and status.",
        ("service", "method", "code"),
        _CALL_S,
    ),
    "http_seconds": Measure(
        Kind.HISTOGRAM,
        _WEB,
        "How long requests took to be answered, by template of their route; streams excepted.",
        ("route", "method", "status"),
        _CALL_S,
    ),
    "sse_streams": Measure(Kind.GAUGE, _WEB, "Streams of events that are open."),
    "sse_event_age_seconds": Measure(
        Kind.HISTOGRAM,
        _WEB,
        "From the change of a generation in the database to its event on its way to a browser.",
        buckets=_AGE_S,
    ),
    "database_pool_in_use": Measure(
        Kind.GAUGE,
        _WITH_DATABASE,
        "Connections to the database that are in use, by pool: writer, reader or scanner.",
        ("pool",),
    ),
    "database_pool_size": Measure(
        Kind.GAUGE,
        _WITH_DATABASE,
        "Connections to the database that a pool has at most.",
        ("pool",),
    ),
    "certificate_expires_timestamp": Measure(
        Kind.GAUGE,
        _ALL,
        "When the certificate that the process shows expires, in seconds since 1970; "
        "0 without certificates.",
    ),
    "certificate_late_timestamp": Measure(
        Kind.GAUGE,
        _ALL,
        "When that certificate should have been replaced, in the last fifth of its life, in "
        "seconds since 1970; 0 without certificates.",
    ),
    "batch_size": Measure(
        Kind.HISTOGRAM,
        ("credits", "generation"),
        "Commands written in one database transaction of the group commit.",
        buckets=_ROWS,
    ),
    "figures_read_timestamp": Measure(
        Kind.GAUGE,
        ("credits", "generation"),
        "When the gauges that come from the database were read last, in seconds since 1970; "
        "0 before the first.",
    ),
}

_OF_CREDITS = {
    "credits_moved_total": Measure(
        Kind.COUNTER,
        _CREDITS,
        "Credits that moved, by type of transaction; of deductions what was spent.",
        ("type",),
    ),
    "transactions_total": Measure(
        Kind.COUNTER, _CREDITS, "Transactions written to the ledger, by type.", ("type",)
    ),
    "reserved_credits": Measure(
        Kind.GAUGE, _CREDITS, "Credits that open reservations hold, of all users."
    ),
    "reservations_open": Measure(Kind.GAUGE, _CREDITS, "Reservations that are open."),
    "reservations_overdue": Measure(
        Kind.GAUGE, _CREDITS, "Reservations that are open 5 minutes after their expiry."
    ),
    "ledger_violations": Measure(
        Kind.GAUGE,
        _CREDITS,
        "What the last verification of the whole ledger found not to agree, by invariant I1 to I7.",
        ("invariant",),
    ),
    "ledger_verified_timestamp": Measure(
        Kind.GAUGE,
        _CREDITS,
        "When the last verification of the whole ledger ended, in seconds since 1970; "
        "0 before the first.",
    ),
}

_OF_GENERATION = {
    "generations": Measure(
        Kind.GAUGE, _GENERATION, "Unfinished generations, by stage.", ("stage",)
    ),
    "ready_age_seconds": Measure(
        Kind.GAUGE,
        _GENERATION,
        "For how long the oldest generation has waited to be submitted; 0 without any.",
    ),
    "generations_overdue": Measure(
        Kind.GAUGE, _GENERATION, "Generations that are open 5 minutes after their deadline."
    ),
    "unsettled_credits": Measure(
        Kind.GAUGE, _GENERATION, "Credits that are reserved for unfinished generations."
    ),
    "submissions_paused": Measure(
        Kind.GAUGE, _GENERATION, "1 while nothing is submitted to the provider, else 0."
    ),
    "orphans_live": Measure(
        Kind.GAUGE,
        _GENERATION,
        "Predictions that no generation uses and that have not ended at the provider.",
    ),
    "orphans_charged_total": Measure(
        Kind.COUNTER,
        _GENERATION,
        "Predictions that no generation used and that the provider bills.",
    ),
    "generations_created_total": Measure(
        Kind.COUNTER, _GENERATION, "Generations that were recorded, by kind.", ("kind",)
    ),
    "generations_ended_total": Measure(
        Kind.COUNTER,
        _GENERATION,
        "Generations that ended, by status, code of their failure and whose fault it was.",
        ("status", "code", "fault"),
    ),
    "completion_seconds": Measure(
        Kind.HISTOGRAM,
        _GENERATION,
        "From the create of a generation to COMPLETED.",
        buckets=_COMPLETION_S,
    ),
    "stage_seconds": Measure(
        Kind.HISTOGRAM,
        _GENERATION,
        "How long generations were at a stage when they left it.",
        ("stage",),
        _STAGE_S,
    ),
    "settle_seconds": Measure(
        Kind.HISTOGRAM,
        _GENERATION,
        "From the end of a prediction, as its provider says, to its price being settled.",
        buckets=_SETTLE_S,
    ),
    "charged_credits_total": Measure(
        Kind.COUNTER,
        _GENERATION,
        "Credits charged for generations that ended, by model.",
        ("model",),
    ),
    "refunded_credits_total": Measure(
        Kind.COUNTER,
        _GENERATION,
        "Credits given back for generations that ended, by status.",
        ("status",),
    ),
    "provider_requests_total": Measure(
        Kind.COUNTER,
        _GENERATION,
        "Requests to the provider, by what for and how they ended.",
        ("operation", "outcome"),
    ),
    "provider_seconds_total": Measure(
        Kind.COUNTER,
        _GENERATION,
        "Seconds of work that the provider bills, by model and whether a user pays for them.",
        ("model", "charged"),
    ),
    "provider_dollars_total": Measure(
        Kind.COUNTER,
        _GENERATION,
        "US dollars that predictions cost by the price in the catalog, as for the seconds.",
        ("model", "charged"),
    ),
    "outcomes_total": Measure(
        Kind.COUNTER, _GENERATION, "Predictions that ended, by who told of it first.", ("source",)
    ),
    "terminal_webhooks_total": Measure(
        Kind.COUNTER,
        _GENERATION,
        "Webhooks about the end of a prediction, first to tell or not, by whether they came within "
        "90 s of it.",
        ("timely",),
    ),
    "webhooks_asked": Measure(
        Kind.GAUGE,
        _GENERATION,
        "1 while the provider is asked to send webhooks, 0 while polls alone tell of ends.",
    ),
    "archive_margin_seconds": Measure(
        Kind.HISTOGRAM,
        _GENERATION,
        "Time that was left of the provider's hour when a video was in our storage.",
        buckets=_MARGIN_S,
    ),
    "eta_hits_total": Measure(
        Kind.COUNTER,
        _GENERATION,
        "Completed generations, by whether the estimate at their submission held.",
        ("band", "hit"),
    ),
    "reconciliation_findings": Measure(
        Kind.GAUGE,
        _GENERATION,
        "Generations that differ from their reservations, by what is wrong.",
        ("finding",),
    ),
    "reconciled_timestamp": Measure(
        Kind.GAUGE,
        _GENERATION,
        "When the last whole comparison with the ledger began, in seconds since 1970; "
        "0 before the first.",
    ),
}

_OF_WEBHOOK = {
    "webhook_requests_total": Measure(
        Kind.COUNTER, _WEBHOOK, "Answers to webhooks, by HTTP status.", ("answer",)
    ),
    "webhook_broken_requests_total": Measure(
        Kind.COUNTER, _WEBHOOK, "Connections that were ended since what came was no HTTP."
    ),
    "webhook_connections_refused_total": Measure(
        Kind.COUNTER, _WEBHOOK, "Connections that were ended at once, since too many were open."
    ),
    "webhook_rejected_total": Measure(
        Kind.COUNTER, _WEBHOOK, "Webhooks whose signature was not accepted, by reason.", ("reason",)
    ),
    "webhook_query_total": Measure(
        Kind.COUNTER,
        _WEBHOOK,
        "Genuine webhooks, by what the query of their address proved.",
        ("verdict",),
    ),
    "webhook_ack_seconds": Measure(
        Kind.HISTOGRAM,
        _WEBHOOK,
        "From the headers of a webhook to its acknowledgement, 200 only.",
    ),
    "webhook_batch_rows": Measure(
        Kind.HISTOGRAM, _WEBHOOK, "Rows written in one database transaction.", buckets=_ROWS
    ),
    "webhook_store_seconds": Measure(
        Kind.HISTOGRAM,
        _WEBHOOK,
        "From a verified webhook to its durable row, the wait included.",
    ),
    "webhook_duplicates_total": Measure(
        Kind.COUNTER, _WEBHOOK, "Webhooks that were stored before."
    ),
    "webhook_pending": Measure(
        Kind.GAUGE, _WEBHOOK, "Events that generation has not recorded yet."
    ),
    "webhook_oldest_pending_seconds": Measure(
        Kind.GAUGE, _WEBHOOK, "Age of the oldest of them; 0 without any."
    ),
    "webhook_deliveries_total": Measure(
        Kind.COUNTER,
        _WEBHOOK,
        "Tries to deliver, by generation's status and what it did.",
        ("code", "disposition"),
    ),
    "webhook_dead": Measure(Kind.GAUGE, _WEBHOOK, "Events that wait for a person."),
    "webhook_last_received_timestamp": Measure(
        Kind.GAUGE,
        _WEBHOOK,
        "When the last genuine webhook came, in seconds since 1970; 0 before the first.",
    ),
    "webhook_secret_number_total": Measure(
        Kind.COUNTER,
        _WEBHOOK,
        "Verified webhooks, by the secret that had signed them.",
        ("number",),
    ),
}

DECLARED: Mapping[str, Measure] = {**_CALLS, **_OF_CREDITS, **_OF_GENERATION, **_OF_WEBHOOK}
"""All measures, by name without `PREFIX`."""
