"""Endorsement documents: a certificate or revocation list that a person vouched for, and files of them.

The predicate ``urn:catena:endorsement:v1`` of an in-toto Statement, sealed with the log key:

============  ===========================================================================
``type``      ``root``, ``intermediate`` or ``crl``
``vouches``   the kind of a root (``vendor``, ``enterprise``, ``software``), else empty
``name``      what it is called here
``file``      the file that it came from
``source``    where that came from, in the words of whoever imported it
``content``   the certificate or list itself, DER
============  ===========================================================================

Vendors publish DER files, PEM files with one or many blocks (RFC 7468), and folders of both.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Literal

import msgspec

from catena.errors import FormatError
from catena.formats.references import Document

ENDORSEMENT_TYPE = "urn:catena:endorsement:v1"
MAX_CONTENT = 8 * 1024 * 1024
MAX_BLOCKS = 4096

Type = Literal["root", "intermediate", "crl"]
Vouches = Literal["vendor", "enterprise", "software"]
Content = Annotated[bytes, msgspec.Meta(max_length=MAX_CONTENT)]
FileName = Annotated[str, msgspec.Meta(max_length=512)]
Source = Annotated[str, msgspec.Meta(max_length=200)]

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,32})-----\s(.*?)-----END \1-----", re.DOTALL)
_LABELS = (b"CERTIFICATE", b"X509 CERTIFICATE", b"X509 CRL")
_MARK = b"-----BEGIN "


class NoEndorsements(FormatError):
    """A file that holds no certificate and no revocation list."""

    code = "no-endorsements"
    remedy = "Give certificates or CRLs in DER or PEM, a zip of them, or a folder."


class EndorsementDocument(Document, frozen=True, kw_only=True):
    """One certificate or list with its provenance."""

    type: Type
    vouches: Vouches | Literal[""] = ""
    name: Annotated[str, msgspec.Meta(max_length=63)]
    file: FileName = ""
    source: Source = ""
    content: Content


def split(data: bytes) -> tuple[bytes, ...]:
    """The DER values of a file: of its PEM blocks, or the file itself. Raises ``NoEndorsements``.

    Text around the blocks is left out; a block of another kind, or one that is damaged, is not.
    """
    if _MARK not in data:
        if not data:
            raise NoEndorsements("an empty file")
        return (data,)
    found = tuple(_decoded(match) for match in _BLOCK.finditer(data))
    if len(found) != data.count(_MARK):
        raise NoEndorsements("a PEM block is damaged")
    if len(found) > MAX_BLOCKS:
        raise NoEndorsements("too many PEM blocks", expected=f"at most {MAX_BLOCKS}")
    return found


def _decoded(block: re.Match[bytes]) -> bytes:
    label, body = block[1], block[2]
    if label not in _LABELS:
        raise NoEndorsements(
            "a PEM block of another kind",
            offset=block.start(),
            expected="CERTIFICATE or X509 CRL",
            got=label.decode("ascii"),
        )
    try:
        return base64.b64decode(b"".join(body.split()), validate=True)
    except binascii.Error as error:
        raise NoEndorsements("a PEM block is damaged", offset=block.start()) from error


def pem(content: bytes, kind: Type) -> str:
    """A certificate or list as PEM."""
    label = "X509 CRL" if kind == "crl" else "CERTIFICATE"
    body = base64.encodebytes(content).decode("ascii").replace("\n", "")
    lines = "\n".join(body[at : at + 64] for at in range(0, len(body), 64))
    return f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n"
