"""`reelworks webhooks …`: what Replicate sent, and what became of it."""

import sys
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli.ledger import parse_age
from services.cli.lists import AllOption, LimitOption, Newest, page_size
from services.cli.options import (
    FailureExit,
    JsonOption,
    VarOption,
    certificates_of_operator,
    check_text,
    run,
)
from services.cli.output import Column, plain, print_error, print_json, print_line, print_table
from services.cli.up_file import service_address
from services.client.webhooks import (
    Event,
    EventFilter,
    EventState,
    ReplayedEvents,
    WebhookClient,
)

__all__ = ["application", "drop", "list_events", "parse_moment", "replay", "show"]

application = typer.Typer(help="Webhooks that Replicate sent.", no_args_is_help=True)

ADDRESS = "webhook_grpc"
DIGITS_MAX = 18
"""Of an event's number, as the service takes them."""
_EVENT_HELP = "Number that `list` shows, or Replicate's id (msg_…)."

_GenerationOption = Annotated[
    str, typer.Option("--generation", help="Only those about this generation.")
]
_SinceOption = Annotated[
    str,
    typer.Option(
        "--since", help="Only those that came since: 90s, 30m, 1h or 2d ago, or 2026-01-31T12:00Z."
    ),
]
_UntilOption = Annotated[
    str, typer.Option("--until", help="Only those that came before; likewise.")
]

_COLUMNS = (
    Column("EVENT", is_number=True),
    Column("RECEIVED (UTC)"),
    Column("STATE"),
    Column("ADDRESS"),
    Column("TRIES", is_number=True),
    Column("BYTES", is_number=True),
    Column("GENERATION"),
    Column("WEBHOOK"),
    Column("ANSWER", folds=True),
)
_STATES = tuple(state for state in EventState if state is not EventState.UNKNOWN)


@application.command("list")
def list_events(
    state: Annotated[
        str, typer.Option(help="Only those: pending, delivered, dead, or dropped.")
    ] = "",
    generation: _GenerationOption = "",
    webhook_id: Annotated[str, typer.Option(help="Only those with this id of Replicate's.")] = "",
    since: _SinceOption = "",
    until: _UntilOption = "",
    limit: LimitOption = 50,
    everything: AllOption = False,
    var: VarOption = Path("var"),
    as_json: JsonOption = False,
) -> None:
    """List webhooks, the last that came first.

    ADDRESS says whether the address proved generation and attempt: good, missing, or bad.

    With --json: a line for each, without body and headers.
    """
    wanted = None
    if state:
        wanted = next((known for known in _STATES if known == state.upper()), None)
        if wanted is None:
            names = ", ".join(known.lower() for known in _STATES)
            raise typer.BadParameter(f"{state} is none of {names}", param_hint="--state")
    chosen = EventFilter(
        webhook_ids=[webhook_id] if webhook_id else [],
        generation_id=generation,
        state=wanted,
        received_from=parse_moment(since, "--since"),
        received_before=parse_moment(until, "--until"),
    )
    shown = None if everything else limit
    run(_list(service_address(ADDRESS, var), chosen, shown, as_json=as_json))


@application.command()
def show(
    event: Annotated[str, typer.Argument(metavar="EVENT", help=_EVENT_HELP)],
    body_only: Annotated[
        bool, typer.Option("--body", help="Print the body alone, byte by byte.")
    ] = False,
    var: VarOption = Path("var"),
    as_json: JsonOption = False,
) -> None:
    """Show everything about a webhook: what came, and what became of it.

    With --json: one document; bytes of the body that are not UTF-8 are escaped in it.
    """
    found = run(_show(service_address(ADDRESS, var), event))
    if len(found) != 1:
        if found:
            print_error(f"{len(found)} events have the id {event}; show one by its number")
            _print_events(found)
        else:
            print_error(f"there is no webhook {event}")
        raise FailureExit
    if body_only:
        sys.stdout.buffer.write(found[0].body)
        sys.stdout.buffer.flush()
    elif as_json:
        print_json(_document(found[0], in_full=True))
    else:
        _print_event(found[0])


@application.command()
def replay(
    events: Annotated[list[str] | None, typer.Argument(metavar="EVENT", help=_EVENT_HELP)] = None,
    generation: _GenerationOption = "",
    since: _SinceOption = "",
    until: _UntilOption = "",
    dead: Annotated[bool, typer.Option("--dead", help="Only those that are dead.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be replayed.")
    ] = False,
    var: VarOption = Path("var"),
    as_json: JsonOption = False,
) -> None:
    """Have webhooks delivered to generation once more; it recognizes what it knows.

    Chosen are those that satisfy all that is given, at least one thing.

    With --json: one document {replayed_count, gone_count, events}; events are the first 100.
    """
    if not (events or generation or since or until or dead):
        raise typer.BadParameter("says which webhooks, or an option does", param_hint="EVENT")
    numbers, webhook_ids = _split(events or [])
    chosen = EventFilter(
        event_ids=numbers,
        webhook_ids=webhook_ids,
        generation_id=generation,
        state=EventState.DEAD if dead else None,
        received_from=parse_moment(since, "--since"),
        received_before=parse_moment(until, "--until"),
    )
    replayed = run(_replay(service_address(ADDRESS, var), chosen, dry_run=dry_run))
    if as_json:
        print_json(
            {
                "replayed_count": replayed.replayed_count,
                "gone_count": replayed.gone_count,
                "events": [_document(event, in_full=False) for event in replayed.events],
            }
        )
        return
    if replayed.events:
        _print_events(replayed.events)
    if replayed.replayed_count > len(replayed.events):
        print_line(f"and {replayed.replayed_count - len(replayed.events)} more")
    if replayed.gone_count:
        print_line(f"left as they are, since their bodies are gone: {replayed.gone_count}")
    done = "would be delivered once more" if dry_run else "are delivered once more"
    print_line(f"webhooks that {done}: {replayed.replayed_count}")


@application.command()
def drop(
    events: Annotated[list[str], typer.Argument(metavar="EVENT", help="Number that `list` shows.")],
    reason: Annotated[
        str, typer.Option("--reason", callback=check_text, help="Why, for those who look later.")
    ],
    var: VarOption = Path("var"),
    as_json: JsonOption = False,
) -> None:
    """Give webhooks up for good: they are never delivered again, and their bodies are gone.

    With --json: one document {dropped_count}.
    """
    _, others = _split(events)
    if others:
        raise typer.BadParameter(
            f"{others[0]} is no number of an event; `reelworks webhooks list` shows them",
            param_hint="EVENT",
        )
    dropped = run(_drop(service_address(ADDRESS, var), events, reason))
    if as_json:
        print_json({"dropped_count": dropped})
        return
    print_line(f"dropped: {dropped}")
    if dropped < len(set(events)):
        print_line(f"dropped before: {len(set(events)) - dropped}")


def parse_moment(text: str, option: str) -> datetime | None:
    """Returns the moment that `30m` ago or a time in ISO 8601 stands for; None for no text.

    A time without a zone is in UTC.
    """
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        # Near the ends of the calendar a time of another zone is none in UTC.
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return datetime.now(UTC) - parse_age(text, option)


def _split(events: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns numbers of events and ids of Replicate's, which are never numbers.

    Refuses numbers that no event can have.
    """
    numbers = [event for event in events if event.isascii() and event.isdigit()]
    for number in numbers:
        if len(number) > DIGITS_MAX or number.startswith("0"):
            raise typer.BadParameter(
                f"{number} is no number of an event: those have 1 to {DIGITS_MAX} digits, and the "
                "first is not 0",
                param_hint="EVENT",
            )
    return numbers, [event for event in events if event not in numbers]


def _print_events(events: Sequence[Event]) -> None:
    rows = [
        (
            event.event_id,
            event.received_at,
            event.state.lower(),
            event.query_verdict.lower(),
            event.tries,
            event.body_size_bytes,
            event.generation_id,
            event.webhook_id,
            event.drop_reason or event.last_error or event.disposition,
        )
        for event in events
    ]
    print_table(_COLUMNS, rows)


def _print_event(event: Event) -> None:
    """Prints each known fact about a webhook in a line, and at last its body."""
    for field in fields(event):
        value = getattr(event, field.name)
        if field.name not in ("body", "headers") and value not in (None, ""):
            print_line(f"{field.name.replace('_', ' '):<17} {plain(value)}")
    for name, value in event.headers:
        print_line(f"{'header':<17} {name}: {plain(value)}")
    if not event.body_gone:
        print_line()
        print_line(_legible(event.body))


def _legible(body: bytes) -> str:
    """Returns a body as text that does nothing to a terminal but show."""
    text = body.decode(errors="backslashreplace")
    return "".join(
        character if character.isprintable() or character in "\n\t" else ascii(character)[1:-1]
        for character in text
    )


def _document(event: Event, *, in_full: bool) -> dict[str, Any]:
    document = {
        field.name: getattr(event, field.name)
        for field in fields(event)
        if in_full or field.name not in ("body", "headers")
    }
    if in_full:
        document["body"] = event.body.decode(errors="backslashreplace")
    return document


async def _list(address: str, chosen: EventFilter, limit: int | None, *, as_json: bool) -> None:
    async with WebhookClient(address, certificates_of_operator()) as client:
        found = Newest(client.events(chosen, page_size(limit)), limit)
        if as_json:
            async for event in found:
                print_json(_document(event, in_full=False))
        else:
            _print_events([event async for event in found])
        found.note()


async def _show(address: str, event: str) -> Sequence[Event]:
    """Returns the one event that is meant, in full; or several of one id, without bodies."""
    numbers, webhook_ids = _split([event])
    async with WebhookClient(address, certificates_of_operator()) as client:
        if webhook_ids:
            page = await client.list_events(EventFilter(webhook_ids=webhook_ids))
            if len(page.events) != 1:
                return page.events
            numbers = [page.events[0].event_id]
        return [await client.get_event(numbers[0])]


async def _replay(address: str, chosen: EventFilter, *, dry_run: bool) -> ReplayedEvents:
    async with WebhookClient(address, certificates_of_operator()) as client:
        return await client.replay_events(chosen, dry_run=dry_run)


async def _drop(address: str, event_ids: Sequence[str], reason: str) -> int:
    async with WebhookClient(address, certificates_of_operator()) as client:
        return await client.drop_events(event_ids, reason)
