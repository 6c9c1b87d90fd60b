import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from services.webhook.secret_source import ReplicateAccount, SecretsFile, SecretSource
from services.webhook.signature import Secret
from tests.integration.webhook.harness import (
    KEY,
    SECRET,
    FakeReplicate,
    eventually,
    serving_replicate,
)

OTHER_KEY = b"o" * 24
OTHER_SECRET = "whsec_" + base64.b64encode(OTHER_KEY).decode()


@contextlib.asynccontextmanager
async def asking(port: int, doubt_pause_s: float = 300) -> AsyncIterator[SecretSource]:
    account = ReplicateAccount(f"http://127.0.0.1:{port}/", "r8_token")
    source = SecretSource((), account, fetch_pause_s=0.02, doubt_pause_s=doubt_pause_s)
    task = asyncio.create_task(source.run())
    try:
        yield source
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


async def test_the_secret_is_asked_for_until_replicate_answers() -> None:
    async with (
        serving_replicate(FakeReplicate(status=503)) as replicate,
        asking(replicate.port) as source,
    ):
        await eventually(lambda: len(replicate.tokens) >= 3)
        assert not source.secrets

        replicate.status = 200
        await eventually(lambda: source.secrets)

    assert source.secrets == (Secret(0, KEY),)
    assert set(replicate.tokens) == {"Bearer r8_token"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 60_000,
        '{"key": 1}',
        '{"key": "whsec_c2hvcnQ="}',
        "\udcff",
        "x" * 100_000,
    ],
)
async def test_an_odd_answer_is_asked_for_again(text: str) -> None:
    odd = FakeReplicate(text=text.encode("utf-8", "replace").decode())
    async with serving_replicate(odd) as replicate, asking(replicate.port) as source:
        await eventually(lambda: len(replicate.tokens) >= 2)
        assert source.secrets == ()


async def test_the_token_follows_no_redirect() -> None:
    async with serving_replicate(FakeReplicate()) as elsewhere:
        location = f"http://127.0.0.1:{elsewhere.port}/v1/webhooks/default/secret"
        async with (
            serving_replicate(FakeReplicate(status=302, location=location)) as replicate,
            asking(replicate.port) as source,
        ):
            await eventually(lambda: len(replicate.tokens) >= 2)
            assert source.secrets == ()
        assert elsewhere.tokens == []


async def test_doubts_ask_again_but_not_more_often_than_allowed() -> None:
    async with serving_replicate(FakeReplicate()) as replicate, asking(replicate.port) as source:
        await eventually(lambda: source.secrets)
        replicate.text = f'{{"key": "{OTHER_SECRET}"}}'
        for _ in range(20):
            source.doubt()
        await eventually(lambda: source.secrets == (Secret(0, OTHER_KEY),))
        for _ in range(20):
            source.doubt()
            await asyncio.sleep(0)

    assert len(replicate.tokens) == 2


async def test_a_doubt_in_the_pause_after_another_is_not_forgotten() -> None:
    async with (
        serving_replicate(FakeReplicate()) as replicate,
        asking(replicate.port, doubt_pause_s=0.5) as source,
    ):
        await eventually(lambda: source.secrets)
        source.doubt()
        await eventually(lambda: len(replicate.tokens) == 2)
        replicate.text = f'{{"key": "{OTHER_SECRET}"}}'

        source.doubt()

        await eventually(lambda: source.secrets == (Secret(0, OTHER_KEY),))


async def test_a_failure_after_a_doubt_keeps_the_secret_and_is_repeated_later() -> None:
    async with (
        serving_replicate(FakeReplicate()) as replicate,
        asking(replicate.port, doubt_pause_s=0.05) as source,
    ):
        await eventually(lambda: source.secrets)
        replicate.status = 500
        source.doubt()
        await eventually(lambda: len(replicate.tokens) == 2)
        assert source.secrets == (Secret(0, KEY),)

        replicate.status, replicate.text = 200, f'{{"key": "{OTHER_SECRET}"}}'

        def is_new() -> bool:
            source.doubt()
            return source.secrets == (Secret(0, OTHER_KEY),)

        await eventually(is_new)


async def test_given_secrets_are_never_replaced() -> None:
    source = SecretSource((Secret(0, KEY),), ReplicateAccount("http://127.0.0.1:1", "t"))
    source.doubt()

    await source.run()

    assert source.secrets == (Secret(0, KEY),)


# --- From a file -------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def following(path: Path) -> AsyncIterator[SecretSource]:
    file = SecretsFile(path)
    source = SecretSource(file.read(datetime.now(UTC)), file=file, look_pause_s=0.02)
    task = asyncio.create_task(source.run())
    try:
        yield source
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "secrets"
    path.write_text(SECRET + "\n")
    async with following(path) as source:
        before = source.secrets

        end = datetime.now(UTC) + timedelta(hours=1)
        path.write_text(f"{OTHER_SECRET}\n{SECRET}@{end.isoformat()}\n")

        await eventually(lambda: source.secrets == (Secret(0, OTHER_KEY), Secret(1, KEY, end)))

    assert before == (Secret(0, KEY),)


async def test_a_file_behind_another_link_is_read_too(tmp_path: Path) -> None:
    """As mounted secrets change."""
    path = tmp_path / "secrets"
    for name, secret in (("old", SECRET), ("new", OTHER_SECRET)):
        (tmp_path / name).write_text(secret)
    path.symlink_to("old")
    async with following(path) as source:
        (tmp_path / "link").symlink_to("new")
        (tmp_path / "link").replace(path)

        await eventually(lambda: source.secrets == (Secret(0, OTHER_KEY),))


async def test_a_file_that_is_wrong_or_gone_leaves_the_former_secrets(tmp_path: Path) -> None:
    path = tmp_path / "secrets"
    path.write_text(SECRET)
    with structlog.testing.capture_logs() as lines:
        async with following(path) as source:
            path.write_text(f"{OTHER_SECRET}\nwhsec_c2hvcnQ=")
            await eventually(lambda: len(lines) == 1)
            path.unlink()
            await eventually(lambda: len(lines) == 2)
            assert source.secrets == (Secret(0, KEY),)

            path.write_text(OTHER_SECRET)
            await eventually(lambda: source.secrets == (Secret(0, OTHER_KEY),))

    assert [line.get("cause") for line in lines] == [
        "secret 2 has fewer than 16 bytes",
        "No such file or directory",
        None,
    ]
    assert OTHER_SECRET[6:] not in repr(lines)
