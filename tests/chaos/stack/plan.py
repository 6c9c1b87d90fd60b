"""What a run of the whole stack is going to do, drawn from its seed alone: who asks for what, when,
and what is broken meanwhile."""

import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import cycle, islice
from typing import Any

from services.generation.timing import FAST
from services.simulator.faults.profiles import Profile


class Service(StrEnum):
    """The services of which there may be several processes."""

    CREDITS = "credits"
    GENERATION = "generation"
    WEBHOOK = "webhook"


class Mode(StrEnum):
    """What a link does to what passes over it."""

    PASSING = "passing"
    CUT = "cut"
    """Connections end at once, and no new one lasts."""
    SLOW = "slow"
    """Everything arrives, late."""
    SILENT = "silent"
    """Half-open: connections stand, and nothing arrives. At the end they are cut."""


class Kind(StrEnum):
    """What somebody does."""

    PLAIN = "plain"
    REPEATED = "repeated"
    """Asks twice with one id, and must be told of one generation."""
    CANCELED = "canceled"
    FAILING = "failing"
    """Asks for what fails, then has it made again."""
    DELETED = "deleted"
    """Deletes the video when it is there."""
    HASTY = "hasty"
    """Does not wait for the answer, and asks again later."""
    CONTRARY = "contrary"
    """Uses an id again for something else."""
    BAD = "bad"
    """Asks for what there is not."""
    POOR = "poor"
    """Asks for what the account does not pay."""
    IMAGE = "image"
    STRANGER = "stranger"
    """Asks, and somebody else tries to see and to cancel it."""


FAILPOINTS: Mapping[Service, Sequence[str]] = {
    Service.CREDITS: ("ledger.before_commit", "ledger.after_commit"),
    Service.GENERATION: (
        "create.before_commit", "create.recorded", "RESERVING.claimed", "RESERVING.answered",
        "gate.locked", "submit.claimed", "submit.sent", "submit.answered", "SUBMITTING.claimed",
        "SUBMITTING.answered", "RUNNING.claimed", "RUNNING.answered", "ARCHIVING.claimed",
        "archive.downloaded", "ARCHIVING.answered", "COMMITTING.claimed", "COMMITTING.answered",
        "REFUNDING.claimed", "REFUNDING.answered", "CANCELING.claimed", "CANCELING.answered",
        "cancel.received", "cancel.recorded", "batch.before_commit", "batch.after_commit",
        "event.received", "event.before_commit", "event.recorded", "search.claimed",
        "search.found", "search.absent", "orphan.claimed", "orphan.canceled",
    ),
    Service.WEBHOOK: (
        "inbox.received", "inbox.before_commit", "inbox.after_commit", "forward.claimed",
        "forward.answered", "forward.settled",
    ),
}  # fmt: skip
"""Where a process can be told to die; those in which a queue runs over, `tests.chaos` tries."""

FAULTS: Sequence[Mapping[str, Any]] = (
    {"action": {"kind": "create_then_drop"}, "match": {}},
    {"action": {"kind": "create_then_hang", "hang_s": 3}, "match": {}},
    {"action": {"kind": "create_late", "late_s": 1}, "match": {}},
    {"action": {"kind": "throttle"}, "match": {"operation": "create"}},
    {"action": {"kind": "drop"}, "match": {"operation": "create"}},
    {"action": {"kind": "no_credit"}, "match": {"operation": "create"}},
    {"action": {"kind": "status", "status": 422}, "match": {"operation": "create"}},
    {"action": {"kind": "malformed_json"}, "match": {"operation": "create"}},
    {"action": {"kind": "before_create_answer"}, "match": {}},
    {"action": {"kind": "status", "status": 503}, "match": {"operation": "get"}},
    {"action": {"kind": "stale", "age_s": 1}, "match": {"operation": "get"}},
    {"action": {"kind": "cancel_status", "status": 500}, "match": {}},
    {"action": {"kind": "cancel_race", "winner": "run"}, "match": {}},
    {"action": {"kind": "list_lag", "lag_s": 2}, "match": {}},
    {"action": {"kind": "omit_from_list"}, "match": {}},
    {"action": {"kind": "fail"}, "match": {}},
    {"action": {"kind": "abort"}, "match": {}},
    {"action": {"kind": "stuck_starting"}, "match": {}},
    {"action": {"kind": "truncate"}, "match": {}},
    {"action": {"kind": "reset_midway"}, "match": {}},
    {"action": {"kind": "drop_webhook"}, "match": {}},
    {"action": {"kind": "duplicate_webhook", "copies": 3}, "match": {}},
    {"action": {"kind": "delay_webhook", "delay_s": 3}, "match": {}},
    {"action": {"kind": "reorder"}, "match": {}},
    {"action": {"kind": "regress"}, "match": {}},
    {"action": {"kind": "bad_signature"}, "match": {}},
    {"action": {"kind": "tamper_body"}, "match": {}},
    {"action": {"kind": "tamper_query"}, "match": {}},
    {"action": {"kind": "not_json"}, "match": {}},
)
SILENCE = {"action": {"kind": "drop_webhook"}, "match": {}}
"""Beside a lost create, so that it has to be looked for."""


@dataclass(frozen=True)
class Settings:
    """What a run is told."""

    seed: int = 1
    jobs: int = 40
    load_s: float = 40.0
    """Over how long the work and the troubles are spread."""
    replicas: int = 2
    """Of credits and of generation."""
    database: str = "postgresql"
    kills: int = 10
    """Of processes, at random and at failpoints; half of them each."""
    faults: int = 20
    """Of the provider, one by one, besides its weathers."""
    deadline_s: float = 45.0
    """Of a generation; what is open after it must end within a while."""
    is_rough: bool = True
    """Whether there are troubles at all."""

    def __post_init__(self) -> None:
        for name, least in (("jobs", 1), ("replicas", 1), ("kills", 0), ("faults", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}")
        if self.load_s <= 0:
            raise ValueError("load_s must be more than 0")


@dataclass(frozen=True)
class Errand:
    """What one person does, beginning at a certain time."""

    number: int
    at_s: float
    kind: Kind
    user: str
    generation_id: str
    other_id: str
    """For what is made again, or must not be made at all."""
    model: str
    resolution: str
    prompt: str
    pause_s: float
    """Before the second thing that they do."""


@dataclass(frozen=True)
class Trouble:
    """Something that is done to the stack at a certain time."""

    at_s: float
    what: str
    """`kill`, `freeze`, `failpoint`, `leave`, `join`, `restart`, `network`, `weather`, `fault`,
    `skew`."""
    service: str = ""
    replica: int = 0
    lasts_s: float = 0.0
    failpoint: str = ""
    link: str = ""
    mode: str = ""
    profile: str = ""
    skew_s: float = 0.0
    fault: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """All that a run is going to do."""

    settings: Settings
    errands: Sequence[Errand]
    troubles: Sequence[Trouble]

    def as_values(self) -> dict[str, Any]:
        """Returns the plan as JSON values."""
        return asdict(self)


LEASE_S = max(FAST.credits_lease_s, FAST.provider_lease_s, FAST.archive_lease_s)
LONGEST_LEASE_S = max(LEASE_S, FAST.search_lease_s)
"""What a process does under a lease of its own, it has lost after so long."""
USERS = 6
POOR = "poor"
PROMPTS: Mapping[Kind, Sequence[str]] = {
    Kind.PLAIN: ("a red fox in fresh snow", "a lighthouse at dusk [slow]", "rain [nowebhook]"),
    Kind.CANCELED: ("a train that waits [stuck]", "a slow river [slow]", "clouds"),
    Kind.FAILING: ("a storm [fail]", "a crowd [nsfw]", "a cellar [abort]"),
}
MODELS = (("t2v-1.3B", "480p"), ("t2v-14B", "480p"), ("t2v-14B", "720p"))
_SHARES = (
    (Kind.PLAIN, 6), (Kind.CANCELED, 4), (Kind.REPEATED, 2), (Kind.FAILING, 2), (Kind.DELETED, 2),
    (Kind.HASTY, 2), (Kind.IMAGE, 2), (Kind.CONTRARY, 1), (Kind.BAD, 2), (Kind.POOR, 1),
    (Kind.STRANGER, 1),
)  # fmt: skip


def draw(settings: Settings) -> Plan:
    """Returns the plan of a run; the same for the same settings."""
    troubles = _draw_troubles(settings) if settings.is_rough else []
    return Plan(
        settings, _draw_errands(settings), sorted(troubles, key=lambda trouble: trouble.at_s)
    )


def links_of(settings: Settings) -> list[str]:
    """Returns the names of the links between the processes."""
    of_services = [
        f"{service}-{number}"
        for service in (Service.CREDITS, Service.GENERATION)
        for number in range(settings.replicas)
    ]
    databases = [f"database-{service}" for service in Service]
    return ["public", *of_services, *(databases if settings.database == "postgresql" else [])]


def _stream(settings: Settings, purpose: str) -> random.Random:
    """Returns a generator for one purpose, so that one more draw elsewhere does not shift it."""
    return random.Random(f"{settings.seed}|{purpose}")  # noqa: S311  It has to repeat itself.


def _draw_errands(settings: Settings) -> list[Errand]:
    chance = _stream(settings, "errands")
    shares = [kind for kind, share in _SHARES for _ in range(share)]
    chance.shuffle(shares)
    kinds = list(islice(cycle(shares), settings.jobs))
    moments = sorted(chance.uniform(0, settings.load_s) for _ in kinds)
    errands = []
    for number, (kind, at_s) in enumerate(zip(kinds, moments, strict=True)):
        model, resolution = chance.choice(MODELS)
        prompts = PROMPTS.get(kind, PROMPTS[Kind.PLAIN])
        errands.append(
            Errand(
                number,
                at_s,
                kind,
                POOR if kind is Kind.POOR else f"user-{chance.randrange(USERS)}",
                _id(chance),
                _id(chance),
                "i2v-14B" if kind is Kind.IMAGE else model,
                resolution,
                f"{chance.choice(prompts)}, number {number}",
                chance.uniform(0.1, 3.0),
            )
        )
    return errands


def _id(chance: random.Random) -> str:
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))


def _draw_troubles(settings: Settings) -> list[Trouble]:
    return [
        *_kills(settings),
        *_freezes(settings),
        *_networks(settings),
        *_provider(settings),
        *_deploys(settings),
    ]


def _moments(chance: random.Random, settings: Settings, count: int) -> list[float]:
    """Returns so many moments of the load, spread evenly but for some chance."""
    step = settings.load_s / max(count, 1)
    return [step * (number + chance.uniform(0.1, 0.9)) for number in range(count)]


def _kills(settings: Settings) -> list[Trouble]:
    chance = _stream(settings, "kills")
    # Generation has the most places to die at.
    usual = _shuffled(chance, [*Service, Service.GENERATION])
    services = list(islice(cycle(usual), settings.kills))
    points = {service: cycle(_shuffled(chance, FAILPOINTS[service])) for service in Service}
    found = []
    for number, at_s in enumerate(_moments(chance, settings, settings.kills)):
        service = services[number]
        replicas = 1 if service is Service.WEBHOOK else settings.replicas
        # Every other one, and with each round of the services the others.
        at_failpoint = (number + number // len(usual)) % 2 == 1
        found.append(
            Trouble(
                at_s,
                "failpoint" if at_failpoint else "kill",
                service.value,
                chance.randrange(replicas),
                chance.uniform(0.1, 2.0),
                next(points[service]) if at_failpoint else "",
            )
        )
    return found


def _freezes(settings: Settings) -> list[Trouble]:
    chance = _stream(settings, "freezes")
    count = max(2, settings.kills // 4)
    found = []
    for number, at_s in enumerate(_moments(chance, settings, count)):
        service = chance.choice(list(Service))
        replicas = 1 if service is Service.WEBHOOK else settings.replicas
        # One in two is longer than a lease, one in four than all of them, and it wakes up to find
        # its work done by others.
        lease_s = LONGEST_LEASE_S if number % 4 == 1 else LEASE_S
        lasts_s = lease_s + chance.uniform(1, 3) if number % 2 else chance.uniform(0.2, 1)
        found.append(Trouble(at_s, "freeze", service.value, chance.randrange(replicas), lasts_s))
    return found


def _networks(settings: Settings) -> list[Trouble]:
    chance = _stream(settings, "network")
    links = cycle(_shuffled(chance, links_of(settings)))
    modes = cycle(_shuffled(chance, [Mode.CUT, Mode.SLOW, Mode.SILENT]))
    return [
        Trouble(
            at_s, "network", lasts_s=chance.uniform(0.3, 3.0), link=next(links), mode=next(modes)
        )
        for at_s in _moments(chance, settings, max(4, settings.kills // 2))
    ]


def _provider(settings: Settings) -> list[Trouble]:
    chance = _stream(settings, "provider")
    count = max(2, round(settings.load_s / 20))
    weathers = cycle(_shuffled(chance, [Profile.FLAKY, Profile.STORM, Profile.OUTAGE]))
    found = [
        Trouble(at_s, "weather", profile=next(weathers).value, lasts_s=chance.uniform(2, 6))
        for at_s in _moments(chance, settings, count)
    ]
    kinds = cycle(_shuffled(chance, FAULTS))
    for at_s in _moments(chance, settings, settings.faults):
        fault = next(kinds)
        found.append(Trouble(at_s, "fault", fault=fault))
        if (
            fault["action"]["kind"] in ("create_then_drop", "malformed_json")
            and chance.random() < 0.5
        ):
            found.append(Trouble(at_s, "fault", fault=SILENCE))
    skews = cycle(_shuffled(chance, (-200.0, 200.0, -1000.0, 1000.0)))
    return found + [
        Trouble(at_s, "skew", skew_s=next(skews), lasts_s=chance.uniform(3, 8))
        for at_s in _moments(chance, settings, max(1, round(settings.load_s / 60)))
    ]


def _deploys(settings: Settings) -> list[Trouble]:
    chance = _stream(settings, "deploys")
    services = cycle(_shuffled(chance, list(Service)))
    found = [
        Trouble(at_s, "leave", next(services).value)
        for at_s in _moments(chance, settings, max(2, round(settings.load_s / 40)))
    ]
    if settings.database == "postgresql":
        count = max(1, round(settings.load_s / 60))
        found += [Trouble(at_s, "restart") for at_s in _moments(chance, settings, count)]
        found.append(Trouble(settings.load_s / 2, "join", Service.WEBHOOK.value, 1))
    return found


def _shuffled(chance: random.Random, values: Sequence[Any]) -> list[Any]:
    return chance.sample(list(values), len(values))
