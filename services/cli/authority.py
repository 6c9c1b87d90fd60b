"""Makes certificates: those of a private authority, and those of services that it vouches for."""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Authority", "Issued", "is_host", "names_of"]

AUTHORITY_YEARS = 10
CLOCKS_APART = timedelta(minutes=5)
"""How far behind the clock of another machine may be."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
HOST_CHARACTERS_MAX = 253

_HOST = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its key, both in PEM."""

    certificate: bytes
    key: bytes
    expires_at: datetime


class Authority:
    """Whom the services believe; made once."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def new(cls, now: datetime) -> Self:
        """Returns one that is believed for ten years."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Reelworks authority")])
        usage = _usage(signs_certificates=True)
        builder = (
            _builder(name, key.public_key(), now, now + timedelta(days=365 * AUTHORITY_YEARS))
            .issuer_name(name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
        )
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def read(cls, certificate: bytes, key: bytes) -> Self:
        """Returns the one that was made before; raises ValueError that says what is wrong."""
        found = x509.load_pem_x509_certificate(certificate)
        private = serialization.load_pem_private_key(key, password=None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise ValueError("the key is of another kind")
        if private.public_key() != found.public_key():
            raise ValueError("the key is not that of the certificate")
        return cls(found, private)

    @property
    def certificate(self) -> bytes:
        """What others need to believe it, in PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key(self) -> bytes:
        """What it signs with, in PEM."""
        return _pem(self._key)

    @property
    def expires_at(self) -> datetime:
        """Until when it is believed."""
        return self._certificate.not_valid_after_utc

    def issue(
        self,
        role: str,
        hosts: Sequence[str],
        now: datetime,
        lifetime: timedelta,
        *,
        is_server: bool = True,
    ) -> Issued:
        """Returns a certificate of a role, good for this machine and for `hosts`.

        Nobody believes a server that shows one of a role that is none.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        ends_at = min(now + lifetime, self.expires_at)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, role)])
        names: list[x509.GeneralName] = [
            x509.UniformResourceIdentifier(f"spiffe://reelworks/{role}")
        ]
        names += [_general_name(host) for host in dict.fromkeys((*LOOPBACK, role, *hosts))]
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if is_server:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        certificate = (
            _builder(name, key.public_key(), now, ends_at)
            .issuer_name(self._certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return Issued(certificate.public_bytes(serialization.Encoding.PEM), _pem(key), ends_at)


def names_of(certificate: bytes) -> tuple[str, ...]:
    """Returns the hosts that a certificate in PEM names; raises ValueError if it is none."""
    found = x509.load_pem_x509_certificate(certificate)
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = names.get_values_for_type(x509.IPAddress)
    return (*names.get_values_for_type(x509.DNSName), *map(str, addresses))


def is_host(name: str) -> bool:
    """Tells whether a certificate can name it: a DNS name, with `*.` before it or not, or an IP."""
    if _HOST.fullmatch(name):
        return len(name) <= HOST_CHARACTERS_MAX
    return _address(name) is not None


def _general_name(host: str) -> x509.GeneralName:
    address = _address(host)
    return x509.DNSName(host) if address is None else x509.IPAddress(address)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _builder(
    name: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, ends_at: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_APART)
        .not_valid_after(ends_at)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
