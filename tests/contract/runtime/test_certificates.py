"""Who shows which certificate is answered how."""

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime.channel import PlaintextRefused, connect, invoke
from services.runtime.errors import DeadlineExceeded, NotAllowed, Unavailable
from tests.certificates import CLIENT, SERVER, Authority, Files
from tests.contract.runtime.conftest import NAME, Text, Toy, running_toy

WAIT_S = 10.0
ASK, STREAM = f"/{NAME}/Ask", f"/{NAME}/Stream"
CALLERS = {ASK: frozenset({"web"}), STREAM: frozenset({"web", "webhook"})}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def certified(authority: Authority, tmp_path: Path) -> AsyncIterator[Toy]:
    """A service that wants to see certificates; its channel is that of an operator."""
    own = authority.files(tmp_path / "server", "toy")
    operator = authority.files(tmp_path / "client", "operator")
    async with running_toy(
        callers=CALLERS, certificates=operator.read(), **own.settings
    ) as running:
        yield running


@contextlib.asynccontextmanager
async def calling(toy: Toy, files: Files) -> AsyncIterator[grpc.aio.Channel]:
    """A channel of who has these certificates."""
    # Checked at home first, what a test wants the other side to refuse would never be sent.
    material = {name: path.read_bytes() for name, path in files.settings.items()}
    credentials = grpc.ssl_channel_credentials(
        material["tls_ca_file"], material["tls_key_file"], material["tls_certificate_file"]
    )
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(toy.address, credentials, options=options) as channel:
        yield channel


async def asked(toy: Toy, channel: grpc.aio.Channel) -> str:
    """Asks, and returns the answer; raises ServiceError."""
    try:
        answer = await asyncio.wait_for(invoke(toy.unary(channel), Text(value="you")), WAIT_S)
    except TimeoutError:
        raise AssertionError("neither answered nor refused") from None
    return str(answer.value)


async def test_a_role_may_call_what_its_row_says_and_operators_everything(
    certified: Toy, authority: Authority, tmp_path: Path
) -> None:
    expected = {"web": (True, True), "webhook": (False, True), "operator": (True, True)}
    expected |= {"credits": (False, False), "billing": (False, False)}
    for role, (may_ask, may_stream) in expected.items():
        async with calling(certified, authority.files(tmp_path, role)) as channel:
            if may_ask:
                assert await asked(certified, channel) == "heard you"
            else:
                with pytest.raises(NotAllowed) as raised:
                    await asked(certified, channel)
                assert raised.value.reason == "CALLER_NOT_ALLOWED"
                assert raised.value.metadata == {"role": role, "method": ASK}
                assert raised.value.message == f"The role {role} may not call {ASK}."
            stream = certified.streaming(channel)(Text(value="you"))
            if may_stream:
                assert (await stream.read()).value == "first"
                stream.cancel()
            else:
                assert await stream.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    "issued",
    [
        {"uris": ["spiffe://reelworks/web", "spiffe://reelworks/operator"]},
        {"uris": ["spiffe://reelworks/web", "https://example.com"]},
        {"uris": []},
        {"uris": ["spiffe://reelworks/WEB"]},
        {"uris": ["spiffe://reelworks/web/"]},
        {"uris": ["spiffe://reelworks/web/evil"]},
        {"uris": ["spiffe://evil/web"]},
        {"uris": [], "common_name": "web", "hosts": ()},
        {"uris": [], "common_name": "spiffe://reelworks/web", "hosts": ()},
        {"uris": [], "hosts": (x509.DNSName("spiffe://reelworks/operator"),)},
        {"uris": [], "hosts": (x509.RFC822Name("operator@reelworks"),)},
    ],
    ids=str,
)
async def test_a_certificate_without_exactly_one_role_is_nobodys(
    certified: Toy, authority: Authority, tmp_path: Path, issued: dict[str, Any]
) -> None:
    issued = dict(issued)
    pair = authority.issue(*issued.pop("uris"), **issued)
    files = Files(tmp_path / "odd").write(*pair, authority.certificate)

    async with calling(certified, files) as channel:
        with pytest.raises(NotAllowed) as raised:
            await asked(certified, channel)

    assert raised.value.reason == "CALLER_NOT_ALLOWED"
    assert raised.value.metadata == {"role": "unknown", "method": ASK}
    assert "spiffe://reelworks/<role>" in raised.value.message
    assert certified.asked == 0


@pytest.mark.parametrize(
    "issued",
    [{"usages": (SERVER,)}, {"days": -1}],
    ids=["for servers only", "expired"],
)
async def test_a_certificate_that_is_not_good_for_calling_is_refused_at_the_door(
    certified: Toy, authority: Authority, tmp_path: Path, issued: dict[str, Any]
) -> None:
    files = authority.files(tmp_path / "client", "web", **issued)

    async with calling(certified, files) as channel:
        with pytest.raises((Unavailable, DeadlineExceeded)):
            await asked(certified, channel)


async def test_a_stranger_with_no_certificate_or_a_foreign_one_or_in_plaintext_is_refused(
    certified: Toy, authority: Authority, tmp_path: Path
) -> None:
    foreign = Authority().issue("spiffe://reelworks/operator")
    # The same name and role, even: only the signature differs.
    files = Files(tmp_path / "foreign").write(*foreign, authority.certificate)
    without = grpc.ssl_channel_credentials(authority.certificate)

    async with (
        calling(certified, files) as with_foreign,
        grpc.aio.secure_channel(certified.address, without) as with_none,
        connect(certified.address) as in_plaintext,
    ):
        for channel in (with_foreign, with_none, in_plaintext):
            with pytest.raises((Unavailable, DeadlineExceeded)):
                await asked(certified, channel)
            health: Any = health_pb2_grpc.HealthStub(channel)
            with pytest.raises(grpc.aio.AioRpcError):
                await health.Check(health_pb2.HealthCheckRequest(), timeout=WAIT_S)

    assert certified.asked == 0


@pytest.mark.parametrize(
    "issued",
    [
        {"hosts": (x509.DNSName("credits"),)},
        {"hosts": (x509.IPAddress(ipaddress.ip_address("10.0.0.1")),)},
        {"usages": (CLIENT,)},
        {"days": -1},
    ],
    ids=["another name", "another address", "for clients only", "expired"],
)
async def test_a_server_that_is_not_who_was_called_is_not_told_anything(
    authority: Authority, tmp_path: Path, issued: dict[str, Any]
) -> None:
    operator = authority.files(tmp_path, "operator").read()
    toy = Toy("")

    async def answer(files: Files) -> str:
        async with (
            running_plainly(toy, files) as address,
            connect(address, {"Ask": 2.0}, certificates=operator) as channel,
        ):
            return await asked(toy, channel)

    assert await answer(authority.files(tmp_path, "good")) == "heard you"
    with pytest.raises((Unavailable, DeadlineExceeded)):
        await answer(authority.files(tmp_path, "wrong", **issued))

    assert toy.asked == 1


@contextlib.asynccontextmanager
async def running_plainly(toy: Toy, files: Files) -> AsyncIterator[str]:
    """A server without any care of ours."""
    material = {name: path.read_bytes() for name, path in files.settings.items()}
    server = grpc.aio.server()
    toy.register(server)
    credentials = grpc.ssl_server_credentials(
        [(material["tls_key_file"], material["tls_certificate_file"])],
        material["tls_ca_file"],
        True,
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def test_a_server_of_another_authority_is_not_believed(
    certified: Toy, tmp_path: Path
) -> None:
    elsewhere = Authority().files(tmp_path / "elsewhere", "operator")

    async with connect(certified.address, {"Ask": 2.0}, certificates=elsewhere.read()) as channel:
        with pytest.raises((Unavailable, DeadlineExceeded)):
            await asked(certified, channel)

    assert certified.asked == 0


async def test_health_is_told_to_whoever_has_a_certificate(
    certified: Toy, authority: Authority, tmp_path: Path
) -> None:
    async with calling(certified, authority.files(tmp_path, "credits")) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", NAME, "startup", "ready", "live"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=WAIT_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    "address",
    ["credits:50051", "dns:///credits:50051", "ipv4:127.0.0.1:1,10.0.0.1:1", "0.0.0.0:1", "[::]:1"],
)
async def test_without_certificates_nobody_is_called_elsewhere(address: str) -> None:
    with pytest.raises(PlaintextRefused, match="is not on this machine"):
        connect(address)


async def test_without_certificates_a_channel_is_grpcs_own_which_nothing_slows_down(
    toy: Toy,
) -> None:
    async with connect(toy.address) as channel:
        assert type(channel) is type(grpc.aio.insecure_channel(toy.address))


async def test_a_proxy_in_the_environment_does_not_see_calls(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(100))
        writer.close()

    proxy = await asyncio.start_server(note, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    for name in ("grpc_proxy", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")

    async with connect(toy.address) as channel:
        assert await asked(toy, channel) == "heard you"
    proxy.close()

    assert seen == []
