"""Starts the webhook service: `python -m services.webhook`, or `… migrate` for its schema."""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

from reelworks.generation.v1.prediction_event_pb2_grpc import PredictionEventServiceStub
from reelworks.webhook.v1 import webhook_pb2_grpc

from services.runtime.callback import parse_keys
from services.runtime.channel import connect
from services.runtime.database import Database
from services.runtime.metrics import CallMetrics, Metrics, serving_metrics
from services.runtime.migrations import open_migrated, require_newest
from services.runtime.process import run_service
from services.runtime.program import collect_rarely
from services.runtime.server import ServedService, Server
from services.runtime.settings import exit_with, split_address
from services.runtime.telemetry import get_logger
from services.runtime.tls import open_certificates
from services.webhook.backlog import BacklogWatch
from services.webhook.callers import CALLERS
from services.webhook.events import Events
from services.webhook.forwarder import DEADLINES_S, MESSAGE_BYTES_MAX, Forwarder, Timing
from services.webhook.inbox import Inbox
from services.webhook.ingress import Ingress
from services.webhook.metrics import WebhookMetrics
from services.webhook.requests import CHECKS
from services.webhook.retention import Retention, Terms
from services.webhook.secret_source import (
    ReplicateAccount,
    SecretsFile,
    SecretSource,
    parse_secrets,
)
from services.webhook.servicer import DOMAIN, SERVICE_NAME, WebhookServicer
from services.webhook.settings import WebhookSettings
from services.webhook.traces import Traces

__all__ = ["main"]

SERVICE = "webhook"

logger = get_logger(__name__)


def main() -> None:
    """Runs the process."""
    run_service(SERVICE, WebhookSettings, serve)


async def serve(settings: WebhookSettings, leave: asyncio.Event) -> None:
    """Takes webhooks, hands them on and answers operators until `leave` is set, as by SIGTERM."""
    secrets = _secret_source(settings)
    callback_keys = _callback_keys(settings)
    metrics = Metrics()
    database = await open_migrated(settings, SERVICE, leave)
    try:
        async with serving_metrics(metrics, settings.metrics_address):
            parts = _Parts(settings, leave, database, secrets, callback_keys, metrics)
            collect_rarely()
            await parts.serve()
    finally:
        await database.close()


class _Parts:
    """Everything that serves and works, wired."""

    def __init__(
        self,
        settings: WebhookSettings,
        leave: asyncio.Event,
        database: Database,
        secrets: SecretSource,
        callback_keys: tuple[bytes, ...],
        metrics: Metrics,
    ) -> None:
        arrived = asyncio.Event()
        self._settings = settings
        self._leave = leave
        self._stopping = asyncio.Event()
        self._secrets = secrets
        measures, traces = WebhookMetrics(metrics), Traces()
        measures.watch_pool(database)
        self._inbox = inbox = Inbox(database, arrived, wrote=measures.wrote)
        self._ingress = Ingress(
            inbox,
            secrets,
            callback_keys,
            settings.environment,
            metrics=measures,
            traces=traces,
        )
        self._channel = connect(
            settings.generation_address,
            DEADLINES_S,
            MESSAGE_BYTES_MAX,
            certificates=open_certificates(settings),
            measured=CallMetrics.of_clients(metrics),
        )
        self._forwarder = Forwarder(
            inbox,
            PredictionEventServiceStub(self._channel),
            arrived,
            timing=Timing(lease_s=settings.lease_s),
            metrics=measures,
            traces=traces,
        )
        self._events = events = Events(database, arrived.set)
        self._backlog = BacklogWatch(events, measures)
        terms = Terms(
            body=timedelta(hours=settings.body_retention_h),
            unused=timedelta(days=settings.unused_retention_days),
            row=timedelta(days=settings.row_retention_days),
        )
        self._retention = Retention(database, terms, self._stopping)
        servicer = WebhookServicer(events)
        self._server = Server(
            settings=settings,
            domain=DOMAIN,
            services=[
                ServedService(
                    SERVICE_NAME,
                    lambda server: webhook_pb2_grpc.add_WebhookServiceServicer_to_server(
                        servicer, server
                    ),
                )
            ],
            leave=leave,
            stopping=self._stopping,
            callers=CALLERS,
            examine=lambda: require_newest(database, SERVICE),
            checks=CHECKS,
            message_bytes_max=MESSAGE_BYTES_MAX,
            metrics=metrics,
        )

    async def serve(self) -> None:
        """Serves and works; the writer outlives the last webhook and the last delivery."""
        http_address = self._settings.http_address
        try:
            port = await self._ingress.start(*split_address(http_address))
        except OSError:
            exit_with(f"REELWORKS_HTTP_ADDRESS: {http_address} cannot be listened on; is it taken?")
        logger.info("taking webhooks", address=http_address, port=port)
        async with self._channel, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._inbox.run())
            await self._server.serve(
                self._take_webhooks(),
                self._forward(),
                self._retention.run(),
                self._until_stopping(self._secrets.run()),
                self._until_stopping(self._backlog.run()),
            )
            await self._events.drain()
            self._inbox.close()

    async def _take_webhooks(self) -> None:
        await self._leave.wait()
        self._ingress.leave()
        await self._stopping.wait()
        await self._ingress.stop()

    async def _forward(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._forwarder.run())
            await self._stopping.wait()
            self._forwarder.stop()

    async def _until_stopping(self, work: Coroutine[Any, Any, None]) -> None:
        """Does work that has no end of its own."""
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(work)
            await self._stopping.wait()
            task.cancel()


def _secret_source(settings: WebhookSettings) -> SecretSource:
    given, path = settings.replicate_webhook_secret, settings.webhook_secrets_file
    now = datetime.now(UTC)
    if path is not None:
        if given is not None:
            exit_with("REELWORKS_WEBHOOK_SECRETS_FILE: REPLICATE_WEBHOOK_SECRET is set too")
        file = SecretsFile(path)
        try:
            return SecretSource(file.read(now), file=file)
        except OSError as error:
            exit_with(f"REELWORKS_WEBHOOK_SECRETS_FILE: {path}: {error.strerror}")
        except ValueError as error:
            exit_with(f"REELWORKS_WEBHOOK_SECRETS_FILE: {path}: {error}")
    if given is not None:
        try:
            return SecretSource(parse_secrets(given.get_secret_value(), now))
        except ValueError as error:
            exit_with(f"REPLICATE_WEBHOOK_SECRET: {error}")
    token = settings.replicate_api_token
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
