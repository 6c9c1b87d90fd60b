"""`reelworks certs` makes what services believe, keeps what is secret, and writes over nothing."""

import json
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from services.cli.certs import ROLES
from tests.certificates import certificates_of
from tests.end_to_end.running import environment, reelworks

SERVER_AUTH, CLIENT_AUTH = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


def certs(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        reelworks("certs", *arguments),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def names(folder: Path, role: str) -> set[str]:
    found = x509.load_pem_x509_certificate((folder / role / "tls.crt").read_bytes())
    extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return {str(name.value) for name in extension.value}


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_each_role_gets_a_certificate_that_its_process_can_use(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    made = certs(
        *("--folder", str(folder), "--dns", "credits=credits.example", "--dns", "all=10.0.0.7")
    )

    assert made.returncode == 0, made.stderr
    expected = {"ca.pem", "private/ca.key"}
    expected |= {f"{role}/{file}" for role in ROLES for file in ("tls.crt", "tls.key", "ca.crt")}
    assert set(content(folder)) == expected
    for role in ROLES:
        material = certificates_of(folder, role).current()
        left = material.expires_at - datetime.now(UTC)
        assert material.role == role
        assert timedelta(days=89) < left < timedelta(days=90)
        own = {"credits.example"} if role == "credits" else set()
        assert names(folder, role) == own | {
            *("localhost", "127.0.0.1", "::1", role, "10.0.0.7"),
            f"spiffe://reelworks/{role}",
        }
    for path in folder.rglob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert "BEGIN" not in made.stdout + made.stderr
    assert f"Keep {folder}/private/ca.key apart" in made.stdout
    assert f"export REELWORKS_TLS_KEY_FILE={folder}/operator/tls.key" in made.stdout


def test_nothing_is_written_over_but_by_renewal_or_force(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    made = certs(
        *("--folder", str(folder), "--dns", "credits=credits.example", "--dns", "web=web.example")
    )
    assert made.returncode == 0, made.stderr
    first = content(folder)

    again = certs("--folder", str(folder))
    assert again.returncode == 2
    assert again.stderr == (
        f"error: {folder}/ca.pem is there already; --renew makes new certificates from it, "
        "--force makes everything anew\n"
    )
    assert content(folder) == first

    renewed = certs("--folder", str(folder), "--renew", "--days", "7", "--json")
    assert renewed.returncode == 0, renewed.stderr
    lines = [json.loads(line) for line in renewed.stdout.splitlines()]
    assert {line["file"] for line in lines} == {
        f"{folder}/{name}" for name in first if name not in ("ca.pem", "private/ca.key")
    }
    second = content(folder)
    assert second["ca.pem"] == first["ca.pem"]
    assert second["private/ca.key"] == first["private/ca.key"]
    for role in ROLES:
        assert second[f"{role}/tls.crt"] != first[f"{role}/tls.crt"]
        assert second[f"{role}/tls.key"] != first[f"{role}/tls.key"]
        assert ("credits.example" in names(folder, role)) == (role == "credits")
        assert ("web.example" in names(folder, role)) == (role == "web")
        left = certificates_of(folder, role).current().expires_at - datetime.now(UTC)
        assert timedelta(days=6) < left < timedelta(days=7)

    assert certs("--folder", str(folder), "--force").returncode == 0
    assert content(folder)["ca.pem"] != first["ca.pem"]
    assert "credits.example" in names(folder, "credits")

    moved = certs("--folder", str(folder), "--renew", "--dns", "web=studio.example")
    assert moved.returncode == 0, moved.stderr
    assert "studio.example" in names(folder, "web")
    assert "web.example" not in names(folder, "web")
    assert "credits.example" not in names(folder, "credits"), "only what --dns says"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--renew"], "ca.pem is missing, which --renew needs"),
        (["--renew", "--force"], "--renew"),
        (["--dns", "web=spiffe://reelworks/operator"], "is no DNS name"),
        (["--dns", "web=a b"], "is no DNS name"),
        (["--dns", "web="], "is no DNS name"),
        (["--dns", "web=ünï.example"], "is no DNS name"),
        (["--dns", "web=" + "a." * 127], "is no DNS name"),
        (["--dns", "credits.example"], "must be ROLE=NAME"),
        (["--dns", "simulator=a.example"], "must be ROLE=NAME"),
        (["--dns", ""], "must be ROLE=NAME"),
        (["--days", "0"], "--days"),
        (["--days", "3651"], "--days"),
    ],
)
def test_what_cannot_be_is_refused(arguments: list[str], said: str, tmp_path: Path) -> None:
    refused = certs("--folder", str(tmp_path / "certs"), *arguments)

    assert refused.returncode == 2
    assert said in refused.stderr
    assert not (tmp_path / "certs").exists()


def test_an_authority_that_was_tampered_with_signs_nothing(tmp_path: Path) -> None:
    folder, other = tmp_path / "certs", tmp_path / "other"
    for one in (folder, other):
        assert certs("--folder", str(one)).returncode == 0
    (folder / "private" / "ca.key").write_bytes((other / "private" / "ca.key").read_bytes())
    before = content(folder)

    refused = certs("--folder", str(folder), "--renew")

    assert refused.returncode == 2
    assert "the key is not that of the certificate" in refused.stderr
    assert content(folder) == before


def test_a_key_of_a_role_that_is_no_server_cannot_pose_as_one(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    assert certs("--folder", str(folder)).returncode == 0

    servers = {role for role in ROLES if SERVER_AUTH in usages(folder, role)}

    assert servers == {"credits", "generation", "webhook"}
    assert all(CLIENT_AUTH in usages(folder, role) for role in ROLES)


def usages(folder: Path, role: str) -> x509.ExtendedKeyUsage:
    found = x509.load_pem_x509_certificate((folder / role / "tls.crt").read_bytes())
    return found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value


def test_a_certificate_without_names_is_replaced_too(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    assert certs("--folder", str(folder)).returncode == 0
    (folder / "web" / "tls.crt").write_bytes((folder / "ca.pem").read_bytes())

    renewed = certs("--folder", str(folder), "--renew")

    assert renewed.returncode == 0, renewed.stderr
    assert "web" in names(folder, "web")


def test_lines_for_a_shell_survive_a_folder_with_a_space(tmp_path: Path) -> None:
    folder = tmp_path / "my certs"

    made = certs("--folder", str(folder))

    assert f"export REELWORKS_TLS_KEY_FILE='{folder}/operator/tls.key'" in made.stdout
