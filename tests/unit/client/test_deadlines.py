"""No call is left without an end that was chosen for it."""

from reelworks.credits.v1 import credits_pb2
from reelworks.generation.v1 import generation_pb2
from reelworks.webhook.v1 import webhook_pb2

from services.client.deadlines import DEADLINES_S, WATCH_S
from services.runtime.server import CONNECTION_AGE_GRACE_MS


def test_every_method_of_the_clients_has_a_deadline_and_streams_the_longest() -> None:
    methods = {
        method.name: method.server_streaming
        for file, service in (
            (credits_pb2.DESCRIPTOR, "CreditsService"),
            (generation_pb2.DESCRIPTOR, "GenerationService"),
            (webhook_pb2.DESCRIPTOR, "WebhookService"),
        )
        for method in file.services_by_name[service].methods
    }

    assert set(DEADLINES_S) == set(methods)
    assert {name for name, limit in DEADLINES_S.items() if limit == WATCH_S} == {
        name for name, streams in methods.items() if streams
    }


def test_no_call_but_streams_is_cut_by_the_age_of_its_connection() -> None:
    longest_s = max(limit for limit in DEADLINES_S.values() if limit != WATCH_S)

    assert longest_s * 1000 < CONNECTION_AGE_GRACE_MS
