"""Keeps in a folder all that is known about a run after it, and reads it there again.

What the folder has, besides the clients' `journal.jsonl` and the stored files under `media`:
`tables/<service>.<table>.jsonl`, the three databases without what is kept as bytes;
`provider.json`, the truth of the simulator; `requests.jsonl`, all that it was asked; `run.json`,
what was to be kept, and what the ledger says of itself.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import av
from sqlalchemy import MetaData, Table, select
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import services.credits.tables
import services.generation.tables
import services.webhook.tables
from services.client.credits import CreditsClient
from services.runtime.database import Instant
from services.simulator.client import SimulatorControl
from services.simulator.judging.terms import Terms
from tests.chaos.evidence import DRIVERS, Call, Evidence, Limits, Made, Row, call_of, made_of
from tests.chaos.stack.journal import read_lines
from tests.chaos.stack.plan import Service

METADATA: Mapping[Service, MetaData] = {
    Service.CREDITS: services.credits.tables.metadata,
    Service.GENERATION: services.generation.tables.metadata,
    Service.WEBHOOK: services.webhook.tables.metadata,
}
SHARED_TITLE = "simulated"
Proofs = Iterator[tuple[str, str, str]]
"""Rule, generation and proof of each thing that a run did wrong."""
NOT_KEPT = frozenset({"body", "answer", "headers", "input", "schema"})
"""Large, and nothing is judged by them."""


@dataclass(frozen=True)
class Exhibits:
    """All that a judge of the whole stack is given."""

    evidence: Evidence
    """What the judge of generation alone is given, too."""
    accounts: Mapping[str, Row]
    reservations: Mapping[tuple[str, str], Row]
    """By user and reservation."""
    transactions: list[Row]
    inbox: list[Row]
    events: list[Row]
    """Of predictions, as generation has recorded them."""
    webhooks: list[dict[str, Any]]
    """Each attempt of the provider to deliver one, with the prediction that it was about."""
    told: list[dict[str, Any]]
    """What clients were told, in order."""
    noted: list[dict[str, Any]]
    """What else is in the journal."""
    titles: Mapping[str, str] = field(default_factory=dict)
    """What stored videos say of themselves, by key: the prediction that made them; `` if none."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Of stored files, by key."""
    provider_violations: list[dict[str, Any]] = field(default_factory=list)
    """What the provider itself has against us: `rule`, `group`, `proof` and `predictions`."""
    provider_missing: Mapping[str, int] = field(default_factory=dict)
    """How much of each kind the provider has forgotten, and cannot tell of."""

    @cached_property
    def plan(self) -> Mapping[str, Any] | None:
        """What was to be done; None if the journal does not say."""
        plans: list[dict[str, Any]] = [one["plan"] for one in self.noted if one["kind"] == "plan"]
        return plans[0] if plans else None

    @cached_property
    def errands(self) -> Mapping[str, Mapping[str, Any]]:
        """What people were to do, by each generation that they were to ask for."""
        errands = [] if self.plan is None else self.plan["errands"]
        return {one[name]: one for one in errands for name in ("generation_id", "other_id")}


async def keep(
    folder: Path,
    databases: Mapping[Service, str],
    simulator: SimulatorControl,
    credits_: CreditsClient,
    limits: Limits,
    terms: Terms,
) -> None:
    """Writes what is known into the folder; `terms` are what the provider judges us by."""
    tables = folder / "tables"
    tables.mkdir()
    for service, url in databases.items():
        await _keep_tables(tables, service, url)
    provider = {
        "predictions": await simulator.predictions(),
        "firings": [asdict(firing) for firing in await simulator.firings()],
        "ledger": asdict(await simulator.ledger()),
        "verdict": asdict(await simulator.violations(terms)),
    }
    with (folder / "requests.jsonl").open("w") as file:
        for request in await simulator.requests():
            file.write(json.dumps(request) + "\n")
    (folder / "provider.json").write_text(json.dumps(provider, default=str))
    report = await credits_.verify_ledger()
    run = {
        "read_at": datetime.now(UTC).isoformat(),
        "limits": asdict(limits),
        "ledger_violations": [str(one) for one in report.violations],
    }
    (folder / "run.json").write_text(json.dumps(run))


async def _keep_tables(folder: Path, service: Service, url: str) -> None:
    parsed = make_url(url)
    engine = create_async_engine(
        parsed.set(drivername=DRIVERS[parsed.get_backend_name()]), poolclass=NullPool
    )
    async with engine.connect() as connection:
        for table in METADATA[service].tables.values():
            columns = [column for column in table.columns if column.name not in NOT_KEPT]
            query = select(*columns).order_by(*table.primary_key.columns)
            rows = (await connection.execute(query)).mappings().all()
            path = folder / f"{service}.{table.name}.jsonl"
            path.write_text("".join(json.dumps(dict(row), default=_plain) + "\n" for row in rows))
    await engine.dispose()


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def read(folder: Path) -> Exhibits:
    """Returns what a folder holds."""
    run = json.loads((folder / "run.json").read_text())
    provider = json.loads((folder / "provider.json").read_text())
    names = ("accounts", "reservations", "transactions")
    accounts, reservations, transactions = (_rows(folder, Service.CREDITS, name) for name in names)
    keys = {row["output_key"] for row in _rows(folder, Service.GENERATION, "generations")}
    files = dict(_files(folder / "media"))
    videos = {key: path for key, path in files.items() if key in keys}
    lines = list(read_lines(folder / "journal.jsonl"))
    return Exhibits(
        evidence=_evidence(folder, run, provider, reservations, files),
        accounts={row["user_id"]: row for row in accounts},
        reservations={(row["user_id"], row["reservation_id"]): row for row in reservations},
        transactions=transactions,
        inbox=_rows(folder, Service.WEBHOOK, "inbox"),
        events=_rows(folder, Service.GENERATION, "prediction_events"),
        webhooks=[
            attempt | {"job_id": one["id"]}
            for one in provider["predictions"]
            for attempt in one["attempts"]
        ],
        told=[line for line in lines if line["kind"] == "told"],
        noted=[line for line in lines if line["kind"] != "told"],
        titles={key: title_of(path) for key, path in videos.items()},
        digests={key: _digest(path) for key, path in videos.items()},
        provider_violations=list(provider["verdict"]["violations"]),
        provider_missing={
            "predictions": provider["verdict"]["missing_predictions"],
            "requests": provider["verdict"]["missing_requests"],
            "charges": provider["ledger"]["missing"],
        },
    )


def _evidence(
    folder: Path,
    run: Mapping[str, Any],
    provider: Mapping[str, Any],
    reservations: list[Row],
    files: Mapping[str, Path],
) -> Evidence:
    generations = _rows(folder, Service.GENERATION, "generations")
    known = {row["generation_id"] for row in generations}
    made: list[Made] = [made_of(one) for one in provider["predictions"]]
    calls: list[Call] = [call_of(one) for one in read_lines(folder / "requests.jsonl")]
    return Evidence(
        read_at=datetime.fromisoformat(run["read_at"]),
        limits=Limits(**run["limits"]),
        generations={row["generation_id"]: row for row in generations},
        attempts=_rows(folder, Service.GENERATION, "attempts"),
        predictions=_rows(folder, Service.GENERATION, "predictions"),
        transitions=_rows(folder, Service.GENERATION, "transitions"),
        made=made,
        calls=calls,
        reservations={
            row["reservation_id"]: (row["state"], row["committed"])
            for row in reservations
            if row["reservation_id"] in known
        },
        ledger_violations=run["ledger_violations"],
        file_sizes={key: path.stat().st_size for key, path in files.items()},
    )


def _rows(folder: Path, service: Service, name: str) -> list[Row]:
    table = METADATA[service].tables[name]
    moments = _moments(table)
    return [
        {
            column: datetime.fromisoformat(value) if value and column in moments else value
            for column, value in line.items()
        }
        for line in read_lines(folder / "tables" / f"{service}.{name}.jsonl")
    ]


def _moments(table: Table) -> frozenset[str]:
    return frozenset(column.name for column in table.columns if isinstance(column.type, Instant))


def _files(media: Path) -> Iterator[tuple[str, Path]]:
    for path in media.rglob("*"):
        if path.is_file():
            yield str(path.relative_to(media)), path


def title_of(path: Path) -> str:
    """Returns which prediction a video says it is of, if it plays to its end; else nothing.

    It says so in its title; a copy of a drawing that many share, in a box at its end.
    """
    try:
        with av.open(str(path)) as container:
            frames = sum(1 for _ in container.decode(video=0))
            title = container.metadata.get("title", "")
    except (av.FFmpegError, OSError, IndexError):
        return ""
    if title == SHARED_TITLE:
        mark = path.read_bytes().rpartition(b"free")[2]
        title = mark.partition(b"\n")[0].decode(errors="replace")
    return title if frames else ""


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
