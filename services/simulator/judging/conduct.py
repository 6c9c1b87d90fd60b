"""The rules about requests: where the token goes, what a create must carry, limits and manners."""

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from urllib.parse import parse_qs, urlsplit

from services.simulator.entries import Entry
from services.simulator.judging.case import Case, Violation, provider_time

__all__ = [
    "asked_well",
    "kept_limits",
    "kept_the_token",
    "let_the_ended_rest",
    "polled_moderately",
]

WINDOW_S = 60.0
SECRET_ROUTE = "/v1/webhooks/default/secret"  # noqa: S105 - the route of one.
SLACK = 1e-6


def kept_the_token(case: Case) -> Iterator[Violation]:
    """Rule 5: the file host saw the token only after it had asked for it, and no other host did."""
    refused: dict[str, float] = {}
    for entry in case.entries:
        if entry.listener != "delivery":
            continue
        asked_at = refused.get(entry.route)
        if entry.shows_token and (asked_at is None or asked_at > entry.begun_at):
            proof = f"{entry.method} {entry.route} carried the token to the file host unasked"
            made = (entry.prediction,) if entry.prediction else ()
            yield Violation(5, entry.generation or "", proof, made, (entry.number,))
        if entry.status in (401, 403):
            refused[entry.route] = min(entry.at, refused.get(entry.route, entry.at))


def asked_well(case: Case) -> Iterator[Violation]:
    """Rule 6: nothing undocumented is called, nothing waited for, and every create is complete."""
    for entry in case.entries:
        if entry.listener != "api":
            continue
        lacks = list(_faults_of_call(entry))
        # Whoever died between head and body of a create never said what it asks for.
        was_cut = entry.asked is None and entry.status is None
        if entry.is_create and not was_cut and entry.number not in case.others:
            lacks += _lacks_of_create(case, entry)
        for lack in lacks:
            proof = f"{entry.method} {entry.route} {lack}"
            yield Violation(6, _group(entry), proof, _made(entry), (entry.number,))


def kept_limits(case: Case) -> Iterator[Violation]:
    """Rule 7: after a 429 no create comes before its delay, and no limit is passed."""
    terms = case.terms
    for account, entries in _by_account(case).items():
        creates = [one for one in entries if one.is_create]
        yield from _waited_after_throttle(case, account, creates)
        burst = terms.creates_burst or terms.creates_per_minute
        yield from _stayed_below(account, creates, "creates", terms.creates_per_minute, burst)
        others = [one for one in entries if not one.is_create]
        per_minute = terms.calls_per_minute
        yield from _stayed_below(account, others, "other calls", per_minute, per_minute)


def polled_moderately(case: Case) -> Iterator[Violation]:
    """Rule 8: in no minute more than a share of the limit was spent on reads and lists."""
    most = int(case.terms.calls_per_minute * case.terms.polling_share_max)
    for account, entries in _by_account(case).items():
        worst: tuple[Entry, ...] = ()
        window: deque[Entry] = deque()
        for entry in entries:
            if entry.method != "GET" or not entry.route.startswith("/v1/predictions"):
                continue
            window.append(entry)
            while window[0].begun_at <= entry.begun_at - WINDOW_S:
                window.popleft()
            if len(window) > max(most, len(worst)):
                worst = tuple(window)
        if worst:
            proof = f"{account} polled {len(worst)} times within a minute, {most} are allowed"
            yield Violation(8, "", proof, (), (worst[0].number, worst[-1].number))


def let_the_ended_rest(case: Case) -> Iterator[Violation]:
    """Rule 9: nothing was read more than twice after it had ended; lost answers do not count."""
    most = case.terms.polls_after_end_max
    for prediction_id, reads in case.reads.items():
        one = case.everything.get(prediction_id)
        if one is None or one.completed_at is None:
            continue
        late = [
            entry
            for entry in reads
            if entry.status == 200
            and entry.fault is None
            and provider_time(entry) > one.completed_at
        ]
        if len(late) > most:
            proof = f"{one.id} was read {len(late)} times after it was {one.status}"
            numbers = tuple(entry.number for entry in late)
            yield Violation(9, one.group, proof, (one.id,), numbers)


def _faults_of_call(entry: Entry) -> Iterator[str]:
    of_webhooks = entry.route == "/v1/webhooks" or entry.route.startswith("/v1/webhooks/")
    if of_webhooks and entry.route != SECRET_ROUTE:
        yield "calls what Replicate does not have"
    if entry.header("prefer") is not None:
        yield "has a Prefer header"


def _lacks_of_create(case: Case, entry: Entry) -> Iterator[str]:
    terms, asked = case.terms, entry.asked
    if entry.header("cancel-after") is None:
        yield "has no Cancel-After"
    if asked is None or asked.seed is None:
        yield "has no explicit seed"
    if asked is None or asked.webhook is None:
        if terms.webhook_address is not None:
            yield "has no webhook"
    elif not _has_proof(asked.webhook, terms.proof_parameter):
        yield f"has a webhook without {terms.proof_parameter!r} in its query"


def _has_proof(webhook: str, parameter: str) -> bool:
    try:
        return bool(parse_qs(urlsplit(webhook).query).get(parameter))
    except ValueError:
        return False


def _waited_after_throttle(
    case: Case, account: str, creates: Sequence[Entry]
) -> Iterator[Violation]:
    terms = case.terms
    for throttled in creates:
        if throttled.status != 429 or throttled.retry_after_s is None:
            continue
        delay_s = min(throttled.retry_after_s, terms.delay_s_max)
        since, until = throttled.at + terms.reaction_s, throttled.at + delay_s
        early = [one for one in creates if since < one.begun_at < until]
        if early:
            after_s = early[0].begun_at - throttled.at
            proof = (
                f"{account} was told to wait {delay_s:g} s, and {len(early)} creates came earlier,"
                f" the first after {after_s:.3f} s"
            )
            numbers = (throttled.number, *(one.number for one in early))
            yield Violation(7, _group(early[0]), proof, (), numbers)


def _stayed_below(
    account: str, entries: Sequence[Entry], what: str, per_minute: int, burst: int
) -> Iterator[Violation]:
    """Yields one violation if `entries` pass a bucket that holds `burst` and fills evenly."""
    left, at = float(burst), 0.0
    over: list[Entry] = []
    for entry in entries:
        left = min(burst, left + (entry.begun_at - at) * per_minute / 60)
        at = entry.begun_at
        if left >= 1 - SLACK:
            left -= 1
        else:
            over.append(entry)
    if over:
        proof = f"{account} sent {len(over)} {what} above {per_minute} a minute, {burst} at once"
        numbers = tuple(one.number for one in over[:10])
        yield Violation(7, _group(over[0]), proof, (), numbers)


def _by_account(case: Case) -> dict[str, list[Entry]]:
    accounts: dict[str, list[Entry]] = defaultdict(list)
    for entry in case.entries:
        if entry.listener == "api" and entry.account is not None:
            accounts[entry.account].append(entry)
    return accounts


def _group(entry: Entry) -> str:
    return entry.asked.group if entry.asked is not None else entry.generation or ""


def _made(entry: Entry) -> tuple[str, ...]:
    return () if entry.prediction is None else (entry.prediction,)
