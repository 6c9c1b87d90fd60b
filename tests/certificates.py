"""Certificates as an authority makes them, and as no authority should."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.cli.certs import make_certificates, tls_settings
from services.runtime.tls import Certificates

__all__ = ["CLIENT", "SERVER", "Authority", "Files", "certificates_of", "made_certificates"]

SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
HOSTS = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))


@dataclass(frozen=True)
class Files:
    """The three files of a process."""

    folder: Path

    @property
    def settings(self) -> dict[str, Any]:
        """Fields of the settings of a process that has them."""
        return {
            "tls_certificate_file": self.folder / "tls.crt",
            "tls_key_file": self.folder / "tls.key",
            "tls_ca_file": self.folder / "ca.crt",
        }

    def read(self) -> Certificates:
        return Certificates(*self.settings.values())

    def write(self, certificate: bytes, key: bytes, authorities: bytes) -> "Files":
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, content in (("ca.crt", authorities), ("tls.key", key), ("tls.crt", certificate)):
            draft = self.folder / f"{name}.draft"
            draft.write_bytes(content)
            draft.replace(self.folder / name)
        return self


class Authority:
    """Signs whatever it is asked to."""

    def __init__(self, name: str = "authority") -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        self.certificate = self._sign(self._name, self._key, [(constraints, True)])

    def issue(
        self,
        *uris: str,
        hosts: Sequence[x509.GeneralName] = HOSTS,
        usages: Sequence[x509.ObjectIdentifier] = (SERVER, CLIENT),
        common_name: str = "x",
        days: float = 1,
        first_day: float = -60,
    ) -> tuple[bytes, bytes]:
        """Returns a certificate with its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [*hosts, *map(x509.UniformResourceIdentifier, uris)]
        extensions: list[tuple[x509.ExtensionType, bool]] = []
        if names:
            extensions.append((x509.SubjectAlternativeName(names), False))
        if usages:
            extensions.append((x509.ExtendedKeyUsage(list(usages)), False))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return self._sign(subject, key, extensions, days, first_day), pem

    def files(self, folder: Path, role: str, **choices: Any) -> Files:
        """Writes what a process with a role needs, which believes this authority."""
        issued = self.issue(f"spiffe://reelworks/{role}", **choices)
        return Files(folder / role).write(*issued, self.certificate)

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        extensions: Sequence[tuple[x509.ExtensionType, bool]],
        days: float = 30,
        first_day: float = -60,
    ) -> bytes:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=first_day))
            .not_valid_after(now + timedelta(days=days))
        )
        for extension, is_critical in extensions:
            builder = builder.add_extension(extension, critical=is_critical)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def made_certificates(folder: Path) -> Path:
    """Makes what `reelworks certs` makes, and returns its folder."""
    make_certificates(folder, {}, timedelta(days=1))
    return folder


def certificates_of(folder: Path, role: str) -> Certificates:
    """Returns what a process with a role shows, of the folder that `reelworks certs` made."""
    return Certificates(*map(Path, tls_settings(folder, role).values()))
