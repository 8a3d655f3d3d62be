"""Which key of db lets an image run: what firmware measures as authority (UEFI 2.10, 32.5.3).

Firmware goes through db in its order and measures the first entry that accepts the image: a
certificate that its signature leads to, or its digest. This says which entry that will be; it is
no proof that the signature holds (``osimage.authenticode`` verifies).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import pkcs7

from catena.errors import FormatError
from catena.formats import efi
from catena.formats.efi import EFI_CERT_SHA256, EFI_CERT_X509, SignatureEntry
from catena.formats.pe import PKCS_SIGNED_DATA, PeImage
from catena.ids import HashAlg


def accepting_entry(image: PeImage, db: bytes, dbx: bytes) -> SignatureEntry | None:
    """The db entry that accepts ``image``, or None if there is none or dbx names its digest.

    Raises ``FormatError`` for malformed variables.
    """
    digest = image.authenticode(HashAlg.SHA256)
    revoked = (found for found in efi.parse_signature_lists(dbx))
    if any(entry.data == digest for found in revoked for entry in found.signatures):
        return None
    carried = tuple(_carried(image))
    for found in efi.parse_signature_lists(db):
        for entry in found.signatures:
            if found.type_guid == EFI_CERT_SHA256 and entry.data == digest:
                return entry
            if found.type_guid == EFI_CERT_X509 and _leads_to(carried, entry.data):
                return entry
    return None


def _carried(image: PeImage) -> Iterator[x509.Certificate]:
    """The certificates in the image's signatures."""
    for signature in image.certificates():
        if signature.type == PKCS_SIGNED_DATA:
            try:
                yield from _certificates(signature.content)
            except ValueError as error:
                raise FormatError("the image's signature is no PKCS #7") from error


@lru_cache(maxsize=64)
def _certificates(content: bytes) -> tuple[x509.Certificate, ...]:
    return tuple(pkcs7.load_der_pkcs7_certificates(_without_padding(content)))


def _without_padding(content: bytes) -> bytes:
    """One DER value: some signers count the padding of the certificate table in."""
    if content[:2] != b"\x30\x82":
        return content
    return content[: 4 + int.from_bytes(content[2:4], "big")]


def _leads_to(carried: tuple[x509.Certificate, ...], root: bytes) -> bool:
    """Whether one of the certificates is this one, or was issued by it."""
    try:
        authority = x509.load_der_x509_certificate(root)
    except ValueError:
        return False
    for certificate in carried:
        if certificate == authority:
            return True
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False
