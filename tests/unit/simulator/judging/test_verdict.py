"""Each rule: a planted breach is found by it alone, and a clean history by none."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from services.simulator.entries import Asked, Entry
from services.simulator.judging.case import Truth
from services.simulator.judging.terms import Terms
from services.simulator.judging.verdict import Verdict, judge
from services.simulator.ledger import charge_of
from services.simulator.plan import Ending, Plan
from services.simulator.prediction import Attempt, Fetch, Prediction, Status, with_fetch
from services.simulator.registry import Price

PRICE = Price("video", 200_000)
OUR_HOOK = "https://ours.example/hook?g={}&a=1&k=proof"
OTHER_HOOK = "https://theirs.example/hook?g=g9&a=1&k=proof"
RETENTION_S = 100.0


def prediction(
    name: str = "p1",
    status: Status = Status.SUCCEEDED,
    *,
    group: str = "g1",
    created_at: float = 10.0,
    ended_at: float | None = 20.0,
    fetched: bool | None = None,
    told: bool = True,
    **more: Any,
) -> Prediction:
    """Returns a prediction; a succeeded one was fetched whole, unless it is said otherwise."""
    over = status not in (Status.STARTING, Status.PROCESSING)
    output = more.pop("output", None)
    plan = Plan(name, 1, 5, Ending.SUCCESS, silent=False, seed=1, jitter_s=0, output=output)
    made = Prediction(
        **{
            "id": name,
            "account": "one",
            "number": 1,
            "model": "owner/name",
            "version_id": "v",
            "shown_version": "hidden",
            "input": {},
            "request": "",
            "prefer": None,
            "webhook": OUR_HOOK.format(group),
            "events": frozenset(),
            "created_at": created_at,
            "deadline": None,
            "plan": plan,
            "group": group,
            "status": status,
            "started_at": created_at + 1,
            "completed_at": ended_at if over else None,
            "predict_s": 5.0 if over else None,
            "attempts": (Attempt("start", "msg_1", created_at + 1, 200, None),) if told else (),
            **more,
        }
    )
    if fetched if fetched is not None else status is Status.SUCCEEDED:
        made = with_fetch(made, fetch(ended_at or 0.0))
    return made


def fetch(at: float, fault: str | None = None, first: int = 0, end: int = 500) -> Fetch:
    end = 0 if fault else end
    return Fetch(at, at + 1, 200, first, end, 500, is_whole=not fault and end == 500, fault=fault)


NUMBERS = iter(range(1, 1_000_000))


def entry(method: str, path: str, begun_at: float, **more: Any) -> Entry:
    return Entry(
        **{
            "number": next(NUMBERS),
            "begun_at": begun_at,
            "at": begun_at + 0.1,
            "jumped_s": 0.0,
            "listener": "api",
            "method": method,
            "path": path,
            "headers": (("Authorization", "Bearer …ator"), ("Cancel-After", "300")),
            "status": 200,
            "content_type": "application/json",
            "retry_after_s": None,
            "account": "one",
            "generation": None,
            "prediction": None,
            "fault": None,
            **more,
        }
    )


def create(at: float, made: str | None = "p1", group: str = "g1", **more: Any) -> Entry:
    asked = more.pop("asked", Asked(group, 7, OUR_HOOK.format(group)))
    path = "/v1/models/owner/name/predictions"
    return entry("POST", path, at, **{"status": 201, "prediction": made, "asked": asked, **more})


def read(at: float, name: str = "p1", **more: Any) -> Entry:
    return entry("GET", f"/v1/predictions/{name}", at, **{"prediction": name, **more})


def cancel(at: float, name: str = "p1", **more: Any) -> Entry:
    return entry("POST", f"/v1/predictions/{name}/cancel", at, **{"prediction": name, **more})


def file(at: float, name: str = "p1", **more: Any) -> Entry:
    defaults = {"listener": "delivery", "headers": (), "prediction": name}
    return entry("GET", f"/xezq/{name}/output.mp4", at, **{**defaults, **more})


def verdict(
    predictions: Sequence[Prediction], entries: Sequence[Entry], now: float = 1000.0, **terms: Any
) -> Verdict:
    charges = {one.id: charge_of(one, PRICE, 1, False, False) for one in predictions}
    truth = Truth(predictions, entries, charges, now, RETENTION_S)
    return judge(truth, Terms(**terms))


def broken(found: Verdict) -> list[int]:
    return sorted({one.rule for one in found.violations})


LOST: dict[str, Any] = {"status": None, "fault": "create_then_drop"}
CLEAN: dict[str, tuple[list[Prediction], list[Entry]]] = {
    "nothing": ([], []),
    "a video": ([prediction()], [create(10), read(15), file(20)]),
    "a second attempt after one that failed": (
        [
            prediction("p1", Status.FAILED, ended_at=12),
            prediction("p2", created_at=13),
        ],
        [create(10), read(12.5), create(13, "p2"), file(20, "p2")],
    ),
    "a second attempt after one without a usable output": (
        [
            prediction("p1", output="null", fetched=False, ended_at=12),
            prediction("p2", created_at=13),
        ],
        [create(10), create(13, "p2")],
    ),
    "a lost create that made nothing, repeated after its grace": (
        [prediction(created_at=40)],
        [create(10, None, **LOST), create(40)],
    ),
    "a lost create that failed, which a webhook told": (
        [prediction("p1", Status.FAILED, ended_at=12), prediction("p2", created_at=13)],
        [create(10, **LOST), create(13, "p2")],
    ),
    "a create whose sender died before its body": (
        [prediction(created_at=40)],
        [create(10, None, status=None, asked=None), create(40)],
    ),
    "a refused create, repeated at once": (
        [prediction(created_at=11)],
        [create(10, None, status=422), create(10.5)],
    ),
    "an orphan that was canceled": (
        [
            prediction("p1", Status.CANCELED, ended_at=45),
            prediction("p2", created_at=40),
        ],
        [create(10, **LOST), create(40, "p2"), cancel(44)],
    ),
    "an orphan that came late and ended unnoticed": (
        [
            prediction("p1", Status.SUCCEEDED, created_at=50, fetched=False, told=False),
            prediction("p2", created_at=40),
        ],
        [create(10, **LOST), create(40, "p2")],
    ),
    "a canceled job that had succeeded": (
        [prediction(fetched=False)],
        [create(10), cancel(19)],
    ),
    "a file in two parts": (
        [with_fetch(with_fetch(prediction(fetched=False), fetch(21, end=300)),
                    fetch(22, first=300))],
        [create(10)],
    ),
    "a file that nobody could have fetched": (
        [replace(prediction(fetched=False), fetches=(fetch(21, "truncate"),) * 3)],
        [create(10)],
    ),
    "a file that was taken away": (
        [replace(prediction(fetched=False), fetches=(fetch(21, "expire_now"),))],
        [create(10)],
    ),
    "the token, after the file host had asked for it": (
        [prediction()],
        [
            create(10),
            file(20, status=401),
            file(21, headers=(("Authorization", "Bearer …ator"),)),
        ],
    ),
    "the secret": ([], [entry("GET", "/v1/webhooks/default/secret", 1)]),
    "a create after the delay of a 429": (
        [prediction(created_at=20)],
        [create(10, None, status=429, retry_after_s=5), create(15.2)],
    ),
    "a create that was on its way when the 429 came": (
        [prediction(created_at=20)],
        [create(10, None, status=429, retry_after_s=5), create(10.5, group="g2")],
    ),
    "reads after the end of which two were answered": (
        [prediction()],
        [create(10), *(read(30 + n) for n in range(2)), read(33, status=503), read(34, fault="x")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("history", CLEAN)
def test_a_clean_history_breaks_no_rule(history: str) -> None:
    found = verdict(*CLEAN[history])

    assert found.violations == ()


BREACHES: dict[str, tuple[list[int], list[Prediction], list[Entry]]] = {
    "a blind repetition": (
        [1, 2, 4],
        [prediction("p1", fetched=False), prediction("p2", created_at=12)],
        [create(10, **LOST), create(12, "p2")],
    ),
    "a blind repetition of which nobody heard": (
        [1, 2],
        [prediction("p1", fetched=False, told=False), prediction("p2", created_at=12)],
        [create(10, **LOST), create(12, "p2")],
    ),
    "two videos, both answered for": (
        [1, 4],
        [prediction("p1"), prediction("p2", created_at=12)],
        [create(10), create(12, "p2")],
    ),
    "a prediction left alive": (
        [1],
        [prediction("p1", Status.PROCESSING, ended_at=None)],
        [create(10)],
    ),
    "a repetition within the grace of a create that made nothing": (
        [2],
        [prediction(created_at=36)],
        [create(10, None, **LOST), create(36)],
    ),
    "a repetition after a page of HTML": (
        [2],
        [prediction(created_at=12)],
        [create(10, None, status=403, content_type="text/html"), create(12)],
    ),
    "a repetition after an answer that could not be read": (
        [1, 2, 4],
        [prediction("p1", fetched=False), prediction("p2", created_at=12)],
        [create(10, fault="malformed_json"), create(12, "p2")],
    ),
    "a repetition while the first is open": (
        [2],
        [prediction("p2", created_at=12)],
        [replace(create(10, None, status=422), at=15.0), create(12, "p2")],
    ),
    "a repetition after a failure of which nobody can know": (
        [2],
        [prediction("p1", Status.FAILED, ended_at=11, told=False), prediction("p2", created_at=12)],
        [create(10, **LOST), create(12, "p2")],
    ),
    "a video that nobody fetched": ([3], [prediction(fetched=False)], [create(10), read(15)]),
    "a video that was fetched too late": (
        [3],
        [with_fetch(prediction(fetched=False), fetch(20 + RETENTION_S))],
        [create(10)],
    ),
    "a video of which a part was fetched": (
        [3],
        [with_fetch(prediction(fetched=False), fetch(21, first=1))],
        [create(10)],
    ),
    "a video that was given up after one spoiled fetch": (
        [3],
        [replace(prediction(fetched=False), fetches=(fetch(21, "truncate"),))],
        [create(10)],
    ),
    "an orphan that nobody canceled": (
        [1, 4],
        [prediction("p1", Status.CANCELED, ended_at=45), prediction("p2", created_at=40)],
        [create(10, **LOST), create(40, "p2")],
    ),
    "a cancel of another account's prediction": (
        [4],
        [prediction(account="two")],
        [create(10, account="two"), cancel(15, account="one", prediction=None, status=404)],
    ),
    "the token at the file host": (
        [5],
        [prediction()],
        [create(10), file(20, headers=(("authorization", "Bearer …ator"),))],
    ),
    "the token on another path than the one that was refused": (
        [5],
        [prediction()],
        [
            create(10),
            file(20, "p2", status=401),
            file(21, headers=(("Authorization", "Bearer …ator"),)),
        ],
    ),
    "a followed page of another host": (
        [5],
        [],
        [entry("GET", "/v1/predictions?cursor=x", 5, listener="delivery", status=404)],
    ),
    "a registered webhook": ([6], [], [entry("POST", "/v1/webhooks", 1, status=404)]),
    "a wish to wait": ([6], [prediction()], [create(10, headers=(("prefer", "wait"),
                                                                 ("cancel-after", "9")))]),
    "no deadline": ([6], [prediction()], [create(10, headers=())]),
    "no seed": ([6], [prediction()], [create(10, asked=Asked("g1", None, OUR_HOOK.format("g1")))]),
    "no proof in the query": (
        [6],
        [prediction()],
        [create(10, asked=Asked("g1", 7, "https://ours.example/hook?g=g1&a=1"))],
    ),
    "a create before the delay of a 429": (
        [7],
        [prediction(created_at=13)],
        [create(10, None, group="g2", status=429, retry_after_s=30), create(13)],
    ),
    "more creates than a minute has": (
        [7],
        [],
        [create(10 + n / 100, None, group=f"g{n}", status=422) for n in range(700)],
    ),
    "more reads than a minute has, and than polling may": (
        [7, 8],
        [],
        [read(10 + n / 1000, status=404) for n in range(3200)],
    ),
    "too much polling": ([8], [], [read(10 + n / 100, status=404) for n in range(751)]),
    "reads of what has long ended": (
        [9],
        [prediction()],
        [create(10), *(read(30 + n) for n in range(3))],
    ),
}  # fmt: skip


@pytest.mark.parametrize("history", BREACHES)
def test_a_planted_breach_is_found(history: str) -> None:
    rules, predictions, entries = BREACHES[history]

    found = verdict(predictions, entries)

    assert broken(found) == rules, [one.proof for one in found.violations]
    numbers, names = {one.number for one in entries}, {one.id for one in predictions}
    for one in found.violations:
        assert one.proof
        assert one.requests, "each violation names the requests that prove it"
        assert set(one.requests) <= numbers
        assert set(one.predictions) <= names | {"p1"}


def test_every_rule_bites_in_some_history() -> None:
    assert {rule for rules, _, _ in BREACHES.values() for rule in rules} == set(range(1, 10))


def test_an_orphan_is_listed_with_its_cost() -> None:
    predictions, entries = CLEAN["an orphan that was canceled"]

    (orphan,) = verdict(predictions, entries).orphans

    # It ran for five seconds.
    assert (orphan.prediction, orphan.micro_usd, orphan.was_canceled) == ("p1", 5 * 1525, True)


def test_what_is_told_to_be_adopted_is_what_counts() -> None:
    predictions = [
        prediction("p1"), prediction("p2", Status.CANCELED, created_at=40, ended_at=45),
    ]  # fmt: skip
    entries = [create(10, **LOST), create(40, "p2"), cancel(44, "p2")]

    assert broken(verdict(predictions, entries)) == []
    assert broken(verdict(predictions, entries, adopted=("p1",))) == []
    # It used what it canceled, and left what it did not.
    assert broken(verdict(predictions, entries, adopted=("p2",))) == [1, 4]
    # It used none of them.
    assert broken(verdict(predictions, entries, adopted=())) == [1, 4]


def test_a_run_that_goes_on_may_still_make_up_for_it() -> None:
    alive = ([prediction("p1", Status.PROCESSING, ended_at=None)], [create(10)])
    unfetched = ([prediction(fetched=False)], [create(10)])

    assert broken(verdict(*alive, is_over=False)) == []
    assert broken(verdict(*unfetched, now=50, is_over=False)) == []
    assert broken(verdict(*unfetched, now=50)) == [3]
    assert broken(verdict(*unfetched, now=20 + RETENTION_S, is_over=False)) == [3]


def test_other_environments_are_left_alone() -> None:
    ours, theirs = prediction(), prediction("p9", group="g9", webhook=OTHER_HOOK, fetched=False)
    foreign = create(12, "p9", asked=Asked("g9", None, OTHER_HOOK), headers=())
    here = "https://ours.example/"

    def found(*entries: Entry, **terms: Any) -> list[int]:
        return broken(verdict([ours, theirs], [create(10), foreign, *entries], **terms))

    assert found() == [3, 6]
    assert found(webhook_address=here) == []
    assert found(cancel(15, "p9"), webhook_address=here) == [4]
    bare = create(30, None, asked=Asked("seed 7", 7, None))
    assert broken(verdict([], [bare])) == []
    assert broken(verdict([], [bare], webhook_address=here)) == [6]


def test_one_account_can_be_judged_alone() -> None:
    entries = [create(10, account="two", headers=())]
    predictions = [prediction(account="two", fetched=False)]

    assert broken(verdict(predictions, entries)) == [3, 6]
    assert broken(verdict(predictions, entries, account="one")) == []
    assert broken(verdict(predictions, entries, account="two")) == [3, 6]


@pytest.mark.parametrize(
    ("history", "terms"),
    [
        ("a repetition within the grace of a create that made nothing", {"grace_s": 26}),
        ("a create before the delay of a 429", {"delay_s_max": 2}),
        ("a create before the delay of a 429", {"reaction_s": 3}),
        ("more creates than a minute has", {"creates_per_minute": 700}),
        ("more creates than a minute has", {"creates_burst": 700}),
        ("too much polling", {"polling_share_max": 0.26}),
        ("reads of what has long ended", {"polls_after_end_max": 3}),
        ("a video that was given up after one spoiled fetch", {"fetch_tries_min": 1}),
        ("no proof in the query", {"proof_parameter": "a"}),
    ],
)
def test_the_terms_decide_what_is_a_breach(history: str, terms: dict[str, Any]) -> None:
    _, predictions, entries = BREACHES[history]

    assert broken(verdict(predictions, entries, **terms)) == []


def test_narrow_limits_of_creates_are_watched_too() -> None:
    entries = [create(10 + n, None, group=f"g{n}", status=422) for n in range(3)]

    assert broken(verdict([], entries, creates_per_minute=60, creates_burst=1)) == []
    assert broken(verdict([], entries, creates_per_minute=6, creates_burst=1)) == [7]


def test_a_jump_of_the_provider_does_not_blur_what_came_first() -> None:
    # The prediction ended at 20 by a clock that has been set forward by an hour since.
    before = [read(15 + n / 10) for n in range(5)]
    after = [read(15 + n / 10, jumped_s=3600.0) for n in range(5)]

    assert broken(verdict([prediction()], [create(10), *before])) == []
    assert broken(verdict([prediction()], [create(10), *after])) == [9]


@pytest.mark.parametrize(
    ("terms", "field"),
    [({"grace_s": -1}, "grace_s"), ({"color": "red"}, "color"), ({"creates_burst": 0},
                                                                 "creates_burst")],
)  # fmt: skip
def test_senseless_terms_are_refused(terms: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Terms.model_validate(terms)

    assert [one["loc"] for one in caught.value.errors()] == [(field,)]
