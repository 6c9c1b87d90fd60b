"""Every role calls every method of the real services: who may is heard, who may not is named."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from pydantic import SecretStr
from reelworks.credits.v1 import credits_pb2
from reelworks.generation.v1 import generation_pb2, prediction_event_pb2
from reelworks.webhook.v1 import webhook_pb2

from services.cli.certs import ROLES
from services.credits.__main__ import serve as serve_credits
from services.credits.callers import CALLERS as CREDITS
from services.credits.settings import CreditsSettings
from services.generation.__main__ import serve as serve_generation
from services.generation.callers import CALLERS as GENERATION
from services.generation.settings import GenerationSettings
from services.runtime.channel import connect
from services.runtime.identity import OPERATOR, Callers
from services.webhook.__main__ import serve as serve_webhook
from services.webhook.callers import CALLERS as WEBHOOK
from services.webhook.settings import WebhookSettings
from tests.certificates import Authority, Files
from tests.conftest import NewDatabase
from tests.serving import free_address, serving

NEARBY = ("127.0.0.1:1", "http://127.0.0.1:1")
"""Where nobody answers: a gRPC target, and an address."""
STRANGER = "billing"
CALL_S = 10.0
# What a call that was let in may come to, with an empty request and nobody behind the service.
HEARD = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNAVAILABLE,
}


@pytest.fixture
def backend() -> str:
    """Who may call what does not depend on the database."""
    return "sqlite"


@pytest.fixture
def authority() -> Authority:
    return Authority()


def serve(
    service: str, address: str, database_url: str, folder: Path, own: Files, leave: asyncio.Event
) -> Coroutine[Any, Any, None]:
    """Returns the run of a service as production wires it, with nobody around it."""
    keys = folder / "callback_keys"
    keys.write_bytes(base64.b64encode(b"k" * 32) + b"\n")
    common: dict[str, Any] = {
        "address": address,
        "database_url": database_url,
        "drain_s": 0,
        "grace_s": 2,
        **own.settings,
    }
    match service:
        case "credits":
            return serve_credits(CreditsSettings(**common), leave)
        case "generation":
            common |= {"REPLICATE_API_TOKEN": "r8_x", "REPLICATE_BASE_URL": NEARBY[1]}
            media = (folder / "media").as_uri()
            return serve_generation(
                GenerationSettings(
                    **common,
                    credits_address=NEARBY[0],
                    callback_keys_file=keys,
                    storage_url=media,
                    media_url=NEARBY[1],
                ),
                leave,
            )
        case _:
            common |= {"REPLICATE_WEBHOOK_SECRET": SecretStr("whsec_" + "c2VjcmV0" * 4)}
            return serve_webhook(
                WebhookSettings(
                    **common,
                    http_address=free_address(),
                    generation_address=NEARBY[0],
                    callback_keys_file=keys,
                ),
                leave,
            )


@contextlib.asynccontextmanager
async def running(
    service: str, database_url: str, folder: Path, authority: Authority
) -> AsyncIterator[str]:
    address = free_address()
    own = authority.files(folder, service)
    asking = authority.files(folder / "asking", "credits").read()
    async with serving(
        lambda leave: serve(service, address, database_url, folder, own, leave), address, asking
    ):
        yield address


async def outcome(
    channel: grpc.aio.Channel, service: str, method: MethodDescriptor
) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """Calls a method with an empty request; returns status, reason and metadata."""
    codecs: dict[str, Any] = {
        "request_serializer": lambda request: request.SerializeToString(),
        "response_deserializer": message_factory.GetMessageClass(method.output_type).FromString,
    }
    request = message_factory.GetMessageClass(method.input_type)()
    path = f"/{service}/{method.name}"
    try:
        if method.server_streaming:
            call: Any = channel.unary_stream(path, **codecs)(request, timeout=CALL_S)
            await call.read()
            call.cancel()
        else:
            await channel.unary_unary(path, **codecs)(request, timeout=CALL_S)
    except grpc.aio.AioRpcError as error:
        info = error_details_pb2.ErrorInfo()
        status: Any = rpc_status.from_call(error)  # type: ignore[arg-type]
        if status is not None and status.details:
            status.details[0].Unpack(info)
        return error.code(), info.reason, dict(info.metadata)
    return grpc.StatusCode.OK, "", {}


@pytest.mark.parametrize(
    ("service", "files", "callers"),
    [
        ("credits", [credits_pb2.DESCRIPTOR], CREDITS),
        (
            "generation",
            [generation_pb2.DESCRIPTOR, prediction_event_pb2.DESCRIPTOR],
            GENERATION,
        ),
        ("webhook", [webhook_pb2.DESCRIPTOR], WEBHOOK),
    ],
    ids=["credits", "generation", "webhook"],
)
async def test_a_role_is_heard_where_the_table_says_so_and_nowhere_else(
    service: str,
    files: list[FileDescriptor],
    callers: Callers,
    new_database: NewDatabase,
    tmp_path: Path,
    authority: Authority,
) -> None:
    pairs = {"heard": 0, "refused": 0}
    async with running(service, new_database(service), tmp_path, authority) as address:
        for role in (*ROLES, STRANGER):
            own = authority.files(tmp_path / "callers", role).read()
            async with connect(address, certificates=own) as channel:
                for named in (one for file in files for one in file.services_by_name.values()):
                    for method in named.methods:
                        path = f"/{named.full_name}/{method.name}"
                        code, reason, metadata = await outcome(channel, named.full_name, method)
                        if role == OPERATOR or role in callers[path]:
                            assert code in HEARD, f"{role} was not heard by {path}: {code} {reason}"
                            pairs["heard"] += 1
                        else:
                            assert code is grpc.StatusCode.PERMISSION_DENIED, f"{role}: {path}"
                            assert reason == "CALLER_NOT_ALLOWED"
                            assert metadata == {"role": role, "method": path}
                            pairs["refused"] += 1

    allowed = sum(len(roles) + 1 for roles in callers.values())
    assert pairs == {"heard": allowed, "refused": len(callers) * (len(ROLES) + 1) - allowed}
