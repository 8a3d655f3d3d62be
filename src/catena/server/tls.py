"""The server's TLS identity: a P-256 key, and a certificate from the cluster CA.

The certificate is renewed whenever the server starts, and when the authority that vouches for the server
changes; its lifetime only has to outlast one run. Clients trust the cluster CA and nothing else. TLS 1.3 only:
every client is ours.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from catena.audit.folder import replace_file
from catena.errors import UsageError
from catena.keys.authority import issue_server_certificate
from catena.keys.signer import Signer, load_signer
from catena.service.authorities import Authorities, bundle_pem

KEY_FILE = "tls.key"
CERTIFICATE_FILE = "tls.crt"
CA_FILE = "ca.crt"
LIFETIME = timedelta(days=90)

_DNS_NAME = re.compile(
    r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)


class BadServerName(UsageError):
    """A server name that is neither a DNS name nor an address."""

    code = "bad-server-name"
    remedy = "Give lower-case DNS names or IP addresses with --name."


def parse_name(text: str) -> str | IPv4Address | IPv6Address:
    """A DNS name or an IP address. Raises ``BadServerName``."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        if _DNS_NAME.fullmatch(text):
            return text
    raise BadServerName("not a DNS name or address", got=ascii(text[:80]))


def renew(
    folder: Path, ca: Signer, ca_certificate: x509.Certificate, names: Sequence[str], now: datetime
) -> None:
    """Issue the server's certificate and put it in place at once or not at all."""
    key = load_signer(folder / KEY_FILE)
    certificate = issue_server_certificate(
        ca,
        ca_certificate,
        key.public_key,
        names=[parse_name(name) for name in names],
        not_before=now,
        lifetime=LIFETIME,
    )
    fresh = folder / f".{CERTIFICATE_FILE}.new"
    fresh.write_bytes(certificate.public_bytes(Encoding.PEM))
    fresh.replace(folder / CERTIFICATE_FILE)


class Identity:
    """What the listener presents, and what clients are told to trust, through rotations of the CA."""

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        authorities: Authorities,
        now: Callable[[], datetime],
    ) -> None:
        self._folder = folder
        self._names = names
        self._authorities = authorities
        self._now = now
        self._present: ssl.SSLContext | None = None

    def renew(self) -> None:
        """A new certificate, and the trust bundle beside it. New connections see it at once."""
        now = self._now()
        ca = self._authorities.presenting(now)
        renew(self._folder, ca.signer, ca.certificate, self._names, now)
        bundle = bundle_pem(self._authorities.believed(now))
        replace_file(self._folder / CA_FILE, bundle.encode())
        self._present = server_context(self._folder)

    def context(self) -> ssl.SSLContext:
        """For the listener: each handshake takes what is presented at that moment."""
        context = server_context(self._folder)
        context.sni_callback = self._choose  # called without a server name, too
        return context

    def _choose(self, connection: ssl.SSLObject, _name: object, _context: object) -> None:
        if self._present is not None:
            connection.context = self._present


def server_context(folder: Path) -> ssl.SSLContext:
    """What the listener presents."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(folder / CERTIFICATE_FILE, folder / KEY_FILE)
    return context
