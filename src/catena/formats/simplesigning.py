"""The payload of simple signing, which cosign's older signatures share.

``containers/image``, "atomic-signature.md"; ``cosign``, "SIGNATURE_SPEC.md"::

    {"critical": {"type": …,
                  "image": {"docker-manifest-digest": "sha256:…"},
                  "identity": {"docker-reference": "registry/name[:tag]"}},
     "optional": {…} | null}

``critical`` has exactly these members: whoever does not understand one must refuse, so nobody
may add any. ``optional`` may hold anything; of it ``creator`` and ``timestamp`` (Unix time) have a
meaning in the first specification, and cosign puts the signer's annotations there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from catena.errors import FormatError
from catena.formats import ijson, oci
from catena.ids import ImageDigest

COSIGN_TYPE = "cosign container image signature"
ATOMIC_TYPE = "atomic container signature"
MAX_PAYLOAD = 64 * 1024
MAX_TIME = 2**37
"""Seconds: the year 6325, within what ``datetime`` can hold."""


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    pass


class _Image(_Strict, frozen=True, rename="kebab"):
    docker_manifest_digest: str


class _Identity(_Strict, frozen=True, rename="kebab"):
    docker_reference: str


class _Critical(_Strict, frozen=True):
    identity: _Identity
    image: _Image
    type: str


class _Payload(_Strict, frozen=True):
    critical: _Critical
    optional: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class SimpleSigning:
    """A payload; *untrusted* until a signature over exactly its bytes holds.

    ``texts`` are those optional members that are texts. ``timestamp`` is None if there is none.
    """

    type: str
    reference: str
    image: ImageDigest
    texts: Mapping[str, str]
    creator: str
    timestamp: datetime | None


def parse(data: bytes) -> SimpleSigning:
    """Read a payload. Raises ``FormatError``."""
    payload = ijson.decode(data, _Payload, limit=MAX_PAYLOAD, what="simple signing payload")
    critical, optional = payload.critical, payload.optional or {}
    texts = {name: value for name, value in optional.items() if isinstance(value, str)}
    if "creator" in optional and "creator" not in texts:
        raise FormatError("creator is no text")
    return SimpleSigning(
        type=critical.type,
        reference=critical.identity.docker_reference,
        image=oci.parse_digest(critical.image.docker_manifest_digest),
        texts=texts,
        creator=texts.get("creator", ""),
        timestamp=_moment(optional),
    )


def encode(image: ImageDigest, reference: str, annotations: Mapping[str, str]) -> bytes:
    """A payload as cosign writes it: compact, ``critical`` in alphabetical order."""
    critical = _Critical(_Identity(reference), _Image(image), COSIGN_TYPE)
    return msgspec.json.encode(_Payload(critical, dict(annotations) or None))


def _moment(optional: Mapping[str, object]) -> datetime | None:
    """``timestamp`` in seconds; a text of that name is an annotation, not the member meant here."""
    seconds = optional.get("timestamp")
    if seconds is None or isinstance(seconds, str):
        return None
    whole = isinstance(seconds, int) and not isinstance(seconds, bool)
    if not whole or not 0 <= seconds <= MAX_TIME:  # type: ignore[operator]  # an int by now
        raise FormatError("timestamp is no Unix time", got=ascii(seconds)[:40])
    return datetime.fromtimestamp(seconds, UTC)  # type: ignore[arg-type]  # as above
