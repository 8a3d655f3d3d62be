"""Reference documents: what a release, a key set or a firmware may measure.

Each is the predicate of an in-toto Statement in a DSSE envelope (``formats.dsse``):

=================================  ==================================================
``urn:catena:reference:release:v1``   ``ReleaseManifest``, signed by the release key
``urn:catena:reference:keyset:v1``    ``KeySet``, signed by the release key
``urn:catena:reference:firmware:v1``  ``FirmwareCapture``, approved by a person
``urn:catena:reference:pcrpolicy:v1`` ``PcrPolicy``, imported by an administrator
=================================  ==================================================

Digests are maps from hash name (``sha256``, ``sha384``) to lower-case hex. PCR tables are maps
from bank to a map from PCR index (as a string) to lower-case hex.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec

from catena.errors import FormatError

RELEASE_TYPE = "urn:catena:reference:release:v1"
KEYSET_TYPE = "urn:catena:reference:keyset:v1"
FIRMWARE_TYPE = "urn:catena:reference:firmware:v1"
PCR_POLICY_TYPE = "urn:catena:reference:pcrpolicy:v1"

Digests = dict[str, str]
PcrTable = dict[str, dict[str, str]]


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the documents' structs: strict, immutable, ordered fields."""


T = TypeVar("T", bound=Document)


class ExpectedEvent(Document, frozen=True, kw_only=True):
    """One measurement that is accounted for: PCR, digests, and what it is in words.

    ``id`` is stable within its reference (``uki``, ``section:.cmdline``, ``db``).
    """

    id: str
    pcr: int
    what: str
    digests: Digests


class Uki(Document, frozen=True, kw_only=True):
    """The unified kernel image: Authenticode digests of the signed file, section digests."""

    authenticode: Digests
    sections: dict[str, Digests]
    file_sha256: str
    stub: str


class VerityRoot(Document, frozen=True, kw_only=True):
    """dm-verity parameters of the root file system (``veritysetup``, format 1)."""

    root_hash: str
    salt: str
    hash_algorithm: str
    data_block_size: int
    hash_block_size: int
    data_blocks: int


class ReleaseManifest(Document, frozen=True, kw_only=True):
    """One signed, atomic OS version and every measurement it explains.

    ``security_version`` only ever grows; ``revokes`` names releases that must not be admitted
    any more; ``pcrs`` are final values for the PCRs that the release alone decides.
    """

    name: str
    version: str
    security_version: int
    architecture: str
    kernel: str
    command_line: str
    uki: Uki
    root: VerityRoot
    disk_sha256: str
    revokes: tuple[str, ...] = ()
    events: tuple[ExpectedEvent, ...]
    pcrs: PcrTable


class KeySet(Document, frozen=True, kw_only=True):
    """The firmware's Secure Boot variables with exactly the enterprise's keys.

    ``certificates`` maps variable name to the subjects enrolled in it.
    """

    name: str
    version: str
    owner: str
    certificates: dict[str, tuple[str, ...]]
    events: tuple[ExpectedEvent, ...]
    pcrs: PcrTable


class FirmwareCapture(Document, frozen=True, kw_only=True):
    """Measurements of one firmware build and machine type, captured from a real boot."""

    name: str
    version: str
    node: str
    boot_log_sha256: str
    events: tuple[ExpectedEvent, ...]
    pcrs: PcrTable


RuleKind = Literal["raw", "binary", "ascii"]


class PcrRule(Document, frozen=True, kw_only=True):
    """One alternative of a PCR policy (``formats.pcrpolicy``).

    ``value`` is a PCR's final value or an event's digest in hex, or a pattern that has to match
    an event's whole text behind the word ``prefix``.
    """

    id: str
    pcr: int
    kind: RuleKind
    prefix: str = ""
    value: str
    what: str = ""


class PcrPolicy(Document, frozen=True, kw_only=True):
    """An imported PCR policy; ``warnings`` say what of the original does not hold any more."""

    name: str
    version: str
    source_sha256: str
    rules: tuple[PcrRule, ...]
    warnings: tuple[str, ...] = ()

    @property
    def events(self) -> tuple[ExpectedEvent, ...]:
        """The rules as people read them; only those about digests can be found by digest."""
        return tuple(map(_event_of, self.rules))


BANK_OF_SIZE = {64: "sha256", 96: "sha384", 128: "sha512"}
"""Hash by the length of its hex digits."""


def _event_of(rule: PcrRule) -> ExpectedEvent:
    digests = {BANK_OF_SIZE.get(len(rule.value), ""): rule.value} if rule.kind == "binary" else {}
    shown = f" /{rule.value}/" if rule.kind == "ascii" else ""
    what = f"{rule.prefix}{shown} {rule.what}".strip()
    return ExpectedEvent(id=rule.id, pcr=rule.pcr, what=what, digests=digests)


FORMS: dict[str, type[ReleaseManifest | KeySet | FirmwareCapture]] = {
    RELEASE_TYPE: ReleaseManifest,
    KEYSET_TYPE: KeySet,
    FIRMWARE_TYPE: FirmwareCapture,
}
"""The documents that state measurements in order, by the type of their predicate."""


_MAX_COMPLAINT = 200
"""Characters of what is wrong: it may quote a document."""


def parse_predicate(raw: bytes | msgspec.Raw, kind: type[T]) -> T:
    """Decode one predicate strictly. Raises ``FormatError``."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"not a {kind.__name__}: {str(error)[:_MAX_COMPLAINT]}") from error
