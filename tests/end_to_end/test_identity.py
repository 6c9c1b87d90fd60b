"""All processes show each other certificates: a video is made, and nobody else is heard."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.cli.certs import make_certificates, tls_settings
from services.client.credits import CreditsClient
from services.client.generations import GenerationClient
from services.client.webhooks import WebhookClient
from services.runtime.errors import DeadlineExceeded, NotAllowed, Unavailable
from tests.certificates import certificates_of, made_certificates
from tests.end_to_end.running import HURRIED, Running, start
from tests.integration.web.streams import client_of

USER = "ada"
PRICE = 10
MADE_S_MAX = 90.0
WANTED = {"model": "t2v-14B", "resolution": "480p"}

pytestmark = pytest.mark.timeout(300)


async def made(stack: Running, prompt: str) -> dict[str, Any]:
    """Has a video made over REST, and returns it once it is there."""
    async with client_of(stack.up_file.addresses["web"]) as browser, asyncio.timeout(MADE_S_MAX):
        browser.headers["X-Reelworks"] = "1"
        signed_in = await browser.post("/api/sign-in", json={"name": USER})
        assert signed_in.is_success, signed_in.text
        begun = await browser.post(
            "/api/generation/text-to-video", json={**WANTED, "prompt": prompt}
        )
        assert begun.status_code == 202, begun.text
        generation: dict[str, Any] = begun.json()
        while generation["status"] not in ("COMPLETED", "FAILED", "CANCELED"):
            answer = await browser.get(f"/api/generations/{generation['generation_id']}")
            assert answer.is_success, answer.text
            generation = answer.json()
        return generation


async def test_a_video_is_made_and_paid_among_certificates_also_after_they_were_renewed(
    tmp_path: Path,
) -> None:
    folder = made_certificates(tmp_path / "certs")
    with start(tmp_path / "var", "--certs", str(folder), **HURRIED) as stack:
        before = dict(stack.up_file.processes)

        first = await made(stack, "a red fox running through fresh snow")
        make_certificates(folder, {}, timedelta(days=1), renew=True)
        second = await made(stack, "a red fox that rests")

        assert [first["status"], second["status"]] == ["COMPLETED"] * 2
        assert dict(stack.up_file.processes) == before
        operator = tls_settings(folder, "operator")
        shown = stack.run("credits", "balance", "--user", USER, "--json", **operator)
        assert f'"available_credits": {100 - 2 * PRICE}' in shown.stdout, shown.stderr
        verified = stack.run("credits", "verify", **operator)
        assert verified.returncode == 0, verified.stderr
        webhooks = stack.run("webhooks", "list", **operator)
        assert first["generation_id"] in webhooks.stdout, webhooks.stderr
        await _nobody_else_is_heard(stack, folder)


async def _nobody_else_is_heard(stack: Running, folder: Path) -> None:
    addresses = stack.up_file.addresses
    in_plaintext = stack.run("credits", "balance", "--user", USER)
    as_web = stack.run("credits", "grant", "5", "--user", USER, **tls_settings(folder, "web"))

    assert in_plaintext.returncode == 1
    assert as_web.returncode == 1
    assert "The role web may not call" in as_web.stderr
    strangers = made_certificates(folder.with_name("strangers"))
    for certificates in (None, certificates_of(strangers, "operator")):
        async with (
            CreditsClient(addresses["credits"], certificates) as credits_client,
            GenerationClient(addresses["generation"], certificates) as generations,
            WebhookClient(addresses["webhook_grpc"], certificates) as webhooks,
        ):
            for call in (
                credits_client.get_balance(USER),
                generations.list_models(),
                webhooks.list_events(),
            ):
                with pytest.raises((Unavailable, DeadlineExceeded)):
                    await call
    for role in ("credits", "generation", "webhook", "web"):
        async with WebhookClient(
            addresses["webhook_grpc"], certificates_of(folder, role)
        ) as client:
            with pytest.raises(NotAllowed):
                await client.list_events()
