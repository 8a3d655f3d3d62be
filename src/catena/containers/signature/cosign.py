"""cosign's older signatures: a simple signing payload beside a signature of its bytes.

``cosign``, "SIGNATURE_SPEC.md". The payload is a layer of the manifest that the tag ``sha256-<hex>.sig``
names; the layer's annotations hold everything else:

========================================  =====================================================
``dev.cosignproject.cosign/signature``     signature over the payload, base64
``dev.sigstore.cosign/certificate``        PEM certificate of the key, or nothing for a bare key
``dev.sigstore.cosign/chain``              PEM certificates above it
``dev.sigstore.cosign/bundle``             a log's promise (``formats.rekor``)
========================================  =====================================================

The payload names the repository. cosign itself does not compare it; ``verify`` of this room does.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime

from cryptography.hazmat.primitives.serialization import Encoding

from catena.containers.images.source import SignatureArtifact
from catena.containers.signature import x509
from catena.containers.signature.certified import signer_by_certificate
from catena.containers.signature.key import sha256, signer_of
from catena.containers.signature.policy import PublisherKeys
from catena.containers.signature.proof import Proof, time_of, version_of
from catena.containers.signature.refusals import (
    NotAnImageSignature,
    OtherImage,
    OtherPublisher,
)
from catena.containers.signature.result import SignatureFormat
from catena.errors import FormatError
from catena.formats import rekor, simplesigning
from catena.ids import ImageDigest

SIGNATURE = "dev.cosignproject.cosign/signature"
CERTIFICATE = "dev.sigstore.cosign/certificate"
CHAIN = "dev.sigstore.cosign/chain"
LOG_ENTRY = "dev.sigstore.cosign/bundle"
MAX_TEXT = 512 * 1024


def verify(
    artifact: SignatureArtifact, image: ImageDigest, publisher: PublisherKeys, now: datetime
) -> Proof:
    """Prove one signature. Raises as ``signature.proof`` says."""
    payload, notes = artifact.content, artifact.annotations
    signature = _signature(notes)
    key, identity, logged = "", "", None  # (1) somebody of the publisher signed these bytes
    if (signer := signer_of(publisher.keys, signature, payload)) is not None:
        key = signer.id
    elif CERTIFICATE in notes and publisher.identities:
        presented = _presented(notes, signature, payload)
        holds = presented.key.holds(signature, payload)
        identity, logged = signer_by_certificate(presented, publisher, now, holds=holds)
        key = presented.key.id
    else:
        raise OtherPublisher("signature is of another key", expected=f"a key of {publisher.name}")
    signed = simplesigning.parse(payload)  # (2) and they say that they sign this image
    if signed.type != simplesigning.COSIGN_TYPE:
        raise NotAnImageSignature(
            "signed payload is of another kind",
            expected=simplesigning.COSIGN_TYPE,
            got=ascii(signed.type[:80]),
        )
    if signed.image != image:
        raise OtherImage("signature is of another image", expected=image, got=signed.image)
    return Proof(
        format=SignatureFormat.COSIGN,
        key=key,
        identity=identity,
        claim=signed.reference,
        version=version_of(signed.texts),
        signed_at=signed.timestamp or time_of(signed.texts) or logged,
    )


def _signature(notes: Mapping[str, str]) -> bytes:
    text = notes.get(SIGNATURE, "")
    if not text or len(text) > MAX_TEXT:
        raise FormatError("cosign signature is missing or too large")
    try:
        # Some signers wrap lines, as base64(1) does.
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError("cosign signature is not base64") from error


def _presented(notes: Mapping[str, str], signature: bytes, payload: bytes) -> x509.Presented:
    pem = "\n".join((notes[CERTIFICATE], notes.get(CHAIN, "")))
    if len(pem) > MAX_TEXT:
        raise FormatError("certificates are too large", expected=f"at most {MAX_TEXT}")
    certificates = [one.public_bytes(Encoding.DER) for one in x509.pem_certificates(pem)]
    promises = (rekor.parse_annotation(notes[LOG_ENTRY].encode()),) if LOG_ENTRY in notes else ()
    return x509.present(certificates, promises, signature, sha256(payload))
