"""The operators' commands as they are typed, against a credits service that runs."""

import asyncio
import csv
import io
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.cli.statement import find_faults
from services.client.credits import CreditsClient
from services.runtime.errors import NotFound
from tests.integration.generation.credits_service import CreditsService, running_credits

NOTE = "to repeat this call, and not make another, add --request-id "


@dataclass(frozen=True)
class Result:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def documents(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class Desk:
    """An operator's terminal, beside the service."""

    service: CreditsService
    client: CreditsClient
    folder: Path

    async def run(self, *arguments: str) -> Result:
        """Runs `reelworks credits …`."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("REELWORKS_")}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.cli", "credits", *arguments,
            env=inherited
            | {
                "REELWORKS_VAR": str(self.folder / "var"),
                "REELWORKS_CREDITS_ADDRESS": self.service.address,
            },
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(40):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode is not None
        return Result(process.returncode, out.decode(), err.decode())

    async def json(self, *arguments: str) -> Any:
        """Runs a command that must succeed with one document."""
        result = await self.run(*arguments, "--json")
        assert result.code == 0, result.err
        (document,) = result.documents
        return document


@pytest.fixture
async def desk(tmp_path: Path, templates: dict[tuple[str, str], str]) -> AsyncIterator[Desk]:
    async with (
        running_credits(tmp_path, templates) as service,
        CreditsClient(service.address) as client,
    ):
        await service.open("ann")
        yield Desk(service, client, tmp_path)


async def test_an_adjustment_goes_up_and_down_and_its_printed_key_repeats_it(desk: Desk) -> None:
    up = await desk.run("adjust", "ann", "+50", "--reason", "an apology")
    key = up.err.removeprefix(NOTE).strip()
    again = await desk.run(
        "adjust", "ann", "+50", "--reason", "an apology", "--request-id", key, "--json"
    )
    down = await desk.json("adjust", "ann", "-30", "--reason", "too many", "--request-id", "k2")
    too_far = await desk.run("adjust", "ann", "-121", "--reason", "all of it")

    assert up.code == 0, up.err
    assert up.err.startswith(NOTE)
    assert uuid.UUID(key)
    assert "ann: 150 credits available, 0 reserved" in up.out.splitlines()
    assert again.documents[0]["replayed"]
    assert again.err == ""
    assert down["transaction"]["type"] == "ADJUSTMENT"
    assert down["transaction"]["description"] == "too many"
    assert down["transaction"]["request_id"] == "k2"
    assert down["balance"]["available_credits"] == 120
    assert too_far.code == 1
    assert "120" in too_far.err
    assert (await desk.client.get_balance("ann")).available_credits == 120


async def test_a_grant_without_an_answer_says_by_which_key_it_is_made_once(desk: Desk) -> None:
    grant = ("grant", "50", "--user", "ann")
    with desk.service.standing_still():
        unheard = await desk.run(*grant)
    key = unheard.err.splitlines()[0].removeprefix(NOTE)
    repeated = [await desk.run(*grant, "--request-id", key) for _ in range(2)]

    assert unheard.code == 1
    assert uuid.UUID(key)
    assert unheard.err.splitlines()[1] == (
        "error: Reelworks did not answer in time; whether credits moved is open: "
        f"repeat with --request-id {key}"
    )
    assert [one.code for one in repeated] == [0, 0]
    assert (await desk.client.get_balance("ann")).available_credits == 150


async def test_spent_credits_are_reimbursed_but_never_more_than_were_spent(desk: Desk) -> None:
    await desk.client.reserve("ann", "r1", 20)
    early = await desk.run("reimburse", "r1", "5", "--user", "ann", "--reason", "early")
    await desk.client.commit("ann", "r1")

    first = await desk.run("reimburse", "r1", "15", "--user", "ann", "--reason", "a blurred video")
    key = first.err.removeprefix(NOTE).strip()
    again = await desk.json(
        "reimburse", "r1", "15", "--user", "ann", "--reason", "again", "--request-id", key
    )
    more = await desk.run("reimburse", "r1", "6", "--user", "ann", "--reason", "greed")
    other = await desk.run(
        "reimburse", "r1", "1", "--user", "ann", "--reason", "x", "--request-id", key
    )

    assert early.code == 1
    assert "RESERVED" in early.err
    assert first.code == 0, first.err
    assert "15 of 20 spent credits are given back" in first.out.splitlines()
    assert "ann: 95 credits available, 0 reserved" in first.out.splitlines()
    assert again["replayed"]
    assert again["transaction"]["type"] == "REIMBURSEMENT"
    assert again["transaction"]["description"] == "a blurred video"
    assert again["reservation"]["reimbursed_credits"] == 15
    assert more.code == 1
    assert "Traceback" not in more.err
    assert other.code == 1
    assert "15" in other.err
    assert (await desk.client.get_balance("ann")).available_credits == 95


async def test_reservations_are_those_of_a_user_a_state_or_an_age(desk: Desk) -> None:
    await desk.service.open("bob")
    for user, name in (("ann", "a1"), ("bob", "b1"), ("ann", "a2"), ("ann", "a3")):
        await desk.client.reserve(user, name, 10, description=f"work {name}")
    await desk.client.commit("ann", "a1", 4)
    await desk.client.refund("ann", "a2")

    async def listed(*arguments: str) -> list[str]:
        result = await desk.run("reservations", *arguments, "--json")
        assert result.code == 0, result.err
        return [document["reservation_id"] for document in result.documents]

    assert await listed() == ["a3", "a2", "b1", "a1"]
    assert await listed("--limit", "2") == ["a3", "a2"]
    assert await listed("--all") == ["a3", "a2", "b1", "a1"]
    assert await listed("--user", "ann") == ["a3", "a2", "a1"]
    assert await listed("--state", "reserved") == ["a3", "b1"]
    assert await listed("--user", "ann", "--state", "committed") == ["a1"]
    assert await listed("--older-than", "1h") == []
    assert await listed("--older-than", "0s") == ["a3", "a2", "b1", "a1"]
    cut = await desk.run("reservations", "--limit", "3")
    assert len(cut.out.splitlines()) == 1 + 3
    assert cut.err == "there are more than 3: add --all, or a greater --limit\n"
    table = await desk.run("reservations", "--state", "committed", "--limit", "1")
    assert table.err == ""
    titles, row = table.out.splitlines()
    assert titles.split()[:2] == ["RESERVATION", "USER"]
    assert row.split()[:2] == ["a1", "ann"]
    assert row.endswith("work a1")


async def test_the_csv_is_the_whole_statement_and_sums_to_the_balance(desk: Desk) -> None:
    # More than one page of a thousand.
    names = [f"r{number}" for number in range(505)]
    for start in range(0, len(names), 100):
        some = names[start : start + 100]
        await asyncio.gather(*(desk.client.reserve("ann", name, 1) for name in some))
        await asyncio.gather(*(desk.client.refund("ann", name) for name in some))
    await desk.client.reserve("ann", "kept", 20)

    result, short, shown, whole, nobody = await asyncio.gather(
        desk.run("transactions", "--csv", "--user", "ann"),
        desk.run("transactions", "--csv", "--user", "ann", "--limit", "3"),
        desk.run("transactions", "--user", "ann", "--json"),
        desk.run("transactions", "--user", "ann", "--json", "--all"),
        desk.run("transactions", "--csv", "--user", "nobody"),
    )

    assert result.code == 0, result.err
    rows = list(csv.DictReader(io.StringIO(result.out)))
    assert list(rows[0])[:3] == ["id", "user_id", "amount"]
    assert [row["id"] for row in rows] == [f"ann:{version}" for version in range(1012, 0, -1)]
    assert sum(int(row["amount"]) for row in rows) == 80
    assert sum(int(row["reserved_change"]) for row in rows) == 20
    assert (rows[0]["generation_id"], rows[0]["type"]) == ("kept", "reservation")
    assert len(short.out.splitlines()) == 4
    assert len(shown.documents) == 50
    assert [len(found.err.splitlines()) for found in (result, short, shown)] == [0, 1, 1]
    assert [document["version"] for document in whole.documents] == list(range(1012, 0, -1))
    assert nobody.code == 1
    assert nobody.out == ""
    record = [transaction async for transaction in desk.client.transactions("ann", 1000)][::-1]
    assert find_faults(record, await desk.client.get_balance("ann")) == []
    since = [t.version async for t in desk.client.transactions("ann", 3, after_version=1005)]
    assert since == [1012, 1011, 1010, 1009, 1008, 1007, 1006]


async def test_verify_proves_a_good_ledger_and_names_what_is_wrong_in_a_bad_one(
    desk: Desk,
) -> None:
    await desk.service.open("bob")
    await desk.client.reserve("ann", "r1", 20)
    good = await desk.run("verify")
    proof = await desk.json("verify", "--user", "ann")

    desk.service.falsify("UPDATE accounts SET available = available - 1 WHERE user_id = 'ann'")
    bad = await desk.run("verify")
    bad_json = await desk.run("verify", "--json")
    others = await desk.run("verify", "--user", "bob")
    nobody = await desk.run("verify", "--user", "nobody")

    assert good.code == 0, good.err
    assert good.out == "all sums agree (accounts: 2, transactions: 3)\n"
    assert proof == {"accounts_checked": 1, "transactions_checked": 2, "violations": []}
    assert bad.code == 1
    assert bad.err == ""
    assert bad.out.startswith("violations: ")
    assert bad.out.splitlines()[1].split()[:2] == ["RULE", "USER"]
    assert bad_json.code == 1
    (document,) = bad_json.documents
    assert {v["user_id"] for v in document["violations"]} >= {"ann"}
    i1 = next(v for v in document["violations"] if v["invariant"] == "I1")
    assert "79" in i1["detail"]
    assert "80" in i1["detail"]
    assert others.code == 0, others.out
    assert (nobody.code, nobody.out) == (1, "")
    assert "nobody" in nobody.err


async def test_a_watched_balance_follows_what_others_do(desk: Desk) -> None:
    async with asyncio.timeout(20):
        balances = desk.client.watch_balance("ann")
        first = await anext(balances)
        await desk.client.reserve("ann", "r1", 20)
        second = await anext(balances)
        # The service leaves and comes back.
        await desk.service.stop()
        await desk.service.start()
        await desk.client.refund("ann", "r1")
        third = await anext(balances)
        await balances.aclose()

    assert [(b.version, b.available_credits) for b in (first, second, third)] == [
        (1, 100),
        (2, 80),
        (3, 100),
    ]


async def test_balances_are_brought_over_once_however_often_that_is_tried(desk: Desk) -> None:
    file = desk.folder / "balances.csv"
    file.write_text("user_id,credits\nann,7\nbea,100\ncid,0\ndot,250\n")
    await desk.client.reserve("ann", "r1", 95)

    halted = await desk.run("import", str(file), "--json")
    await desk.client.refund("ann", "r1")
    again = await desk.json("import", str(file))
    thrice = await desk.json("import", str(file))

    (first,) = halted.documents
    assert halted.code == 1
    assert (first["accounts"], first["were_there"]) == (3, 0)
    (failure,) = first["failures"]
    assert failure["user_id"] == "ann", "93 of her welcome credits are too many, and 5 are there"
    assert again == {"accounts": 4, "credits": 357, "were_there": 3, "failures": []}
    assert thrice == {"accounts": 4, "credits": 357, "were_there": 4, "failures": []}
    balances = [
        (await desk.client.get_balance(user)).available_credits
        for user in ("ann", "bea", "cid", "dot")
    ]
    assert balances == [7, 100, 0, 250]
    assert (await desk.run("verify")).code == 0


async def test_a_file_with_a_wrong_line_opens_no_account(desk: Desk) -> None:
    file = desk.folder / "balances.csv"
    file.write_text("user_id,credits\neva,5\nfay,-5\n")

    refused = await desk.run("import", str(file))

    assert refused.code == 2
    assert "line 3: credits must be a whole number, 0 or more" in refused.err
    assert (await desk.client.get_balance("eva")).available_credits == 0


async def test_a_user_that_cannot_be_opens_no_account_of_another(desk: Desk) -> None:
    file = desk.folder / "balances.csv"
    file.write_text("user_id,credits\neva,5\nbad user!,5\n" + "u" * 65 + ",5\n")

    refused = await desk.run("import", str(file))

    assert refused.code == 2
    assert "line 3: user_id must be" in refused.err
    assert "line 4: user_id must be" in refused.err
    with pytest.raises(NotFound):
        await anext(desk.client.transactions("eva"))


async def test_a_name_that_fits_no_key_opens_no_account(desk: Desk) -> None:
    file = desk.folder / "balances.csv"
    file.write_text("user_id,credits\neva,5\n")

    refused = [
        await desk.run("import", str(file), "--name", name) for name in ("n" * 28, "a b", "")
    ]

    assert [one.code for one in refused] == [2, 2, 2]
    assert "visible ASCII characters" in refused[0].err
    with pytest.raises(NotFound):
        await anext(desk.client.transactions("eva"))


async def test_a_user_with_the_longest_id_is_brought_over_once(desk: Desk) -> None:
    file = desk.folder / "balances.csv"
    user = "u" * 64
    file.write_text(f"user_id,credits\n{user},250\n")

    first = await desk.json("import", str(file), "--name", "n" * 27)
    again = await desk.json("import", str(file), "--name", "n" * 27)

    assert first == {"accounts": 1, "credits": 250, "were_there": 0, "failures": []}
    assert again == {"accounts": 1, "credits": 250, "were_there": 1, "failures": []}
    assert (await desk.client.get_balance(user)).available_credits == 250
