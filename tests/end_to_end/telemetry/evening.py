"""One evening of the four services, with good and bad things happening, and all that they told."""

import asyncio
import base64
import json
import os
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from services.client.generations import new_generation_id
from services.client.webhooks import WebhookClient
from services.web.development import development_key, development_token, person_named
from services.webhook.ingress import WEBHOOK_PATH
from tests.chaos.house import environment_of, running_simulator
from tests.end_to_end.fleet import Member, until
from tests.end_to_end.telemetry.collector import Collector, SeenSpan, running_collector
from tests.serving import free_address

__all__ = ["PROMPT", "SERVICES", "Evening", "spend_evening"]

SPEED = 100.0
TOKEN = "r8_thesecretofthisaccount"
PROMPT = "a red fox running through fresh snow"
BAD_PROMPT = "a paper boat in a storm [fail]"
USER = "ada"
SERVICES = ("credits", "generation", "webhook", "web")
BODY = {"model": "t2v-14B", "resolution": "480p"}
LOST_ANSWER = {"action": {"kind": "create_then_drop"}}
FORGED = {"webhook-id": "msg_1", "webhook-timestamp": "1", "webhook-signature": "v1,c2VjcmV0"}


@dataclass(frozen=True)
class Made:
    """A generation that was asked for over REST."""

    generation_id: str
    trace_id: str
    """As web says it."""


@dataclass(frozen=True)
class Evening:
    """What an evening left behind."""

    made: Made
    """The video that nothing came in between of."""
    spans: tuple[SeenSpan, ...]
    sent: bytes
    """All that the collector got, as it came."""
    shown: dict[str, str]
    """What each service showed to Prometheus."""
    logs: dict[str, str]
    secrets: dict[str, str]
    """What nobody may learn of by telemetry, by what it is."""
    exit_codes: dict[str, int]


def spend_evening(folder: Path) -> Evening:
    """Runs it all once; what is asked of it is asked of what it left."""
    return asyncio.run(_spend(folder))


async def _spend(folder: Path) -> Evening:
    secrets = _new_keys(folder)
    members = {service: Member(service, 0, folder, {}) for service in SERVICES}
    metrics = {service: free_address() for service in SERVICES}
    async with running_collector() as collector:
        with running_simulator(SPEED, [TOKEN], folder / "simulator.log") as simulator:
            for service, member in members.items():
                member.environment |= _environment(folder, service, members, simulator) | {
                    "REELWORKS_METRICS_ADDRESS": metrics[service],
                    "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
                    "OTEL_BSP_SCHEDULE_DELAY": "100",
                }
            try:
                await asyncio.gather(*(_start(members[service]) for service in SERVICES[:3]))
                await _start(members["web"])
                secrets |= await _more_secrets(folder, simulator)
                made = await _use(members, simulator, secrets["access token"])
                shown = {
                    service: await asyncio.to_thread(_read, f"http://{address}/metrics")
                    for service, address in metrics.items()
                }
                left = {service: await members[service].leave() for service in SERVICES[::-1]}
            finally:
                for member in members.values():
                    if member.process is not None and member.process.returncode is None:
                        member.process.kill()
                        await member.process.wait()
    return _left_behind(made, collector, shown, members, secrets, left)


def _left_behind(
    made: Made,
    collector: Collector,
    shown: dict[str, str],
    members: dict[str, Member],
    secrets: dict[str, str],
    left: dict[str, tuple[int, float]],
) -> Evening:
    return Evening(
        made=made,
        spans=tuple(collector.spans),
        sent=b"".join(collector.bodies),
        shown=shown,
        logs={service: member.log.read_text() for service, member in members.items()},
        secrets=secrets,
        exit_codes={service: code for service, (code, _) in left.items()},
    )


def _new_keys(folder: Path) -> dict[str, str]:
    keys = {}
    for name in ("callback_keys", "session_keys"):
        keys[name] = base64.b64encode(os.urandom(32)).decode()
        (folder / name).write_text(keys[name] + "\n")
    return keys


async def _more_secrets(folder: Path, simulator: dict[str, str]) -> dict[str, str]:
    person = person_named(USER)
    assert person is not None
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        answer = await client.get(f"{simulator['api']}/v1/webhooks/default/secret")
    return {
        "provider's token": TOKEN,
        "webhook secret": answer.json()["key"].removeprefix("whsec_"),
        "access token": development_token(development_key(folder / "development_key"), person),
        "prompt": PROMPT,
        "failing prompt": BAD_PROMPT,
    }


def _environment(
    folder: Path, service: str, members: dict[str, Member], simulator: dict[str, str]
) -> dict[str, str]:
    member = members[service]
    settings = {
        "ADDRESS": member.address,
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "DEBUG",
        "CALLBACK_KEYS_FILE": str(folder / "callback_keys"),
        "STORAGE_URL": (folder / "media").as_uri(),
        "CREDITS_ADDRESS": members["credits"].address,
        "GENERATION_ADDRESS": members["generation"].address,
        "DATABASE_URL": f"sqlite:///{folder / service}.sqlite3",
    }
    match service:
        case "generation":
            public = members["webhook"].http_address
            settings |= {
                "WEBHOOK_PUBLIC_URL": f"http://{public}{WEBHOOK_PATH}",
                "DELIVERY_ORIGINS": simulator["delivery"],
                # Webhooks shall be first.
                "POLL_INTERVAL_S": "30",
            }
        case "webhook":
            settings |= {"HTTP_ADDRESS": member.http_address}
        case "web":
            settings |= {
                "SESSION_KEYS_FILE": str(folder / "session_keys"),
                "DEVELOPMENT_KEY_FILE": str(folder / "development_key"),
                "SIGN_IN": "development",
            }
    return environment_of(**settings) | {
        "REPLICATE_API_TOKEN": TOKEN,
        "REPLICATE_BASE_URL": simulator["api"],
    }


async def _start(member: Member) -> None:
    if member.service != "web":
        migration = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"services.{member.service}", "migrate"),
            env=member.environment,
        )
        assert await migration.wait() == 0
    await member.start()
    await member.ready()


async def _use(members: dict[str, Member], simulator: dict[str, str], token: str) -> Made:
    """Does what people do, and strangers; returns the generation that went well."""
    door = f"http://{members['web'].address}"
    async with httpx.AsyncClient(
        base_url=door, headers={"Authorization": f"Bearer {token}"}, timeout=30
    ) as person:
        made = await _create(person, PROMPT)
        watching = asyncio.create_task(_watch(person))
        failed = await _create(person, BAD_PROMPT)
        await until(lambda: _is(person, made, "COMPLETED"), "the video is there")
        await until(lambda: _is(person, failed, "FAILED"), "it failed")
        async with httpx.AsyncClient() as stranger:
            await stranger.post(f"{simulator['control']}/control/faults", json=LOST_ANSWER)
        lost = await _create(person, PROMPT)
        await until(lambda: _is(person, lost, "COMPLETED"), "the lost create was found")
        canceled = await _create(person, f"{PROMPT} [slow]")
        answer = await person.post(f"/api/generations/{canceled.generation_id}/cancel")
        assert answer.is_success, answer.text
        await until(lambda: _is(person, canceled, "CANCELED"), "it was canceled")
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    await _intrude(members, door)
    async with WebhookClient(members["webhook"].address) as operator:
        await operator.list_events()
    return made


async def _create(person: httpx.AsyncClient, prompt: str) -> Made:
    answer = await person.post(
        "/api/generation/text-to-video",
        json=BODY | {"prompt": prompt},
        headers={"Idempotency-Key": new_generation_id()},
    )
    assert answer.status_code == 202, answer.text
    return Made(answer.json()["generation_id"], answer.headers["x-request-id"])


async def _is(person: httpx.AsyncClient, made: Made, status: str) -> bool:
    answer: Any = (await person.get(f"/api/generations/{made.generation_id}")).json()
    return bool(answer["status"] == status)


async def _watch(person: httpx.AsyncClient) -> None:
    async with person.stream("GET", "/api/events") as stream:
        async for _ in stream.aiter_raw():
            pass


async def _intrude(members: dict[str, Member], door: str) -> None:
    """Does what is refused."""
    async with httpx.AsyncClient(base_url=door) as stranger:
        bad = {"Authorization": "Bearer eyJhbGciOiJub25lIn0.e30."}
        assert (await stranger.get("/api/generations", headers=bad)).status_code == 401
        assert (await stranger.get("/nothing/here")).status_code == 404
        assert (await stranger.request("BREW", "/api/generations")).status_code in (400, 405)
        forged = await stranger.post(
            f"http://{members['webhook'].http_address}{WEBHOOK_PATH}",
            headers=FORGED,
            content=json.dumps({"id": "x", "status": "succeeded"}),
        )
        assert forged.status_code == 401


def _read(address: str) -> str:
    with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310  Its own.
        text: str = answer.read().decode()
    return text
