"""How long everything may take."""

from dataclasses import dataclass

__all__ = ["FAST", "Timing"]


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations of the saga, all in seconds. Each lease outlasts the call that it covers."""

    deadline_s: float = 2700.0
    """From the create to the end of waiting for the provider."""
    reserve_limit_s: float = 60.0
    """A reservation that took longer to be made is refunded: its caller has given up."""
    submit_margin_s: float = 60.0
    """Less time left than this is too little to submit."""
    credits_call_s: float = 5.0
    provider_call_s: float = 25.0
    archive_call_s: float = 120.0
    """How long one effect may take, whatever it waits for."""
    credits_lease_s: float = 15.0
    provider_lease_s: float = 60.0
    archive_lease_s: float = 180.0
    """Leases: how long an effect may be under way before another worker takes it over."""
    send_before_s: float = 10.0
    """How long after its claim a create may still begin to be sent."""
    poll_s: float = 2.0
    """Least time between two polls of one prediction."""
    missing_grace_s: float = 60.0
    """For so long after the create, a prediction that cannot be found is only late."""
    cancel_limit_s: float = 120.0
    """How long the provider is asked to stop before the generation ends without it."""
    archive_limit_s: float = 3300.0
    """How long after the provider's end the video can be saved; the provider keeps it an hour."""
    backoff_min_s: float = 0.25
    backoff_max_s: float = 60.0
    search_delays_s: tuple[float, ...] = (5.0, 15.0, 30.0, 60.0, 120.0)
    """When a lost create is looked for, after it was lost; then again and again after the last."""
    search_lease_s: float = 120.0
    """How long one search of the provider's list may be under way before another may begin."""
    search_grace_s: float = 180.0
    """How much later than its create a prediction may appear in the provider's list."""
    search_limit_s: float = 3600.0
    """How long a lost create is looked for: as long as the provider keeps its input."""
    orphan_limit_s: float = 3600.0
    """How long a prediction that nobody uses is followed; its own deadline ends it before."""
    probe_s: float = 60.0
    """After an error that an operator must see to, one create a minute is tried."""
    trouble_pause_s: float = 30.0
    """How long creates pause after several in a row had no answer."""
    retention_s: float | None = None
    """How long a video is kept; None = until it is deleted."""


FAST = Timing(
    credits_call_s=1.0,
    provider_call_s=1.0,
    archive_call_s=2.0,
    credits_lease_s=3.0,
    provider_lease_s=3.0,
    archive_lease_s=3.0,
    send_before_s=1.0,
    poll_s=0.2,
    missing_grace_s=3.0,
    cancel_limit_s=5.0,
    search_delays_s=(0.5, 1.0, 2.0, 4.0),
    search_lease_s=6.0,
    search_grace_s=3.0,
    probe_s=2.0,
    trouble_pause_s=1.0,
)
"""For tests, with a provider that is as quick: what takes minutes takes seconds."""
