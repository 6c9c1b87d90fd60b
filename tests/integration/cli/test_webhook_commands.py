"""The operators' commands for webhooks as they are typed, against a service that runs."""

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from services.cli.public_address import examine
from services.runtime.migrations import migrate
from services.webhook.ingress import WEBHOOK_PATH
from tests.contract.webhook.harness import (
    DEAD_BODY,
    GOOD_BODY,
    State,
    Webhooks,
    running_webhooks,
)
from tests.integration.webhook.harness import SECRET, eventually, good_query

# A command takes seconds where much else runs.
pytestmark = pytest.mark.timeout(300)


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

    webhooks: Webhooks
    folder: Path
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))

    @property
    def url(self) -> str:
        return f"http://{self.webhooks.address}{WEBHOOK_PATH}"

    async def run(self, *arguments: str, **variables: str) -> Result:
        """Runs `reelworks webhooks …`."""
        prefixes = ("REELWORKS_", "REPLICATE_")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(prefixes)}
        async with self.turns:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.cli", "webhooks", *arguments,
                env=inherited
                | {
                    "REELWORKS_VAR": str(self.folder / "var"),
                    "REELWORKS_WEBHOOK_GRPC_ADDRESS": self.webhooks.operators_address,
                }
                | variables,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            try:
                async with asyncio.timeout(90):
                    out, err = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
            assert process.returncode is not None
            return Result(process.returncode, out.decode(), err.decode())

    async def json(self, *arguments: str, **variables: str) -> Any:
        """Runs a command that must succeed with one document."""
        result = await self.run(*arguments, "--json", **variables)
        assert result.code == 0, result.err
        (document,) = result.documents
        return document


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    url = f"sqlite:///{tmp_path}/webhook.sqlite3"
    await asyncio.to_thread(migrate, "webhook", url)
    async with running_webhooks(url, tmp_path) as webhooks:
        yield Desk(webhooks, tmp_path)


async def test_events_are_listed_and_shown_for_people_and_for_programs(desk: Desk) -> None:
    query = good_query()
    generation_id = query.split("&")[0].removeprefix("g=")
    good = await desk.webhooks.arrive("msg_1", b'{"id": "\xc3\xa9"}', query, until=State.DELIVERED)
    await desk.webhooks.arrive("msg_2", DEAD_BODY)
    await desk.webhooks.arrive("msg_esc", b'"\x1b[2J"', until=State.DELIVERED)

    table, dead, of_one, old, shown, by_number, body, nothing = await asyncio.gather(
        desk.run("list"),
        desk.run("list", "--state", "dead", "--json"),
        desk.run("list", "--generation", generation_id, "--json"),
        desk.run("list", "--until", "1h", "--json"),
        desk.run("show", "msg_1"),
        desk.json("show", good.event_id),
        desk.run("show", "msg_1", "--body"),
        desk.run("show", "msg_3"),
    )

    strange = await desk.run("show", "msg_esc")
    assert strange.out.endswith('\n\n"\\x1b[2J"\n')
    titles, _, newest, oldest = table.out.splitlines()
    assert titles.split()[0] == "EVENT"
    assert ("dead" in newest, "UNREADABLE" in newest, "msg_2" in newest) == (True, True, True)
    assert (oldest.split()[0], "delivered" in oldest) == (good.event_id, True)
    assert [document["webhook_id"] for document in dead.documents] == ["msg_2"]
    assert "body" not in dead.documents[0]
    assert [document["webhook_id"] for document in of_one.documents] == ["msg_1"]
    assert old.out == ""
    assert "state             DELIVERED" in shown.out.splitlines()
    assert shown.out.endswith('\n\n{"id": "é"}\n')
    assert (by_number["webhook_id"], by_number["body"]) == ("msg_1", '{"id": "é"}')
    assert body.out == '{"id": "é"}'
    assert (nothing.code, nothing.err) == (1, "error: there is no webhook msg_3\n")


async def test_replays_are_said_before_they_are_done_and_drops_keep_their_reason(
    desk: Desk,
) -> None:
    await desk.webhooks.arrive("msg_good", GOOD_BODY)
    dead = await desk.webhooks.arrive("msg_dead", DEAD_BODY)

    dry = await desk.run("replay", "--dead", "--dry-run")
    assert sum(desk.webhooks.generation.calls.values()) == 2
    wet = await desk.run("replay", "msg_good", dead.event_id)
    both = await desk.json("replay", "--since", "1h")
    await eventually(lambda: sum(desk.webhooks.generation.calls.values()) >= 5)
    dropped = await desk.run("drop", dead.event_id, "--reason", "a body that nobody reads")
    again = await desk.json("drop", dead.event_id, "--reason", "twice")
    left = await desk.json("replay", dead.event_id)
    missing = await desk.run("drop", "999", "--reason", "x")

    assert dry.out.splitlines()[-1] == "webhooks that would be delivered once more: 1"
    assert "msg_dead" in dry.out
    assert wet.out.splitlines()[-1] == "webhooks that are delivered once more: 2"
    assert both["replayed_count"] == 2
    assert dropped.out == "dropped: 1\n"
    assert again == {"dropped_count": 0}
    assert (left["replayed_count"], left["gone_count"]) == (0, 1)
    assert missing.code == 1
    assert "There is no event with event_id 999; `reelworks webhooks list`" in missing.err
    shown = await desk.json("show", dead.event_id)
    assert (shown["state"], shown["drop_reason"]) == ("DROPPED", "a body that nobody reads")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["replay"], "EVENT"),
        (["replay", "--since", "yesterday"], "--since"),
        (["list", "--state", "lost"], "--state"),
        (["drop", "msg_1", "--reason", "x"], "number"),
        (["drop", "1"], "--reason"),
        (["show", "9" * 20], "1 to 18 digits"),
        (["replay", "0"], "1 to 18 digits"),
        (["check"], "--url"),
        (["send-test", "--secrets-file", "/nowhere"], "--secrets-file"),
    ],
)
async def test_wrong_usage_is_named_with_exit_code_2(
    tmp_path: Path, arguments: list[str], named: str
) -> None:
    result = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "services.cli", "webhooks", *arguments],
        env={k: v for k, v in os.environ.items() if not k.startswith(("REELWORKS_", "REPLICATE_"))}
        | {"REELWORKS_VAR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.returncode, named in result.stderr) == (2, True), result.stderr


async def test_a_sample_event_arrives_and_an_address_is_proven_without_a_trace(desk: Desk) -> None:
    checked = await desk.json("check", "--url", desk.url)
    before = await desk.webhooks.listed()
    sent = await desk.json("send-test", "--url", desk.url, REPLICATE_WEBHOOK_SECRET=SECRET)
    other = await desk.run(
        "send-test", "--url", desk.url, REPLICATE_WEBHOOK_SECRET="whsec_" + "A" * 32
    )
    nothing = await desk.run("send-test", "--url", desk.url)

    assert (checked["status"], checked["problem"]) == (401, None)
    assert before == []
    (event,) = await desk.webhooks.listed()
    assert sent["webhook_id"] == event.webhook_id
    assert (other.code, "knows another secret" in other.err) == (1, True)
    assert "A" * 32 not in other.err
    assert (nothing.code, "no secret to sign with" in nothing.err) == (1, True)


@pytest.fixture
async def strange_host() -> AsyncIterator[tuple[int, int]]:
    """A host that redirects: its ports for HTTP, and for HTTPS with a certificate of no worth."""

    async def redirect(request: web.Request) -> web.Response:
        del request
        return web.Response(status=301, headers={"Location": "https://www.reelworks.example/"})

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", redirect)
    runner = web.AppRunner(application)
    await runner.setup()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(tls)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    ports = [address[1] for address in runner.addresses]
    yield ports[0], ports[1]
    await runner.cleanup()


async def test_check_names_what_stands_between_replicate_and_the_service(
    desk: Desk, strange_host: tuple[int, int]
) -> None:
    http_port, https_port = strange_host
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        closed_port = silent.getsockname()[1]
    closing = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    closing_port = closing.sockets[0].getsockname()[1]
    cases = {
        f"http://127.0.0.1:{http_port}/": "redirects (301) to https://www.reelworks.example/",
        f"https://localhost:{https_port}/": "TLS: the certificate of localhost is not accepted",
        f"https://localhost:{http_port}/": "does not speak it",
        f"http://127.0.0.1:{closing_port}/": "ended the connection without an answer",
        "https://" + "x" * 64 + ".example/": "no address can have",
        f"http://127.0.0.1:{closed_port}/": f"nothing listens at port {closed_port}",
        "https://nobody.invalid/": "DNS: there is no host nobody.invalid",
        desk.url + "/": "another host or path answers (404)",
        "http://reelworks.example/": "must begin with https",
    }

    async with closing:
        findings = await asyncio.gather(
            *(asyncio.to_thread(examine, url, b"{}", {}) for url in cases)
        )
        told = await desk.run("check", "--url", next(iter(cases)))

    for finding, (url, problem) in zip(findings, cases.items(), strict=True):
        assert finding.url == url
        assert problem in str(finding.problem)
    assert (told.code, told.out) == (1, "")
    assert told.err == f"error: {findings[0].url}: {findings[0].problem}\n"
