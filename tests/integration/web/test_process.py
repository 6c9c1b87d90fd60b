"""The service as a process: it names a wrong setting in a line, and leaves when it is told to."""

import asyncio
import base64
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.integration.generation.harness import eventually
from tests.integration.web.studio import running_studio, web_settings
from tests.serving import free_address

LIMIT_S = 30.0


def variables(folder: Path, **changes: str) -> dict[str, str]:
    for name in ("session_keys", "callback_keys"):
        (folder / name).write_bytes(base64.b64encode(name.encode() * 4) + b"\n")
    given = {
        "ADDRESS": free_address(),
        "CREDITS_ADDRESS": free_address(),
        "GENERATION_ADDRESS": free_address(),
        "CALLBACK_KEYS_FILE": str(folder / "callback_keys"),
        "SESSION_KEYS_FILE": str(folder / "session_keys"),
        "DEVELOPMENT_KEY_FILE": str(folder / "development_key"),
    } | changes
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("REELWORKS_")}
    return inherited | {f"REELWORKS_{name}": value for name, value in given.items()}


@contextlib.asynccontextmanager
async def process(
    environment: dict[str, str], *arguments: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.web", *arguments),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


async def wait_until_live(url: str) -> None:
    async with httpx.AsyncClient() as client:

        async def is_live() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return (await client.get(f"{url}/healthz/live")).is_success
            return False

        await eventually(is_live, LIMIT_S)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"CREDITS_ADDRESS": ""}, "REELWORKS_CREDITS_ADDRESS: must be set"),
        ({"ADDRESS": "8080"}, "REELWORKS_ADDRESS: must be host:port"),
        ({"ADDRESS": "0.0.0.0:0"}, "REELWORKS_SIGN_IN: must be set, except on a loopback address"),
        ({"PUBLIC_URL": "https://studio.example"}, "REELWORKS_SIGN_IN: must be set, except on"),
        ({"FORWARDED_ALLOW_IPS": "127.0.0.1"}, "REELWORKS_SIGN_IN: must be set, except on"),
        (
            {"ADDRESS": "0.0.0.0:0", "SIGN_IN": "development"},
            "REELWORKS_PUBLIC_URL: must be set, except on a loopback address",
        ),
        (
            {
                "ADDRESS": "0.0.0.0:0",
                "FORWARDED_ALLOW_IPS": "127.0.0.1",
                "PUBLIC_URL": "https://studio.example",
                "SIGN_IN": "development",
            },
            "REELWORKS_SIGN_IN: must not be development where people come by https",
        ),
        ({"STORAGE_URL": "s3://bucket"}, "REELWORKS_MEDIA_ORIGINS: must be set"),
        (
            {"SIGN_IN": "anybody"},
            "REELWORKS_SIGN_IN: Input should be 'development', 'jwks' or 'secret'",
        ),
        ({"SIGN_IN": "jwks"}, "REELWORKS_SUPABASE_URL: must be set, for REELWORKS_SIGN_IN=jwks"),
        (
            {"SIGN_IN": "secret", "JWT_ISSUER": "x"},
            "REELWORKS_SUPABASE_JWT_SECRET: must be set, for REELWORKS_SIGN_IN=secret",
        ),
        (
            {"SIGN_IN": "secret", "JWT_ISSUER": "x", "SUPABASE_JWT_SECRET": "shortsecret"},
            "REELWORKS_SUPABASE_JWT_SECRET: must have at least 32 bytes",
        ),
        (
            {"SUPABASE_URL": "ftp://x"},
            "REELWORKS_SUPABASE_URL: must be an http or https address",
        ),
        (
            {"RATE_LIMIT_URL": "redis://:secret@host"},
            "REELWORKS_RATE_LIMIT_URL: must be memory://, or begin with async+redis://",
        ),
        (
            {"FORWARDED_ALLOW_IPS": "proxy.example"},
            "REELWORKS_FORWARDED_ALLOW_IPS: must be IP addresses or networks, comma separated",
        ),
        (
            {"MEDIA_ORIGINS": "https://a.example/x"},
            "REELWORKS_MEDIA_ORIGINS: must be origins, as https://host or https://host:port",
        ),
        (
            {"MEDIA_ORIGINS": "https://a.example; script-src *"},
            "REELWORKS_MEDIA_ORIGINS: must be an http or https address",
        ),
        ({"STORAGE_URL": "file://host/x"}, "REELWORKS_STORAGE_URL: must name an absolute folder"),
        ({"SESSION_KEYS_FILE": "/nowhere"}, "REELWORKS_SESSION_KEYS_FILE: /nowhere: No such file"),
        ({"DEVELOPMENT_KEY_FILE": "/proc/key"}, "REELWORKS_DEVELOPMENT_KEY_FILE: "),
        (
            {"CREATES_PER_MINUTE": "0"},
            "REELWORKS_CREATES_PER_MINUTE: Input should be greater than or equal to 1",
        ),
    ],
    ids=str,
)
async def test_a_wrong_setting_is_named_in_one_line(
    tmp_path: Path, changes: dict[str, str], line: str
) -> None:
    async with process(variables(tmp_path, **changes)) as running, asyncio.timeout(LIMIT_S):
        out, err = await running.communicate()

    assert running.returncode == 2
    assert out == b""
    *told, error = err.decode().splitlines()
    assert error.startswith(f"error: {line}")
    assert not any("Traceback" in text or text.startswith("error") for text in told)
    assert "secret@" not in error
    assert "shortsecret" not in error


async def test_a_taken_address_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        async with process(variables(tmp_path, ADDRESS=address)) as running:
            _, err = await running.communicate()

    assert running.returncode == 2
    assert err.decode() == (
        f"error: REELWORKS_ADDRESS: {address} cannot be listened on; is it taken?\n"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_leaves_when_it_is_told_to(tmp_path: Path, number: signal.Signals) -> None:
    environment = variables(tmp_path, LOG_FORMAT="json")
    async with process(environment) as running:
        await wait_until_live(f"http://{environment['REELWORKS_ADDRESS']}")
        assert (tmp_path / "development_key").stat().st_mode & 0o777 == 0o600
        began = time.monotonic()

        running.send_signal(number)
        async with asyncio.timeout(LIMIT_S):
            out, err = await running.communicate()

        assert running.returncode == 0, err
        assert time.monotonic() - began < 5
        assert out == b""
        assert err.decode().splitlines()[-1].count('"event": "left"') == 1


async def test_while_it_drains_it_answers_and_says_that_it_is_not_ready(tmp_path: Path) -> None:
    environment = variables(tmp_path, DRAIN_S="60")
    url = f"http://{environment['REELWORKS_ADDRESS']}"
    async with process(environment) as running, httpx.AsyncClient(base_url=url) as client:
        await wait_until_live(url)

        running.send_signal(signal.SIGTERM)

        async def says_so() -> bool:
            return (await client.get("/healthz/ready")).text == "leaving\n"

        await eventually(says_so, LIMIT_S)
        assert (await client.get("/api/sign-in")).status_code == 200


async def test_in_development_it_prints_tokens_that_it_believes(tmp_path: Path) -> None:
    async with process(variables(tmp_path), "token", "Ada") as printing:
        out, _ = await printing.communicate()

    async with running_studio(web_settings(tmp_path)) as studio:
        proven = await studio.parts.identity.verify(out.decode().strip())

    assert proven.person.user_id == "ada"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("token", "a b"), "error: NAME must be 1 to 64 characters of a-z 0-9 _ -\n"),
        (("tokens",), "error: usage: python -m services.web\n"),
    ],
)
async def test_wrong_use_is_told(tmp_path: Path, arguments: tuple[str, ...], line: str) -> None:
    async with process(variables(tmp_path), *arguments) as running:
        out, err = await running.communicate()

    assert (running.returncode, out, err.decode()) == (2, b"", line)
