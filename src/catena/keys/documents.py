"""Reference and policy documents (``formats.references``, ``formats.policies``, ``formats.containerpolicy``,
``formats.launchpolicy``) as signed envelopes, both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from catena.errors import FormatError
from catena.formats.containerpolicy import CONTAINER_POLICY_TYPE, ContainerPolicy
from catena.formats.dsse import Statement, Subject
from catena.formats.launchpolicy import LAUNCH_POLICY_TYPE, LaunchPolicy
from catena.formats.policies import POLICY_TYPE, PolicyDocument
from catena.formats.references import (
    FIRMWARE_TYPE,
    KEYSET_TYPE,
    RELEASE_TYPE,
    Document,
    FirmwareCapture,
    KeySet,
    ReleaseManifest,
    parse_predicate,
)
from catena.keys.envelope import open_envelope, seal
from catena.keys.signer import PublicKey, Signer

T = TypeVar("T", bound=Document)

_PREDICATE_TYPES: dict[type[Document], str] = {
    ReleaseManifest: RELEASE_TYPE,
    KeySet: KEYSET_TYPE,
    FirmwareCapture: FIRMWARE_TYPE,
    PolicyDocument: POLICY_TYPE,
    ContainerPolicy: CONTAINER_POLICY_TYPE,
    LaunchPolicy: LAUNCH_POLICY_TYPE,
}


class WrongDocument(FormatError):
    """A signed document of another kind than the one asked for."""

    code = "wrong-document"
    remedy = "Give the document of the kind this command reads."


def seal_document(document: Document, subjects: Sequence[Subject], signer: Signer) -> bytes:
    """The document as a signed envelope."""
    statement = Statement(
        subject=tuple(subjects),
        predicate_type=_PREDICATE_TYPES[type(document)],
        predicate=msgspec.Raw(msgspec.json.encode(document)),
    )
    return seal(signer, statement).encode()


def open_document(data: bytes, keys: Sequence[PublicKey], kind: type[T]) -> T:
    """Verify an envelope and read the document. Raises as ``open_envelope``, or ``WrongDocument``."""
    statement = open_envelope(data, keys)
    expected = _PREDICATE_TYPES[kind]
    if statement.predicate_type != expected:
        raise WrongDocument(
            "signed document is of another kind",
            expected=expected,
            got=ascii(statement.predicate_type[:80]),
        )
    return parse_predicate(statement.predicate, kind)
