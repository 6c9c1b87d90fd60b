"""Reads the certificates of this process, again when their files change, and makes credentials."""

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from pydantic import model_validator

from services.runtime.identity import named_role
from services.runtime.settings import Settings, exit_with
from services.runtime.telemetry import get_logger

__all__ = [
    "Certificates",
    "Material",
    "TlsSettings",
    "WrongCertificates",
    "channel_credentials",
    "open_certificates",
    "server_credentials",
]

SETTLED_S = 2.0
"""A file that was written less long ago may be written once more within the same tick of its clock,
and look as it did."""
LATE_PART = 5
"""In the last fifth of its life a certificate should have been replaced."""
WARNED_EVERY = timedelta(hours=1)

logger = get_logger(__name__)


class TlsSettings(Settings):
    """Which certificates a process has; all of these settings are set, or none."""

    tls_certificate_file: Path | None = None
    """The certificate that this process shows, in PEM, with what signed it below. With this setting
    and the next two, which are set together, nobody is called or answered by gRPC without
    certificates. The files are read again when they change. None: plaintext, on this machine."""
    tls_key_file: Path | None = None
    """The private key of the certificate, in PEM without a passphrase."""
    tls_ca_file: Path | None = None
    """The certificates, in PEM, of the authorities that are believed, on either side of a call."""

    @property
    def has_tls(self) -> bool:
        """Whether this process shows a certificate, and wants to see those of others."""
        return self.tls_ca_file is not None

    @model_validator(mode="after")
    def _has_all_or_none(self) -> Self:
        names = ("tls_certificate_file", "tls_key_file", "tls_ca_file")
        given = [name.upper() for name in names if getattr(self, name) is not None]
        for name in (name.upper() for name in names):
            if given and name not in given:
                raise ValueError(f"REELWORKS_{name}: must be set, since REELWORKS_{given[0]} is")
        return self


class WrongCertificates(Exception):
    """Certificates that cannot be used; the text is a line for whoever set them."""


@dataclass(frozen=True, slots=True)
class Material:
    """What stands in the files of a process, all of which belongs together."""

    certificate: bytes
    key: bytes
    authorities: bytes
    role: str
    """Who this process is to others."""
    expires_at: datetime
    late_at: datetime
    """When it should have been replaced by another."""


class Certificates:
    """The certificates of this process as they are now; it may be asked by any thread.

    Raises WrongCertificates if they cannot be used from the start. Later ones that cannot be, as
    when half of them are written yet, change nothing but the log.
    """

    def __init__(self, certificate: Path, key: Path, authorities: Path) -> None:
        self._files = {
            "TLS_CERTIFICATE_FILE": certificate,
            "TLS_KEY_FILE": key,
            "TLS_CA_FILE": authorities,
        }
        self._lock = threading.Lock()
        self._complaint = ""
        self._seen = self._look()
        self._material = self._read()
        self._warn_at = self._material.late_at

    def current(self) -> Material:
        """Returns what the files hold; the same object while they do not change."""
        with self._lock:
            seen = self._look()
            if seen != self._seen or not seen:
                self._take(seen)
            now = datetime.now(UTC)
            if now >= self._warn_at:
                self._warn_at = now + WARNED_EVERY
                expires_at = self._material.expires_at.isoformat()
                logger.warning("certificate expires soon", expires_at=expires_at)
            return self._material

    def _take(self, seen: tuple[object, ...]) -> None:
        """Uses what the files hold now, if it can be used."""
        self._seen = seen
        try:
            material = self._read()
        except WrongCertificates as error:
            # The same files may be right later, as when they are not valid yet.
            self._seen = ()
            if str(error) != self._complaint:
                self._complaint = str(error)
                logger.warning("certificates not taken, the old ones are kept", cause=str(error))
            return
        self._complaint = ""
        if material != self._material:
            self._material, self._warn_at = material, material.late_at
            logger.info(
                "new certificates", role=material.role, expires_at=material.expires_at.isoformat()
            )

    def _look(self) -> tuple[object, ...]:
        """Returns what changes when a file does; nothing while that cannot be told."""
        try:
            found = [path.stat() for path in self._files.values()]
        except OSError:
            return ()
        if time.time() - max(file.st_mtime for file in found) < SETTLED_S:
            return ()
        return tuple((file.st_mtime_ns, file.st_size, file.st_ino) for file in found)

    def _read(self) -> Material:
        contents = {}
        for name, path in self._files.items():
            try:
                contents[name] = path.read_bytes()
            except OSError as error:
                raise self._wrong(name, str(error.strerror)) from None
        leaf = self._certificates("TLS_CERTIFICATE_FILE", contents)[0]
        if leaf.public_key() != self._private_key(contents["TLS_KEY_FILE"]).public_key():
            raise self._wrong("TLS_KEY_FILE", "must be the key of REELWORKS_TLS_CERTIFICATE_FILE")
        if not any(map(_may_sign, self._certificates("TLS_CA_FILE", contents))):
            raise self._wrong("TLS_CA_FILE", "must have the certificate of an authority (CA:TRUE)")
        now = datetime.now(UTC)
        if not leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
            rule = (
                f"must be valid now, and is from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} "
                f"until {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
            )
            raise self._wrong("TLS_CERTIFICATE_FILE", rule)
        role = named_role(_uris(leaf))
        if role is None:
            rule = "must have exactly one URI among its names, spiffe://reelworks/<role>"
            raise self._wrong("TLS_CERTIFICATE_FILE", rule)
        certificate, key, authorities = contents.values()
        ends_at = leaf.not_valid_after_utc
        late_at = ends_at - (ends_at - leaf.not_valid_before_utc) / LATE_PART
        return Material(certificate, key, authorities, role, ends_at, late_at)

    def _certificates(self, name: str, contents: dict[str, bytes]) -> list[x509.Certificate]:
        try:
            return x509.load_pem_x509_certificates(contents[name])
        except ValueError:
            raise self._wrong(name, "must have a certificate in PEM") from None

    def _private_key(self, content: bytes) -> PrivateKeyTypes:
        try:
            return serialization.load_pem_private_key(content, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            rule = "must have a private key in PEM, without a passphrase"
            raise self._wrong("TLS_KEY_FILE", rule) from None

    def _wrong(self, name: str, rule: str) -> WrongCertificates:
        return WrongCertificates(f"REELWORKS_{name}: {self._files[name]}: {rule}")


def open_certificates(settings: TlsSettings) -> Certificates | None:
    """Returns the certificates that the settings name, None if they name none.

    Those that cannot be used end the process with exit code 2.
    """
    certificate, key, authorities = (
        settings.tls_certificate_file,
        settings.tls_key_file,
        settings.tls_ca_file,
    )
    if certificate is None or key is None or authorities is None:
        return None
    try:
        return Certificates(certificate, key, authorities)
    except WrongCertificates as error:
        exit_with(str(error))


def server_credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Returns credentials of a server that wants to see certificates, and shows the newest."""
    used = certificates.current()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        """Is asked before each handshake, by a thread of gRPC's."""
        nonlocal used
        current = certificates.current()
        if current is used:
            return None
        used = current
        return _configuration(current)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(used),
        changed,  # type: ignore[arg-type]  # The stubs forgot None, which says no change.
        require_client_authentication=True,
    )


def channel_credentials(material: Material) -> grpc.ChannelCredentials:
    """Returns credentials of a channel that shows a certificate and believes the authorities."""
    return grpc.ssl_channel_credentials(material.authorities, material.key, material.certificate)


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.certificate)], material.authorities
    )


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return found.value.ca
