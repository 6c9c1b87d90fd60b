import asyncio
import base64
import contextlib
import os
import re
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.webhook.ingress import HEALTH_PATH, WEBHOOK_PATH
from tests.integration.webhook.harness import (
    CALLBACK_KEY,
    SECRET,
    FakeGeneration,
    FakeReplicate,
    eventually,
    free_port,
    good_query,
    headers_of,
    opened,
    rows,
    serving,
    serving_replicate,
)

# A process takes seconds to start where much else runs.
pytestmark = pytest.mark.timeout(300)

BODY = b'{"id": "p1", "status": "succeeded"}'
PURPOSE = "ask Replicate for it"
NO_SECRET = "secret 1 does not start with whsec_"
LOOPBACK_ONLY = (
    "a server without certificates (REELWORKS_TLS_CERTIFICATE_FILE, REELWORKS_TLS_KEY_FILE, "
    "REELWORKS_TLS_CA_FILE) answers on this machine only"
)
REMEDY = "run `reelworks migrate` first"
Environment = dict[str, str]


@pytest.fixture
def environment(url: str, tmp_path: Path) -> Environment:
    keys = tmp_path / "callback_keys"
    keys.write_text(base64.b64encode(CALLBACK_KEY).decode() + "\n")
    return {
        "PATH": os.environ["PATH"],
        "REELWORKS_ADDRESS": f"127.0.0.1:{free_port()}",
        "REELWORKS_HTTP_ADDRESS": f"127.0.0.1:{free_port()}",
        "REELWORKS_DATABASE_URL": url,
        "REELWORKS_GENERATION_ADDRESS": f"127.0.0.1:{free_port()}",
        "REELWORKS_CALLBACK_KEYS_FILE": str(keys),
        "REELWORKS_LOG_FORMAT": "json",
        "REELWORKS_DRAIN_S": "0",
        "REELWORKS_GRACE_S": "3",
        "REELWORKS_LEASE_S": "2",
        "REPLICATE_WEBHOOK_SECRET": SECRET,
    }


async def start(environment: Environment, *arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.webhook", *arguments, env=environment, stderr=PIPE
    )


async def ended(environment: Environment, *arguments: str) -> tuple[int | None, str]:
    """Returns exit code and log of a process that ends by itself."""
    process = await start(environment, *arguments)
    async with asyncio.timeout(90):
        _, log = await process.communicate()
    return process.returncode, log.decode()


@dataclass
class Running:
    """A running service."""

    process: Process
    base: str
    client: aiohttp.ClientSession

    async def health(self) -> int:
        try:
            async with self.client.get(self.base + HEALTH_PATH) as answer:
                return answer.status
        except aiohttp.ClientError:
            return 0

    async def post(self, webhook_id: str, query: str = "", body: bytes = BODY) -> int:
        """Returns the status, 0 if there was no answer."""
        address = f"{self.base}{WEBHOOK_PATH}?{query}"
        try:
            async with self.client.post(
                address, data=body, headers=headers_of(body, webhook_id)
            ) as answer:
                return answer.status
        except aiohttp.ClientError:
            return 0

    async def log_after(self, number: signal.Signals) -> str:
        """Returns the log after ending the process by a signal."""
        self.process.send_signal(number)
        async with asyncio.timeout(60):
            _, log = await self.process.communicate()
        return log.decode()


@contextlib.asynccontextmanager
async def running(environment: Environment) -> AsyncIterator[Running]:
    process = await start(environment)
    try:
        async with aiohttp.ClientSession() as client:
            service = Running(process, f"http://{environment['REELWORKS_HTTP_ADDRESS']}", client)

            async def is_up() -> bool:
                assert process.returncode is None, await process.communicate()
                return await service.health() == 200

            await eventually(is_up)
            yield service
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_every_acknowledged_event_survives_kill_9_and_is_delivered_later(
    environment: Environment, url: str
) -> None:
    acknowledged: list[str] = []
    numbers = iter(range(100_000))

    async with running(environment) as service:

        async def sender() -> None:
            while service.process.returncode is None:
                webhook_id = f"msg_{next(numbers)}"
                if await service.post(webhook_id, good_query()) == 200:
                    acknowledged.append(webhook_id)

        async with asyncio.TaskGroup() as senders:
            for _ in range(16):
                senders.create_task(sender())
            await eventually(lambda: len(acknowledged) > 150)
            service.process.kill()

    async with opened(url) as database:
        stored = [row["webhook_id"] for row in await rows(database)]
    assert len(acknowledged) > 150
    assert set(acknowledged) <= set(stored)

    generation = FakeGeneration()
    port = int(environment["REELWORKS_GENERATION_ADDRESS"].rpartition(":")[2])
    async with serving(generation, port), running(environment) as service:
        # Those whose call was under way when the process died wait for their lease.
        await eventually(lambda: len(generation.calls) == len(stored))
        assert {key[0] for key in generation.calls} == set(stored)
        await service.log_after(signal.SIGTERM)
    async with opened(url) as database:
        assert {row["state"] for row in await rows(database)} == {"DELIVERED"}


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_stack_that_starts_together_loses_no_event(environment: Environment) -> None:
    del environment["REPLICATE_WEBHOOK_SECRET"]
    async with serving_replicate(FakeReplicate(status=500)) as replicate:
        environment["REPLICATE_API_TOKEN"] = "r8_test"
        environment["REPLICATE_BASE_URL"] = f"http://127.0.0.1:{replicate.port}"
        async with running(environment) as service:
            assert await service.post("msg_1") == 503

            replicate.status = 200

            async def is_taken() -> bool:
                return await service.post("msg_1") == 200

            await eventually(is_taken)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_sigterm_ends_the_process_in_time_and_its_log_tells_no_secret(
    environment: Environment,
) -> None:
    environment["REELWORKS_LOG_LEVEL"] = "DEBUG"
    environment["REELWORKS_DRAIN_S"] = "1"
    body, query = b'{"prompt": "a private wish"}', good_query()
    headers = headers_of(body, "msg_1")
    async with running(environment) as service:
        assert await service.post("msg_1", query, body) == 200
        assert await service.post("msg_1", query + "x", body) == 200
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)

        async def is_leaving() -> bool:
            return await service.health() == 503

        await eventually(is_leaving)
        assert await service.post("msg_2") == 200
        log = await service.log_after(signal.SIGTERM)

        assert service.process.returncode == 0
        # Drain and grace are 4 s; the rest is what a slow machine takes to end a process.
        assert time.monotonic() - began < 14
    assert '"event": "left"' in log
    assert log.count('"event": "stored"') >= 2
    mac = query.rpartition("=")[2]
    signature = headers["webhook-signature"].removeprefix("v1,")
    for word in ("private wish", SECRET.removeprefix("whsec_"), mac, signature):
        assert word not in log


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (
            {"REELWORKS_HTTP_ADDRESS": "", "REELWORKS_GENERATION_ADDRESS": ""},
            [
                "REELWORKS_HTTP_ADDRESS: must be set",
                "REELWORKS_GENERATION_ADDRESS: must be set",
            ],
        ),
        (
            {"REELWORKS_HTTP_ADDRESS": "8081"},
            ["REELWORKS_HTTP_ADDRESS: must be host:port"],
        ),
        (
            {"REPLICATE_WEBHOOK_SECRET": ""},
            [f"REPLICATE_WEBHOOK_SECRET: must be set, or REPLICATE_API_TOKEN to {PURPOSE}"],
        ),
        (
            {"REPLICATE_WEBHOOK_SECRET": f"{SECRET},whsec_c2hvcnQ="},
            ["REPLICATE_WEBHOOK_SECRET: secret 2 has fewer than 16 bytes"],
        ),
        (
            {"REELWORKS_WEBHOOK_SECRETS_FILE": "/nowhere/secrets"},
            ["REELWORKS_WEBHOOK_SECRETS_FILE: REPLICATE_WEBHOOK_SECRET is set too"],
        ),
        (
            {
                "REPLICATE_WEBHOOK_SECRET": "",
                "REELWORKS_WEBHOOK_SECRETS_FILE": "/nowhere/secrets",
            },
            ["REELWORKS_WEBHOOK_SECRETS_FILE: /nowhere/secrets: No such file or directory"],
        ),
        (
            {
                "REPLICATE_WEBHOOK_SECRET": "",
                "REELWORKS_WEBHOOK_SECRETS_FILE": "{tmp_path}/callback_keys",
            },
            [f"REELWORKS_WEBHOOK_SECRETS_FILE: {{tmp_path}}/callback_keys: {NO_SECRET}"],
        ),
        (
            {"REELWORKS_ADDRESS": "0.0.0.0:50053"},
            [f"REELWORKS_ADDRESS: 0.0.0.0:50053 is not a loopback address; {LOOPBACK_ONLY}"],
        ),
        (
            {"REELWORKS_METRICS_ADDRESS": "9464"},
            ["REELWORKS_METRICS_ADDRESS: must be host:port"],
        ),
        (
            {"REELWORKS_CALLBACK_KEYS_FILE": "/nowhere/keys"},
            ["REELWORKS_CALLBACK_KEYS_FILE: /nowhere/keys: No such file or directory"],
        ),
        (
            {"REELWORKS_DATABASE_URL": "sqlite:///{tmp_path}/empty.sqlite3"},
            [f"REELWORKS_DATABASE_URL: the schema is at no revision, 0003 is needed; {REMEDY}"],
        ),
    ],
)
async def test_a_wrong_setting_is_named_in_one_line(
    environment: Environment, tmp_path: Path, change: Environment, lines: list[str]
) -> None:
    changed = {name: value.format(tmp_path=tmp_path) for name, value in change.items()}

    code, log = await ended({**environment, **changed})

    wanted = [f"error: {line.format(tmp_path=tmp_path)}" for line in lines]
    # The log may come before.
    assert (code, [line for line in log.splitlines() if line.startswith("error: ")]) == (2, wanted)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_secret_is_rotated_without_a_restart(
    environment: Environment, tmp_path: Path
) -> None:
    path = tmp_path / "secrets"
    path.write_text("whsec_" + base64.b64encode(b"n" * 24).decode())
    environment["REPLICATE_WEBHOOK_SECRET"] = ""
    environment["REELWORKS_WEBHOOK_SECRETS_FILE"] = str(path)
    async with running(environment) as service:
        assert await service.post("msg_1") == 401

        path.write_text(f"{path.read_text()}\n{SECRET}\n")

        async def is_taken() -> bool:
            return await service.post("msg_1") == 200

        await eventually(is_taken)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_prometheus_reads_what_happened_and_nothing_that_names_anybody(
    environment: Environment,
) -> None:
    environment["REELWORKS_METRICS_ADDRESS"] = f"127.0.0.1:{free_port()}"
    generation, query = FakeGeneration(), good_query()
    port = int(environment["REELWORKS_GENERATION_ADDRESS"].rpartition(":")[2])
    async with serving(generation, port), running(environment) as service:
        for webhook_id, sent in (("msg_1", query), ("msg_1", query), ("msg_2", query + "x")):
            assert await service.post(webhook_id, sent) == 200
        assert await service.post("msg 3") == 401
        await eventually(lambda: len(generation.calls) == 2)

        async def read() -> dict[str, float]:
            address = f"http://{environment['REELWORKS_METRICS_ADDRESS']}/metrics"
            async with service.client.get(address) as answer:
                text = await answer.text()
            assert not re.search(r"msg_|127\.0\.0\.1|whsec_", text)
            return {
                sample.name.removeprefix("reelworks_webhook_")
                + "".join(f" {value}" for value in sample.labels.values()): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
                if sample.name.startswith("reelworks_webhook_")
            }

        async def all_delivered() -> dict[str, float]:
            found = await read()
            return found if found.get("deliveries_total OK APPLIED") == 2 else {}

        found = await eventually(all_delivered)

    counted = {name: value for name, value in found.items() if value}
    assert {name: counted[name] for name in counted if name.startswith(("requests", "reject"))} == {
        "requests_total 200": 3,
        "requests_total 401": 1,
        "rejected_total id_malformed": 1,
    }
    assert (found["query_total good"], found["query_total bad"]) == (2, 1)
    assert (found["duplicates_total"], found["secret_number_total 0"]) == (1, 3)
    assert found["ack_seconds_count"] == found["store_seconds_count"] == 3
    assert found["batch_rows_sum"] >= 3
    assert abs(found["last_received_timestamp"] - time.time()) < 60
    assert (found["pending"], found["dead"]) == (0, 0)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_taken_port_is_said_in_one_line(environment: Environment) -> None:
    host, _, port = environment["REELWORKS_HTTP_ADDRESS"].rpartition(":")
    taken = await asyncio.start_server(lambda _, writer: writer.close(), host, int(port))
    async with taken:
        code, log = await ended(environment)

    assert (code, log) == (
        2,
        f"error: REELWORKS_HTTP_ADDRESS: {host}:{port} cannot be listened on; is it taken?\n",
    )


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_migrate_brings_a_new_database_to_the_newest_schema(
    environment: Environment, tmp_path: Path
) -> None:
    environment["REELWORKS_DATABASE_URL"] = f"sqlite:///{tmp_path}/new.sqlite3"

    for _ in range(2):
        assert (await ended(environment, "migrate"))[0] == 0

    async with running(environment) as service:
        assert await service.post("msg_1") == 200
