"""What one signature of one format proves, before the policy is asked about it.

A format's module has one function ``verify(artifact, image, publisher, now) -> Proof``. It raises
``OtherPublisher`` if none of the publisher's keys made the signature, ``OtherImage`` if the
signature covers another image, ``FormatError`` for what cannot be read, or another ``SignatureRefused``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from catena.containers.signature.result import SignatureFormat
from catena.errors import FormatError
from catena.formats import oci

REPOSITORY = oci.REF_NAME
VERSIONS = (oci.VERSION, "version")
TIMES = (oci.CREATED,)
"""Signed annotations that mean something here: ``registry/name[:tag]``; a version; a time (RFC 3339)."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Proven: the publisher's ``key`` signed the image.

    ``claim`` is the reference that the signature covers, ``registry/name[:tag]``, or empty.
    ``identity`` is empty for a bare key. ``version`` and ``signed_at`` are what the signer (or, for
    the time, a log of the policy) says.
    """

    format: SignatureFormat
    key: str
    identity: str = ""
    claim: str = ""
    version: str = ""
    signed_at: datetime | None = None


def version_of(annotations: Mapping[str, str]) -> str:
    """The signed version. Raises ``FormatError`` if there are two that differ."""
    found = {annotations[name] for name in VERSIONS if name in annotations}
    if len(found) > 1:
        raise FormatError("signature states two versions", got=ascii(sorted(found))[:120])
    return next(iter(found), "")


def time_of(annotations: Mapping[str, str]) -> datetime | None:
    """The signed time. Raises ``FormatError`` for one that is no RFC 3339 time with a zone."""
    text = next((annotations[name] for name in TIMES if name in annotations), None)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise FormatError("signed time is no RFC 3339 time", got=ascii(text[:40])) from error
    if moment.tzinfo is None:
        raise FormatError("signed time has no zone", got=ascii(text[:40]))
    return moment
