"""Certificates that cannot be used are named, with the rule that they break, at the start."""

import os
import subprocess
import sys
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Self

import pytest

from services.runtime import tls
from services.runtime.settings import load_settings
from services.runtime.tls import TlsSettings, open_certificates
from tests.certificates import Authority, Files

NAMES = ("TLS_CERTIFICATE_FILE", "TLS_KEY_FILE", "TLS_CA_FILE")
EARLIER_S = 1_700_000_000.0


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Authority().files(tmp_path, "credits")


def refusal(files: Files, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as raised:
        open_certificates(TlsSettings(**files.settings))
    assert raised.value.code == 2
    return capsys.readouterr().err.replace(str(files.folder), "…")


def test_all_of_them_or_none(
    files: Files, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert open_certificates(TlsSettings()) is None
    for missing in NAMES:
        for name in NAMES:
            monkeypatch.setenv(f"REELWORKS_{name}", str(files.settings[name.lower()]))
        monkeypatch.delenv(f"REELWORKS_{missing}")
        with pytest.raises(SystemExit) as raised:
            load_settings(TlsSettings)
        other = next(name for name in NAMES if name != missing)

        assert raised.value.code == 2
        expected = f"error: REELWORKS_{missing}: must be set, since REELWORKS_{other} is\n"
        assert capsys.readouterr().err == expected


def test_good_ones_are_read(files: Files) -> None:
    certificates = open_certificates(TlsSettings(**files.settings))

    assert certificates is not None
    assert certificates.current().role == "credits"


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_not_there(
    name: str, files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    path = files.settings[name.lower()]
    path.unlink()

    said = refusal(files, capsys)

    assert said == f"error: REELWORKS_{name}: …/{path.name}: No such file or directory\n"


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("TLS_CERTIFICATE_FILE", "must have a certificate in PEM"),
        ("TLS_KEY_FILE", "must have a private key in PEM, without a passphrase"),
        ("TLS_CA_FILE", "must have a certificate in PEM"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"\xff" * 1000])
def test_a_file_with_something_else(
    name: str, rule: str, content: bytes, files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    path = files.settings[name.lower()]
    path.write_bytes(content)

    assert refusal(files, capsys) == f"error: REELWORKS_{name}: …/{path.name}: {rule}\n"


@pytest.mark.parametrize(
    ("uris", "choices", "name", "rule"),
    [
        (["spiffe://reelworks/web"], {"days": -1}, NAMES[0], "must be valid now, and is from"),
        ([], {}, NAMES[0], "must have exactly one URI among its names"),
        (["spiffe://reelworks/web", "https://x"], {}, NAMES[0], "must have exactly one URI"),
        (["spiffe://reelworks/web/x"], {}, NAMES[0], "must have exactly one URI"),
        ([], {"hosts": ()}, NAMES[0], "must have exactly one URI"),
    ],
)
def test_a_certificate_that_others_would_not_take(
    uris: list[str],
    choices: dict[str, Any],
    name: str,
    rule: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    authority = Authority()
    files = Files(tmp_path / "x").write(*authority.issue(*uris, **choices), authority.certificate)

    assert f"REELWORKS_{name}: …/tls.crt: {rule}" in refusal(files, capsys)


class DayAfterTomorrow(datetime):
    """The clock as it will be."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + timedelta(days=2)


def test_a_certificate_of_tomorrow_is_taken_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority()
    files = authority.files(tmp_path, "credits")
    certificates = files.read()
    first = certificates.current()
    issued = authority.issue("spiffe://reelworks/credits", first_day=1, days=30)
    files.write(*issued, authority.certificate)
    for path in files.settings.values():
        os.utime(path, (EARLIER_S, EARLIER_S))  # Nobody writes them any more.

    refused = [certificates.current() for _ in range(3)]
    monkeypatch.setattr(tls, "datetime", DayAfterTomorrow)

    assert refused == [first] * 3
    assert certificates.current().certificate == issued[0]


def test_files_that_do_not_belong_together(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Authority().issue("spiffe://reelworks/credits")
    certificate, key, _ = (path.read_bytes() for path in files.settings.values())

    files.write(certificate, other[1], Authority().certificate)
    assert "TLS_KEY_FILE: …/tls.key: must be the key of REELWORKS_TLS_CERTIFICATE_FILE" in (
        refusal(files, capsys)
    )
    files.write(certificate, key, other[0])
    assert "TLS_CA_FILE: …/ca.crt: must have the certificate of an authority (CA:TRUE)" in (
        refusal(files, capsys)
    )


def start(service: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("REELWORKS_")
    }
    return subprocess.run(
        [sys.executable, "-m", f"services.{service}"],
        env=environment | {f"REELWORKS_{name}": value for name, value in settings.items()},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_processes_end_with_2_and_a_line(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("azE=\n")
    common = {
        "ADDRESS": "127.0.0.1:0",
        "CREDITS_ADDRESS": "127.0.0.1:1",
        "GENERATION_ADDRESS": "dns:///generation:50051",
        "CALLBACK_KEYS_FILE": str(keys),
        "SESSION_KEYS_FILE": str(keys),
    }

    calls_elsewhere = start("web", **common)
    half = start("web", **common, TLS_CA_FILE=str(tmp_path / "ca.crt"))

    assert (calls_elsewhere.returncode, half.returncode) == (2, 2)
    assert calls_elsewhere.stderr == (
        "error: REELWORKS_GENERATION_ADDRESS: dns:///generation:50051 is not on this machine; "
        "without certificates (REELWORKS_TLS_CERTIFICATE_FILE, REELWORKS_TLS_KEY_FILE, "
        "REELWORKS_TLS_CA_FILE) only loopback addresses are called\n"
    )
    assert half.stderr == (
        "error: REELWORKS_TLS_CERTIFICATE_FILE: must be set, since REELWORKS_TLS_CA_FILE is\n"
    )
