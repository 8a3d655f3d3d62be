"""What reading a stranger's X.509 certificate may raise.

``cryptography`` decodes a certificate's parts only when they are first asked for, so a certificate
that loads may still fail where its subject, issuer, extensions or key are read. Whoever reads one
that a stranger sent catches these around both.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.utils import CryptographyDeprecationWarning

CERTIFICATE_FAULTS: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    # A serial number below 1 is only warned of, so far; where warnings are errors it is one.
    CryptographyDeprecationWarning,
)


def issuer_and_serial(der: bytes) -> tuple[str, str] | tuple[None, None]:
    """Who issued a certificate (RFC 4514) and its number in hex; nothing if these cannot be read."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        return certificate.issuer.rfc4514_string(), f"{certificate.serial_number:x}"
    except CERTIFICATE_FAULTS:
        return None, None
