"""Whom this node believes: the cluster CA of its configuration, until the trust service names its successors.

A CA is rotated with an overlap (``service.authorities``). An answer that comes over TLS from a server that an authority vouches for
may name others: they replace what was believed, all of it, and are kept in the runtime directory until the machine restarts.
After a restart the configured CA counts again, so the image has to carry the new one before the old is dropped.

The file's name has a digest of the configured CA: whoever configures another CA means that one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from cryptography import x509

from catena.agent.delivery import write_private
from catena.errors import FormatError, Unavailable
from catena.formats.certificate import CERTIFICATE_FAULTS

_MAX_FILE = 64 * 1024


def authorities_file(configured: Path, runtime_dir: Path) -> Path:
    """The PEM file that counts now. Raises ``Unavailable``."""
    learned = _learned(configured, runtime_dir)
    return learned if learned.exists() else configured


def keep(configured: Path, runtime_dir: Path, bundle: str) -> bool:
    """Believe these from now on; True if others were believed before. Raises ``Unavailable``."""
    path = _learned(configured, runtime_dir)
    try:
        if path.exists() and path.read_text() == bundle:
            return False
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        write_private(new, bundle.encode())
        new.replace(path)
    except OSError as error:
        raise Unavailable(f"cannot write {path}", got=error.strerror) from error
    return True


def load(path: Path) -> tuple[x509.Certificate, ...]:
    """The authorities in a PEM file. Raises ``Unavailable`` or ``FormatError``."""
    return parse(_read(path))


def parse(pem: bytes) -> tuple[x509.Certificate, ...]:
    """The authorities of a bundle, one at least. Raises ``FormatError``."""
    try:
        found = x509.load_pem_x509_certificates(pem)
    except CERTIFICATE_FAULTS as error:
        raise FormatError("the cluster CA is no PEM certificate") from error
    return tuple(found)


def _learned(configured: Path, runtime_dir: Path) -> Path:
    digest = hashlib.sha256(_read(configured)).hexdigest()
    return runtime_dir / f"authorities-{digest[:16]}.pem"


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE)
    except OSError as error:
        raise Unavailable(f"cannot read {path}", got=error.strerror) from error
