"""Each service shows all that it is declared to show, and nothing else."""

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.runtime.measures import DECLARED, PREFIX, Kind
from tests.end_to_end.telemetry.evening import SERVICES, Evening

pytestmark = pytest.mark.timeout(300)

OF_PROMETHEUS = ("process_", "python_")
BOUNDED = re.compile(r"[A-Za-z0-9_./{}+-]{0,80}")
LABEL_VALUES_MAX = 60


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_shows_what_is_declared_of_it_and_nothing_else(
    evening: Evening, service: str
) -> None:
    declared = {
        f"{PREFIX}{name}": measure
        for name, measure in DECLARED.items()
        if service in measure.services
    }

    # The parser takes the suffix of a counter for no part of its name.
    shown = {
        family.name + ("_total" if family.type == "counter" else ""): family
        for family in text_string_to_metric_families(evening.shown[service])
        if not family.name.startswith(OF_PROMETHEUS)
    }

    assert set(shown) == set(declared)
    for name, family in shown.items():
        assert family.type == declared[name].kind
        assert family.documentation == declared[name].help
        for sample in family.samples:
            own = set(sample.labels) - ({"le"} if family.type == Kind.HISTOGRAM else set())
            assert own == set(declared[name].labels), sample


@pytest.mark.parametrize("service", SERVICES)
def test_labels_name_nobody_and_have_few_values(evening: Evening, service: str) -> None:
    values: dict[tuple[str, str], set[str]] = {}
    for family in text_string_to_metric_families(evening.shown[service]):
        for sample in family.samples:
            for label, value in sample.labels.items():
                values.setdefault((family.name, label), set()).add(value)
    own = {key: found for key, found in values.items() if key[0].startswith(PREFIX)}

    assert own
    for key, found in own.items():
        assert len(found) <= LABEL_VALUES_MAX, key
        assert all(map(BOUNDED.fullmatch, found)), (key, found)
        assert not any(evening.made.generation_id in value for value in found), key


@pytest.mark.parametrize(
    ("service", "sample"),
    [
        ("credits", 'credits_moved_total{type="DEDUCTION"} 20.0'),
        ("credits", 'credits_moved_total{type="REFUND"} 20.0'),
        ("credits", 'transactions_total{type="RESERVATION"} 4.0'),
        ("credits", 'ledger_violations{invariant="I1"} 0.0'),
        ("generation", 'generations_created_total{kind="TEXT_TO_VIDEO"} 4.0'),
        ("generation", 'generations_ended_total{code="none",fault="none",status="COMPLETED"} 2.0'),
        (
            "generation",
            'generations_ended_total{code="MODEL_FAILED",fault="provider",status="FAILED"} 1.0',
        ),
        (
            "generation",
            'generations_ended_total{code="CANCELED",fault="user",status="CANCELED"} 1.0',
        ),
        ("generation", "completion_seconds_count 2.0"),
        ("generation", 'completion_seconds_bucket{le="300.0"} 2.0'),
        ("generation", 'charged_credits_total{model="t2v-14B"} 20.0'),
        ("generation", 'provider_requests_total{operation="create",outcome="unanswered"} 1.0'),
        ("generation", 'provider_dollars_total{charged="yes",model="t2v-14B"} 0.8'),
        ("generation", "webhooks_asked 1.0"),
        ("generation", 'database_pool_size{pool="writer"} 1.0'),
        ("webhook", 'database_pool_size{pool="reader"} 4.0'),
        ("webhook", 'webhook_requests_total{answer="401"} 1.0'),
        ("web", 'http_seconds_count{method="GET",route="other",status="404"} 1.0'),
        ("web", "sse_streams 0.0"),
        # It is in plaintext.
        ("web", "certificate_expires_timestamp 0.0"),
    ],
)
def test_what_happened_is_counted(evening: Evening, service: str, sample: str) -> None:
    assert f"{PREFIX}{sample}\n" in evening.shown[service]


def test_the_ledger_was_verified_and_what_is_under_way_was_read(evening: Evening) -> None:
    for service, name in (
        ("credits", "ledger_verified_timestamp"),
        ("credits", "figures_read_timestamp"),
        ("generation", "figures_read_timestamp"),
    ):
        found = re.search(rf"^{PREFIX}{name} (\S+)$", evening.shown[service], re.MULTILINE)
        assert found is not None
        assert float(found[1]) > 1.7e9, name


def test_changes_reach_streams_within_two_seconds(evening: Evening) -> None:
    shown = evening.shown["web"]
    counts = dict(
        re.findall(
            rf"^{PREFIX}sse_event_age_seconds_(count|bucket{{le=\"2.0\"}}) (\S+)$",
            shown,
            re.MULTILINE,
        )
    )

    assert float(counts["count"]) > 0
    assert counts["count"] == counts['bucket{le="2.0"}']
