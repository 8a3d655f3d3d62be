"""What a notation signature signs, and notation's trust policy documents.

Payload (Notary Project "OCI signature specification", media type
``application/vnd.cncf.notary.payload.v1+json``): ``{"targetArtifact": descriptor}``, a descriptor with
mediaType, digest, size and annotations.

Trust policy ("Trust store and trust policy", version 1.0): ``trustPolicies``, each with
``registryScopes`` (repositories, or ``*`` alone), ``signatureVerification``, ``trustStores``
(``ca:name``, ``signingAuthority:name``, ``tsa:name``) and ``trustedIdentities``.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from catena.formats import ijson

PAYLOAD_TYPE = "application/vnd.cncf.notary.payload.v1+json"
ARTIFACT_TYPE = "application/vnd.cncf.notary.signature"
JWS_TYPE = "application/jose+json"
COSE_TYPE = "application/cose"

Digest = Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]
Texts = Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=256)]


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What is signed: an OCI content descriptor. Fields that catena does not use are passed over,
    as the image specification asks.
    """

    media_type: str
    digest: Digest
    size: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
    annotations: dict[str, str] = msgspec.field(default_factory=dict)


class Payload(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The signed statement."""

    target_artifact: Descriptor

    def encode(self) -> bytes:
        """Compact JSON; ``parse_payload`` gives it back."""
        return msgspec.json.encode(self)


class SignatureVerification(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):  # fmt: skip
    """How strictly notation would verify; catena knows ``strict`` and ``skip``."""

    level: Literal["strict", "permissive", "audit", "skip"]
    override: dict[str, str] = msgspec.field(default_factory=dict)
    verify_timestamp: str = ""


class TrustPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Whom to trust for some repositories."""

    name: str
    registry_scopes: Texts
    signature_verification: SignatureVerification
    trust_stores: Annotated[tuple[str, ...], msgspec.Meta(max_length=256)] = ()
    trusted_identities: Annotated[tuple[str, ...], msgspec.Meta(max_length=256)] = ()


class TrustPolicyDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A whole document. A repository has one policy at most."""

    version: Literal["1.0"]
    trust_policies: Annotated[tuple[TrustPolicy, ...], msgspec.Meta(min_length=1, max_length=1024)]


def parse_payload(data: bytes) -> Payload:
    """Read the payload of a signature. Raises ``FormatError``."""
    return ijson.decode(data, Payload, what="notation payload")


def parse_trust_policy(data: bytes) -> TrustPolicyDocument:
    """Read a trust policy document. Raises ``FormatError``."""
    return ijson.decode(data, TrustPolicyDocument, what="notation trust policy")
