"""Formats that have proofs of their own kind, as ``verify`` asks for them: notation, simple signing, ACI.

A publisher's identities vouch for notation (twice: by notation's rules for certificates, and by the
policy's), its OpenPGP keys for the other two. A bare key vouches for none: notation needs a
certificate, and no OpenPGP key is a PEM.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from catena.containers.images.source import SignatureArtifact
from catena.containers.signature import aci, notation, simple
from catena.containers.signature.certificates import UntrustedRoot
from catena.containers.signature.key import key_of
from catena.containers.signature.notation import NotationTrust, SignedOtherImage
from catena.containers.signature.openpgp import UnknownOpenPgpKey
from catena.containers.signature.policy import PublisherKeys
from catena.containers.signature.proof import Proof, version_of
from catena.containers.signature.refusals import OtherImage, OtherPublisher, reached_by
from catena.containers.signature.result import SignatureFormat, SignatureRefused
from catena.containers.signature.x509 import Identity, Presented, verify_identity
from catena.ids import ImageDigest


def verify_notation(
    artifact: SignatureArtifact, image: ImageDigest, publisher: PublisherKeys, now: datetime
) -> Proof:
    """A JWS or COSE envelope by one of the publisher's identities. It claims no repository."""
    refused: SignatureRefused = OtherPublisher("publisher has no certificates")
    for identity in publisher.identities:
        try:
            return _by_identity(artifact, image, identity, now)
        except SignatureRefused as error:
            refused = max(refused, error, key=reached_by)
    raise refused


def verify_simple(
    artifact: SignatureArtifact, image: ImageDigest, publisher: PublisherKeys, now: datetime
) -> Proof:
    """A simple signing message by one of the publisher's OpenPGP keys."""
    with _told():
        proof = simple.verify(artifact.content, image, publisher.openpgp, now)
    return Proof(
        format=SignatureFormat.SIMPLE_SIGNING,
        key=proof.fingerprint,
        claim=proof.reference,
        signed_at=proof.signed_at,
    )


def verify_aci(
    artifact: SignatureArtifact, image: ImageDigest, publisher: PublisherKeys, now: datetime
) -> Proof:
    """An ACI by one of the publisher's OpenPGP keys. Its name is the repository that it claims."""
    with _told():
        proof = aci.prove(artifact.detached, artifact.content, publisher.openpgp, now)
    if proof.image != image:
        raise OtherImage("signature is of another image", expected=image, got=proof.image)
    return Proof(
        format=SignatureFormat.ACI,
        key=proof.fingerprint,
        claim=proof.name,
        version=proof.version,
        signed_at=proof.signed_at,
    )


def _by_identity(
    artifact: SignatureArtifact, image: ImageDigest, identity: Identity, now: datetime
) -> Proof:
    with _told():
        proof = notation.verify(
            artifact.media_type, artifact.content, image, NotationTrust(identity.roots), now
        )
    leaf, *others = proof.chain
    presented = Presented(leaf, tuple(others), key_of(leaf.public_key()), (), b"", "")
    verify_identity(presented, identity, now)
    return Proof(
        format=proof.format,
        key=proof.key,
        identity=str(identity),
        version=version_of(proof.target.annotations),
        signed_at=proof.signed_at,
    )


@contextmanager
def _told() -> Iterator[None]:
    """The words of ``verify`` for what these formats have errors of their own for."""
    try:
        yield
    except (UntrustedRoot, UnknownOpenPgpKey) as error:
        raise OtherPublisher(error.message, expected=error.expected, got=error.got) from error
    except SignedOtherImage as error:
        raise OtherImage(error.message, expected=error.expected, got=error.got) from error
