"""What verification of an image's signature establishes, whatever the format.

``verify`` functions of this room return a ``VerifiedImage`` or raise a ``SignatureRefused``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from catena.errors import Refusal
from catena.ids import ImageDigest, Sha256Hex


class SignatureFormat(StrEnum):
    """How an image is signed."""

    COSIGN = "cosign"
    COSIGN_BUNDLE = "cosign-bundle"
    NOTATION_JWS = "notation-jws"
    NOTATION_COSE = "notation-cose"
    SIMPLE_SIGNING = "simple-signing"
    ACI = "aci"


class SignatureRefused(Refusal):
    """An image has no signature that its policy accepts. Subclasses say why."""

    code = "signature-refused"
    remedy = "Do not run the image; obtain one that its publisher signed for this repository."


@dataclass(frozen=True, slots=True)
class VerifiedImage:
    """Proven: ``publisher`` signed exactly ``image``, and ``policy`` lets it run as ``repository``.

    ``claimed_repository`` is the repository that the signature itself covers, or empty where the
    format signs none (then the publisher's key is bound to the scope). ``key`` is the hex SHA-256
    of the SPKI, or an OpenPGP fingerprint; ``identity`` what of the certificate the policy
    asked for. ``version`` and ``signed_at`` are the signed ones, or empty and None. ``scope`` is the rule of the policy that
    applied, ``policy`` the digest of the whole policy document. ``index`` is empty, or the digest of
    the index that was signed instead and lists ``image``.
    """

    image: ImageDigest
    repository: str
    publisher: str
    format: SignatureFormat
    claimed_repository: str
    key: str
    identity: str
    version: str
    signed_at: datetime | None
    scope: str
    policy: Sha256Hex
    index: str = ""
