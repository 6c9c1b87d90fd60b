"""What a person asks for over REST is one trace, from the door through all services to the bill."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import pytest

from tests.end_to_end.telemetry.collector import SeenSpan
from tests.end_to_end.telemetry.evening import Evening

pytestmark = pytest.mark.timeout(300)

CREDITS = "reelworks.credits.v1.CreditsService"
GENERATIONS = "reelworks.generation.v1.GenerationService"
EVENTS = "reelworks.generation.v1.PredictionEventService"

# Service, kind and name of each span, under what it is part of. Two webhooks come: that the
# prediction began, and that it ended.
WHOLE = {
    "": ["web SERVER POST /api/generation/text-to-video"],
    "web SERVER POST /api/generation/text-to-video": [
        f"web CLIENT {CREDITS}/OpenAccount",
        f"web CLIENT {GENERATIONS}/CreateGeneration",
        f"web CLIENT {GENERATIONS}/GetGeneration",
    ],
    f"web CLIENT {CREDITS}/OpenAccount": [f"credits SERVER {CREDITS}/OpenAccount"],
    f"web CLIENT {GENERATIONS}/GetGeneration": [f"generation SERVER {GENERATIONS}/GetGeneration"],
    f"web CLIENT {GENERATIONS}/CreateGeneration": [
        f"generation SERVER {GENERATIONS}/CreateGeneration"
    ],
    f"generation SERVER {GENERATIONS}/CreateGeneration": [
        f"generation CLIENT {CREDITS}/Reserve",
        "generation CONSUMER prediction event",
        "generation CONSUMER prediction event",
        "generation INTERNAL generation ARCHIVING",
        "generation INTERNAL generation COMMITTING",
        "generation INTERNAL generation SUBMITTING",
    ],
    f"generation CLIENT {CREDITS}/Reserve": [f"credits SERVER {CREDITS}/Reserve"],
    "generation INTERNAL generation SUBMITTING": ["generation CLIENT provider create"],
    "generation INTERNAL generation COMMITTING": [f"generation CLIENT {CREDITS}/Commit"],
    f"generation CLIENT {CREDITS}/Commit": [f"credits SERVER {CREDITS}/Commit"],
}
WEBHOOK = {
    "": ["webhook SERVER POST /api/webhooks/replicate"],
    "webhook SERVER POST /api/webhooks/replicate": [
        f"webhook CLIENT {EVENTS}/DeliverPredictionEvent"
    ],
    f"webhook CLIENT {EVENTS}/DeliverPredictionEvent": [
        f"generation SERVER {EVENTS}/DeliverPredictionEvent"
    ],
}


def trace(evening: Evening, trace_id: str) -> list[SeenSpan]:
    return [span for span in evening.spans if span.trace_id == trace_id]


def shape(spans: Sequence[SeenSpan]) -> Mapping[str, list[str]]:
    """The parts of each span, in words; what has no parent that was sent is under its id."""
    names = {"": ""} | {span.span_id: called(span) for span in spans}
    found: dict[str, list[str]] = defaultdict(list)
    for span in spans:
        found[names.get(span.parent_id, span.parent_id)].append(called(span))
    return {parent: sorted(children) for parent, children in found.items()}


def called(span: SeenSpan) -> str:
    return f"{span.service} {span.kind} {span.name}"


def test_a_create_is_one_trace_from_rest_to_the_bill(evening: Evening) -> None:
    spans = trace(evening, evening.made.trace_id)

    assert shape(spans) == WHOLE
    assert [span for span in spans if span.has_failed] == []
    about = {
        span.attributes.get("reelworks.generation_id")
        for span in spans
        if span.service == "generation" and span.kind != "CLIENT"
    }
    assert about == {evening.made.generation_id}
    assert {span.environment for span in spans} == {"test"}


def test_each_webhook_is_a_trace_that_leads_to_that_of_the_create_and_back(
    evening: Evening,
) -> None:
    spans = trace(evening, evening.made.trace_id)
    (create,) = [
        span
        for span in spans
        if called(span).endswith("Service/CreateGeneration") and span.kind == "SERVER"
    ]
    told = [span for span in spans if span.name == "prediction event"]

    for span in told:
        ((trace_id, span_id),) = span.links
        webhook = trace(evening, trace_id)
        assert shape(webhook) == WEBHOOK
        (delivered,) = [one for one in webhook if one.span_id == span_id]
        assert called(delivered).startswith("generation SERVER")
        assert delivered.links == [(create.trace_id, create.span_id)]
        assert (
            delivered.attributes["reelworks.webhook_id"]
            == (span.attributes["reelworks.webhook_id"])
        )
    assert len({span.links[0] for span in told}) == 2


def test_what_failed_says_so_and_what_was_refused_does_not(evening: Evening) -> None:
    failed = {(called(span), span.why) for span in evening.spans if span.has_failed}

    # The create whose answer was lost.
    assert failed == {
        ("generation CLIENT provider create", "unanswered"),
        ("generation INTERNAL generation SUBMITTING", "SubmitUnknown"),
    }
    refused = {span.attributes.get("http.response.status_code") for span in evening.spans}
    assert {"401", "404"} <= refused


def test_nothing_that_people_wrote_and_no_secret_is_in_a_span(evening: Evening) -> None:
    for what, secret in evening.secrets.items():
        assert secret.encode() not in evening.sent, what
    assert b"://" not in evening.sent.replace(b"https://opentelemetry.io/schemas", b"")


def test_streams_and_probes_are_no_spans(evening: Evening) -> None:
    names = {span.name for span in evening.spans}

    assert not [name for name in names if "Watch" in name or "healthz" in name or "events" in name]
