"""Which key of db lets an image run: what firmware measures as authority (UEFI 2.10, 32.5.3).

Firmware takes the image's signatures in turn and measures the first certificate of db that the
signature's chain leads to; an image without one runs if its digest is in db. Neither its digest
nor a certificate of the chain may be in dbx. This says which entry that will be; it is no proof
that the signature holds (``osimage.authenticode`` verifies).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from uuid import UUID

from asn1crypto import cms
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from catena.formats import efi
from catena.formats.certificate import CERTIFICATE_FAULTS
from catena.formats.efi import EFI_CERT_SHA256, EFI_CERT_X509, SignatureEntry
from catena.formats.pe import PKCS_SIGNED_DATA, PeImage
from catena.ids import HashAlg
from catena.measure.signers import vendors_tolerated

EFI_CERT_X509_SHA256 = UUID("3bd2a492-96c0-4079-b420-fcf98ef103ed")

_MAX_CHAIN = 8
_DIGESTS = (HashAlg.SHA256, HashAlg.SHA384, HashAlg.SHA512, HashAlg.SHA1)

_Chain = tuple[x509.Certificate, ...]


def accepting_entry(image: PeImage, db: bytes, dbx: bytes) -> SignatureEntry | None:
    """The db entry that accepts ``image``, or None if there is none or dbx forbids it.

    Raises ``FormatError`` for malformed variables.
    """
    digest = image.authenticode(HashAlg.SHA256)
    if any(kind == EFI_CERT_SHA256 and one.data == digest for kind, one in _entries(dbx)):
        return None
    for chain in _chains(image):
        if _is_revoked(chain, dbx):
            return None
        for kind, entry in _entries(db):
            if kind == EFI_CERT_X509 and _leads_to(chain, entry.data):
                return entry
    named = (one for kind, one in _entries(db) if kind == EFI_CERT_SHA256 and one.data == digest)
    return next(named, None)


def _entries(variable: bytes) -> Iterator[tuple[UUID, SignatureEntry]]:
    for found in efi.parse_signature_lists(variable):
        for entry in found.signatures:
            yield found.type_guid, entry


def _chains(image: PeImage) -> Iterator[_Chain]:
    """The chain of each signature that speaks of this image, as far as it is carried along."""
    digests = [image.authenticode(algorithm) for algorithm in _DIGESTS]
    for signature in image.certificates():
        if signature.type == PKCS_SIGNED_DATA and any(one in signature.content for one in digests):
            yield _chain(signature.content)


@lru_cache(maxsize=64)
@vendors_tolerated()
def _chain(content: bytes) -> _Chain:
    """From the signer up; empty for what is no PKCS #7."""
    try:
        signed = cms.ContentInfo.load(content)["content"]
        carried = [_load(one.chosen.dump()) for one in signed["certificates"]]
        signer = signed["signer_infos"][0]["sid"].chosen
        issuer, serial = signer["issuer"].dump(), signer["serial_number"].native
        chain = [
            one
            for one in carried
            if one.serial_number == serial and one.issuer.public_bytes() == issuer
        ][:1]
    except (*CERTIFICATE_FAULTS, KeyError, IndexError, AttributeError):
        return ()
    while chain and len(chain) < _MAX_CHAIN:
        above = [one for one in carried if one not in chain and _issued(chain[-1], one)][:1]
        if not above:
            break
        chain += above
    return tuple(chain)


def _leads_to(chain: Sequence[x509.Certificate], root: bytes) -> bool:
    """Whether one of the chain is this certificate, or was issued by it."""
    try:
        authority = _load(root)
    except CERTIFICATE_FAULTS:
        return False
    return any(one == authority or _issued(one, authority) for one in chain)


def _is_revoked(chain: _Chain, dbx: bytes) -> bool:
    """Whether dbx has a certificate that the chain leads to, whole or by the hash of its content.

    A revocation by hash may state from when on; it counts from the beginning here.
    """
    contents = [hashlib.sha256(one.tbs_certificate_bytes).digest() for one in chain]
    for kind, entry in _entries(dbx):
        if kind == EFI_CERT_X509 and _leads_to(chain, entry.data):
            return True
        if kind == EFI_CERT_X509_SHA256 and entry.data[:32] in contents:
            return True
    return False


def _issued(child: x509.Certificate, parent: x509.Certificate) -> bool:
    try:
        child.verify_directly_issued_by(parent)
    except (InvalidSignature, *CERTIFICATE_FAULTS):
        return False
    return True


def _load(certificate: bytes) -> x509.Certificate:
    with vendors_tolerated():
        return x509.load_der_x509_certificate(certificate)
