"""Simple signing: an OpenPGP message around a statement about an image.

``containers/image``, "atomic-signature.md". The message has one signature; its content names the
manifest digest and the reference (``registry/name:tag``) that the signer meant. Tools keep such
signatures beside the image: ``signature-1`` in a ``dir:`` folder, in a lookaside store, or in an
atomic registry's own API.

1. The message's signature holds under one of the keys (``openpgp``).
2. Only then is the statement read.
3. It names exactly the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from catena.containers.signature import openpgp
from catena.containers.signature.notation import SignedOtherImage
from catena.formats import ijson
from catena.ids import ImageDigest

_REFERENCE = (
    r"^[a-z0-9][a-z0-9.:_-]*(/[a-z0-9]+([._-]+[a-z0-9]+)*)+(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?\Z"
)


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """Whoever does not understand a critical member must refuse."""


class _Image(_Strict, frozen=True, rename="kebab"):
    docker_manifest_digest: Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]


class _Identity(_Strict, frozen=True, rename="kebab"):
    docker_reference: Annotated[str, msgspec.Meta(pattern=_REFERENCE, max_length=512)]


class _Critical(_Strict, frozen=True, rename="kebab"):
    type: Literal["atomic container signature"]
    image: _Image
    identity: _Identity


class _Payload(_Strict, frozen=True, rename="kebab"):
    critical: _Critical
    optional: dict[str, msgspec.Raw] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SimpleSigningProof:
    """Proven: the owner of the OpenPGP key ``fingerprint`` signed ``image`` as ``reference``.

    ``signed_at`` is the signer's word, from the OpenPGP signature.
    """

    image: ImageDigest
    reference: str
    fingerprint: str
    signing_key: str
    signed_at: datetime


def verify(
    message: bytes, image: ImageDigest, keys: Sequence[bytes], now: datetime
) -> SimpleSigningProof:
    """Verify a signature of ``image``. Raises ``FormatError``, or a subclass of ``SignatureRefused``."""
    content, proof = openpgp.prove_inline(message, keys, now)  # (1)
    reference, digest, _ = parse_simple_signing(content)  # (2)
    if digest != image:  # (3)
        raise SignedOtherImage("signature is of another image", expected=image, got=digest)
    return SimpleSigningProof(
        image, reference, proof.fingerprint, proof.signing_key, proof.signed_at
    )


def parse_simple_signing(payload: bytes) -> tuple[str, ImageDigest, Mapping[str, msgspec.Raw]]:
    """The reference, the manifest digest and the optional members. Raises ``FormatError``."""
    parsed = ijson.decode(payload, _Payload, what="simple signing statement")
    critical = parsed.critical
    return (
        critical.identity.docker_reference,
        ImageDigest(critical.image.docker_manifest_digest),
        parsed.optional,
    )
