"""Who the keys in Secure Boot variables and authority events belong to."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from cryptography import x509

from catena.errors import FormatError
from catena.formats import efi
from catena.formats.certificate import CERTIFICATE_FAULTS
from catena.measure.escape import escape

MAX_SUBJECT = 256
MAX_CERTIFICATE = 16 * 1024
UNREADABLE = "unreadable"
_SHA256_SIZE = 32
_WARNINGS = threading.RLock()


def owners(variable_data: bytes) -> tuple[str, ...]:
    """One line per certificate or hash in a key variable, in order.

    A certificate is its subject (RFC 4514), a hash ``sha256:…``, anything else ``unreadable``,
    a malformed variable as a whole included: no key goes unmentioned.
    """
    try:
        lists = efi.parse_signature_lists(variable_data)
    except FormatError:
        return (UNREADABLE,)
    return tuple(_owner(entry.data) for found in lists for entry in found.signatures)


def authority(variable: efi.VariableData) -> str:
    """Whose certificate or hash admitted an image.

    A database's authority is one EFI_SIGNATURE_DATA (PFP 1.06, 3.3.4.8); shim's, and the
    databases' on some firmware, is a bare certificate.
    """
    if variable.guid == efi.IMAGE_SECURITY_DATABASE:
        try:
            found = _owner(efi.parse_signature_entry(variable.data).data)
        except FormatError:
            return UNREADABLE
        if found != UNREADABLE:
            return found
    return subject(variable.data)


def subject(certificate: bytes) -> str:
    """Subject of a DER certificate, escaped and bounded, or ``unreadable``."""
    return _subject(certificate) if len(certificate) <= MAX_CERTIFICATE else UNREADABLE


def _owner(signature: bytes) -> str:
    """The line for the data of one EFI_SIGNATURE_DATA."""
    return f"sha256:{signature.hex()}" if len(signature) == _SHA256_SIZE else subject(signature)


@lru_cache(maxsize=512)
def _subject(certificate: bytes) -> str:
    """Cached, because a fleet shows the same few certificates in every boot."""
    try:
        with vendors_tolerated():
            name = x509.load_der_x509_certificate(certificate).subject
        return escape(name.rfc4514_string(), MAX_SUBJECT) or "unnamed"
    except CERTIFICATE_FAULTS:
        return UNREADABLE


@contextmanager
def vendors_tolerated() -> Iterator[None]:
    """While certificates are loaded and their names are read, which is where they are decoded.

    Vendors' certificates break X.520's length rules; cryptography warns about each, and
    warning filters are global, hence the lock.
    """
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
