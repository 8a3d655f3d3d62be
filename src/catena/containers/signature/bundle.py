"""Sigstore bundles as image signatures: what cosign 3 makes (``formats.sigstore``).

Either a DSSE envelope around an in-toto Statement whose predicate is cosign's *sign*, about the image's
digest; or a bare signature of the manifest's bytes. The same key may sign other statements about
the image (provenance, scans): those are no permission to run it, and are refused as such.

cosign's statements name no repository. A signed annotation ``org.opencontainers.image.ref.name`` on the
subject, which ``sign`` of this room adds, does.
"""

from __future__ import annotations

from datetime import datetime

from catena.containers.images.source import SignatureArtifact
from catena.containers.signature import x509
from catena.containers.signature.certified import signer_by_certificate
from catena.containers.signature.key import VerificationKey, sha256
from catena.containers.signature.policy import PublisherKeys
from catena.containers.signature.proof import REPOSITORY, Proof, time_of, version_of
from catena.containers.signature.refusals import (
    NotAnImageSignature,
    OtherImage,
    OtherPublisher,
)
from catena.containers.signature.result import SignatureFormat
from catena.formats import dsse, sigstore
from catena.formats.sigstore import Bundle, ImageStatement, SignedDigest, SignedStatement
from catena.ids import ImageDigest

_DIGEST = "sha256:"


def verify(
    artifact: SignatureArtifact, image: ImageDigest, publisher: PublisherKeys, now: datetime
) -> Proof:
    """Prove one bundle. Raises as ``signature.proof`` says."""
    found = sigstore.parse(artifact.content)
    key, identity, logged = _signer(found, image, publisher, now)  # (1)
    if isinstance(found.content, SignedDigest):  # (2)
        return Proof(SignatureFormat.COSIGN_BUNDLE, key, identity, signed_at=logged)
    said = _statement(found.content, image)
    return Proof(
        format=SignatureFormat.COSIGN_BUNDLE,
        key=key,
        identity=identity,
        claim=said.annotations.get(REPOSITORY, ""),
        version=version_of(said.annotations),
        signed_at=time_of(said.annotations) or logged,
    )


def _signer(
    found: Bundle, image: ImageDigest, publisher: PublisherKeys, now: datetime
) -> tuple[str, str, datetime | None]:
    """Key, identity and logged time of whoever of the publisher made the bundle's signature."""
    if not found.certificates:
        key = next((one for one in publisher.keys if _holds(one, found, image)), None)
        if key is not None:
            return key.id, "", None
    elif publisher.identities:
        signed = (
            sha256(found.content.payload)
            if isinstance(found.content, SignedStatement)
            else image.removeprefix(_DIGEST)
        )
        presented = x509.present(
            found.certificates, found.promises, found.content.signature, signed
        )
        holds = _holds(presented.key, found, image)
        identity, logged = signer_by_certificate(presented, publisher, now, holds=holds)
        return presented.key.id, identity, logged
    raise OtherPublisher("bundle is signed by another key", expected=f"a key of {publisher.name}")


def _holds(key: VerificationKey, found: Bundle, image: ImageDigest) -> bool:
    """A message's signature covers the image's manifest itself, whose digest is the image's."""
    content = found.content
    if isinstance(content, SignedStatement):
        return key.holds(content.signature, content.message)
    signed = image.removeprefix(_DIGEST)
    other = content.sha256
    if other not in {None, signed}:
        if other and key.holds_digest(content.signature, bytes.fromhex(other)):
            raise OtherImage("bundle is of other content", expected=image, got=other)
        return False
    return key.holds_digest(content.signature, bytes.fromhex(signed))


def _statement(content: SignedStatement, image: ImageDigest) -> ImageStatement:
    if content.payload_type != dsse.IN_TOTO:
        raise NotAnImageSignature(
            "bundle carries another kind of payload",
            expected=dsse.IN_TOTO,
            got=ascii(content.payload_type[:80]),
        )
    said = sigstore.parse_statement(content.payload)
    if said.predicate_type != sigstore.SIGN_PREDICATE:
        raise NotAnImageSignature(
            "statement is about the image, and does not sign it",
            expected=sigstore.SIGN_PREDICATE,
            got=ascii(said.predicate_type[:120]),
        )
    if said.sha256 != image.removeprefix(_DIGEST):
        raise OtherImage(
            "signature is of another image",
            expected=image,
            got=f"{_DIGEST}{ascii(said.sha256[:80])[1:-1]}",
        )
    return said
