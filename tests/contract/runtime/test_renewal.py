"""Certificates are replaced while calls go on."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from structlog.testing import capture_logs

from services.runtime.channel import connect, invoke
from services.runtime.errors import DeadlineExceeded, Unavailable
from services.runtime.metrics import Metrics
from services.runtime.renewal import RenewedChannel
from services.runtime.tls import Certificates
from tests.certificates import Authority, Files
from tests.contract.runtime.conftest import Text, Toy, running_toy

WAIT_S = 20.0
TOY = "spiffe://reelworks/toy"
OPERATOR = "spiffe://reelworks/operator"


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await holds():  # noqa: ASYNC110  Files have no events.
            await asyncio.sleep(0.02)


async def tell_caller(_value: str, context: Any) -> str:
    """Answers with the common name of the caller's certificate."""
    (name,) = context.auth_context()["x509_common_name"]
    return str(name.decode())


async def asked(toy: Toy, channel: grpc.aio.Channel) -> str:
    return str((await invoke(toy.unary(channel), Text(value="you"))).value)


def shown(address: str, files: Files) -> int:
    """Returns the serial number of the certificate that a server shows in a new handshake."""
    context = ssl.create_default_context(cafile=files.settings["tls_ca_file"])
    context.load_cert_chain(files.settings["tls_certificate_file"], files.settings["tls_key_file"])
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with (
        contextlib.closing(socket.create_connection((host, int(port)))) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        content = secure.getpeercert(binary_form=True)
    assert content is not None
    return x509.load_der_x509_certificate(content).serial_number


def serial(pair: tuple[bytes, bytes]) -> int:
    return x509.load_pem_x509_certificate(pair[0]).serial_number


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def server(authority: Authority, tmp_path: Path) -> Files:
    return authority.files(tmp_path, "toy")


@pytest.fixture
def client(authority: Authority, tmp_path: Path) -> Files:
    return authority.files(tmp_path, "operator", common_name="first")


@pytest.fixture
async def certified(server: Files, client: Files) -> AsyncIterator[Toy]:
    async with running_toy(certificates=client.read(), **server.settings) as running:
        running.handler = tell_caller
        yield running


async def test_a_server_shows_a_new_certificate_in_the_next_handshake(
    certified: Toy, authority: Authority, server: Files, client: Files
) -> None:
    before = await asyncio.to_thread(shown, certified.address, client)
    pair = authority.issue(TOY)

    server.write(*pair, authority.certificate)
    after = await asyncio.to_thread(shown, certified.address, client)

    assert before != after
    assert after == serial(pair)
    assert await asked(certified, certified.channel) == "first"


async def test_a_client_shows_a_new_certificate_and_its_stubs_do_not_notice(
    certified: Toy, authority: Authority, client: Files
) -> None:
    stub = certified.unary(certified.channel)
    assert (await invoke(stub, Text())).value == "first"

    client.write(*authority.issue(OPERATOR, common_name="second"), authority.certificate)

    async def is_second() -> bool:
        return bool((await invoke(stub, Text())).value == "second")

    await eventually(is_second)


async def test_a_stream_ends_on_the_channel_on_which_it_began_which_is_closed_then(
    certified: Toy, authority: Authority, client: Files
) -> None:
    channel = certified.channel
    assert isinstance(channel, RenewedChannel)
    first = channel.present()
    certified.handler = None
    stream = certified.streaming(channel)(Text())
    assert (await stream.read()).value == "first"

    client.write(*authority.issue(OPERATOR), authority.certificate)

    async def is_replaced() -> bool:
        return channel.present() is not first

    await eventually(is_replaced)
    assert await asked(certified, channel) == "heard you"
    assert list(channel._replaced.values()) == [first]

    async def takes_no_more() -> bool:
        try:
            await certified.unary(first)(Text())
        except grpc.aio.UsageError:
            return True
        return False

    await eventually(takes_no_more)
    assert not stream.done()
    certified.stopping.set()
    assert await stream.read() is grpc.aio.EOF

    async def is_closed() -> bool:
        return not channel._replaced

    await eventually(is_closed)


async def test_no_call_fails_while_both_sides_are_renewed_again_and_again(
    certified: Toy, authority: Authority, server: Files, client: Files
) -> None:
    seen: list[str] = []
    ended = asyncio.Event()

    async def go_on() -> None:
        while not ended.is_set():
            seen.append(await asked(certified, certified.channel))

    callers = [asyncio.create_task(go_on()) for _ in range(4)]
    for number in range(3):
        server.write(*authority.issue(TOY), authority.certificate)
        name = f"renewed {number}"
        client.write(*authority.issue(OPERATOR, common_name=name), authority.certificate)

        async def is_seen(name: str = name) -> bool:
            return seen[-1:] == [name]

        await eventually(is_seen)
    ended.set()
    await asyncio.gather(*callers)

    assert len(seen) > 100
    assert list(dict.fromkeys(seen)) == ["first", "renewed 0", "renewed 1", "renewed 2"]


async def test_an_authority_is_replaced_by_way_of_both(
    certified: Toy, authority: Authority, server: Files, client: Files, tmp_path: Path
) -> None:
    other = Authority("another")
    both = authority.certificate + other.certificate
    old = Files(tmp_path / "old").write(*authority.issue(OPERATOR), both)

    def write(files: Files, authorities: bytes, pair: tuple[bytes, bytes] | None = None) -> None:
        settings = files.settings
        certificate, key = pair or (
            settings["tls_certificate_file"].read_bytes(),
            settings["tls_key_file"].read_bytes(),
        )
        files.write(certificate, key, authorities)

    async def answers() -> bool:
        return await asked(certified, certified.channel) == "second"

    write(server, both)
    write(client, both)
    write(server, both, other.issue(TOY))
    write(client, both, other.issue(OPERATOR, common_name="second"))
    await eventually(answers)
    async with connect(certified.address, certificates=old.read()) as channel:
        assert await asked(certified, channel) == "x"
    write(server, other.certificate)
    write(client, other.certificate)

    async with connect(certified.address, {"Ask": 2.0}, certificates=old.read()) as channel:
        with pytest.raises((Unavailable, DeadlineExceeded)):
            await asked(certified, channel)
    assert await answers()


async def test_certificates_that_are_half_written_change_nothing_but_the_log(
    certified: Toy, authority: Authority, server: Files, client: Files
) -> None:
    before = await asyncio.to_thread(shown, certified.address, client)
    certificate, key = authority.issue(TOY)
    place = server.settings["tls_certificate_file"]
    whole = place.read_bytes()

    with capture_logs() as logs:
        for content in (certificate, certificate[: len(certificate) // 2], b"", None):
            if content is None:
                place.unlink()
            else:
                place.write_bytes(content)
            assert await asyncio.to_thread(shown, certified.address, client) == before
            warned = [line for line in logs if line["log_level"] == "warning"]
            assert warned[-1]["event"] == "certificates not taken, the old ones are kept"
            assert "REELWORKS_TLS_" in warned[-1]["cause"]
            assert b"PRIVATE" not in str(warned).encode()
            place.write_bytes(whole)
            assert await asyncio.to_thread(shown, certified.address, client) == before
    place.write_bytes(certificate)
    server.settings["tls_key_file"].write_bytes(key)

    assert await asyncio.to_thread(shown, certified.address, client) == serial((certificate, key))


@pytest.mark.parametrize(("days", "warnings"), [(60, 0), (1, 1)])
def test_a_certificate_that_nobody_replaces_is_complained_about_in_time(
    days: int, warnings: int, authority: Authority, tmp_path: Path
) -> None:
    certificates = authority.files(tmp_path, "web", days=days).read()

    with capture_logs() as logs:
        for _ in range(10):
            certificates.current()

    said = [line for line in logs if line["event"] == "certificate expires soon"]
    assert len(said) == warnings
    assert all(line["expires_at"] for line in said)


async def test_the_files_are_read_again_only_when_they_have_changed(
    authority: Authority, client: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = client.read()

    async def is_settled() -> bool:
        certificates.current()
        return bool(certificates._seen)

    await eventually(is_settled)
    read: list[int] = []
    monkeypatch.setattr(Certificates, "_read", lambda _: read.append(1))
    first = certificates.current()

    assert all(certificates.current() is first for _ in range(100))
    assert read == []
    monkeypatch.undo()
    client.write(*authority.issue(OPERATOR), authority.certificate)
    assert certificates.current() is not first


async def test_a_server_measures_until_when_its_certificate_is_good(server: Files) -> None:
    metrics, certificates = Metrics(), server.read()

    async with running_toy(certificates=certificates, metrics=metrics, **server.settings):
        expires_s = metrics.registry.get_sample_value("reelworks_certificate_expires_timestamp")

    assert expires_s == certificates.current().expires_at.timestamp()
