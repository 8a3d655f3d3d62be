"""The server's TLS identity: a P-256 key, and a certificate from the cluster CA.

The certificate is renewed whenever the server starts; its lifetime only has to outlast one
run. Clients trust the cluster CA and nothing else. TLS 1.3 only: every client is ours.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from catena.errors import UsageError
from catena.keys.authority import issue_server_certificate
from catena.keys.signer import Signer, load_signer

KEY_FILE = "tls.key"
CERTIFICATE_FILE = "tls.crt"
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


def server_context(folder: Path) -> ssl.SSLContext:
    """What the listener presents."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(folder / CERTIFICATE_FILE, folder / KEY_FILE)
    return context
