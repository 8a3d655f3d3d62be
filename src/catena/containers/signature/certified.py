"""Which of a publisher's identities a certificate is, for formats that bring certificates."""

from __future__ import annotations

from datetime import datetime

from catena.containers.signature.policy import PublisherKeys
from catena.containers.signature.refusals import (
    ForgedByCertificate,
    OtherPublisher,
    reached_by,
)
from catena.containers.signature.result import SignatureRefused
from catena.containers.signature.x509 import Presented, verify_identity


def signer_by_certificate(
    presented: Presented, publisher: PublisherKeys, now: datetime, *, holds: bool
) -> tuple[str, datetime | None]:
    """The identity that is proven, and when a log saw it sign.

    ``holds`` says whether the certificate's key made the signature. Raises the refusal of the
    identity that came furthest, or ``ForgedByCertificate``.
    """
    refused: SignatureRefused = OtherPublisher("publisher has no certificates")
    for identity in publisher.identities:
        try:
            logged = verify_identity(presented, identity, now)
        except SignatureRefused as error:
            refused = max(refused, error, key=reached_by)
            continue
        if not holds:
            raise ForgedByCertificate(
                "signature was not made by the certificate's key", expected=str(identity)[:200]
            )
        return str(identity), logged
    raise refused
