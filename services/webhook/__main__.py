"""Starts the webhook service: `python -m services.webhook`, or `… migrate` for its schema."""

import asyncio
import faulthandler
from datetime import UTC, datetime

from reelworks.generation.v1.prediction_event_pb2_grpc import PredictionEventServiceStub

from services.runtime.callback import parse_keys
from services.runtime.channel import connect
from services.runtime.database import Database
from services.runtime.migrations import open_migrated
from services.runtime.process import run_service
from services.runtime.settings import exit_with
from services.runtime.telemetry import get_logger
from services.webhook.forwarder import DEADLINES_S, MESSAGE_BYTES_MAX, Forwarder, Timing
from services.webhook.inbox import Inbox
from services.webhook.ingress import Ingress
from services.webhook.secret_source import ReplicateAccount, SecretSource, parse_secrets
from services.webhook.settings import WebhookSettings, split_address

SERVICE = "webhook"
HANG_DUMP_MARGIN_S = 5.0

logger = get_logger(__name__)


def main() -> None:
    """Runs the process."""
    run_service(SERVICE, WebhookSettings, serve)


async def serve(settings: WebhookSettings, leave: asyncio.Event) -> None:
    """Takes webhooks and hands them on until `leave` is set, as by SIGTERM."""
    secrets = _secret_source(settings)
    callback_keys = _callback_keys(settings)
    database = await open_migrated(settings.database_url, SERVICE)
    try:
        await _serve_with(settings, database, secrets, callback_keys, leave)
    finally:
        await database.close()
    logger.info("left")


async def _serve_with(
    settings: WebhookSettings,
    database: Database,
    secrets: SecretSource,
    callback_keys: tuple[bytes, ...],
    leave: asyncio.Event,
) -> None:
    arrived = asyncio.Event()
    inbox = Inbox(database, arrived)
    ingress = Ingress(inbox, secrets, callback_keys, settings.environment)
    try:
        port = await ingress.start(*split_address(settings.http_address))
    except OSError:
        exit_with(
            f"REELWORKS_HTTP_ADDRESS: {settings.http_address} cannot be listened on; is it taken?"
        )
    logger.info("serving", address=settings.http_address, port=port)
    channel = connect(settings.generation_address, DEADLINES_S, MESSAGE_BYTES_MAX)
    forwarder = Forwarder(
        inbox,
        PredictionEventServiceStub(channel),
        arrived,
        timing=Timing(lease_s=settings.lease_s),
    )
    # A part that fails takes the process down, since without it the rest would only pretend.
    async with channel, asyncio.TaskGroup() as parts:
        writing = parts.create_task(inbox.run())
        forwarding = parts.create_task(forwarder.run())
        asking = parts.create_task(secrets.run())
        await leave.wait()

        logger.info("leaving", drain_s=settings.drain_s)
        # Should leaving hang, the stacks of all threads say where.
        faulthandler.dump_traceback_later(settings.drain_s + settings.grace_s + HANG_DUMP_MARGIN_S)
        ingress.leave()
        await asyncio.sleep(settings.drain_s)
        asking.cancel()
        forwarder.stop()
        try:
            async with asyncio.timeout(settings.grace_s):
                await asyncio.gather(ingress.stop(), asyncio.shield(forwarding))
                inbox.close()
                await asyncio.shield(writing)
        except TimeoutError:
            # Whoever waits for an answer repeats; what is pending waits in the table.
            logger.warning("left before all had ended", grace_s=settings.grace_s)
            forwarding.cancel()
            writing.cancel()
        faulthandler.cancel_dump_traceback_later()


def _secret_source(settings: WebhookSettings) -> SecretSource:
    given, token = settings.replicate_webhook_secret, settings.replicate_api_token
    if given is not None:
        try:
            return SecretSource(parse_secrets(given.get_secret_value(), datetime.now(UTC)))
        except ValueError as error:
            exit_with(f"REPLICATE_WEBHOOK_SECRET: {error}")
    if token is None:
        exit_with(
            "REPLICATE_WEBHOOK_SECRET: must be set, or REPLICATE_API_TOKEN to ask Replicate for it"
        )
    account = ReplicateAccount(settings.replicate_base_url, token.get_secret_value())
    return SecretSource((), account)


def _callback_keys(settings: WebhookSettings) -> tuple[bytes, ...]:
    path = settings.callback_keys_file
    try:
        return parse_keys(path.read_text())
    except OSError as error:
        exit_with(f"REELWORKS_CALLBACK_KEYS_FILE: {path}: {error.strerror}")
    except ValueError as error:
        exit_with(f"REELWORKS_CALLBACK_KEYS_FILE: {path}: {error}")


if __name__ == "__main__":
    main()
