"""Leaves: an entry sealed as a signed in-toto Statement, and read back strictly.

The Statement goes into a DSSE envelope signed by the log key, and the envelope's compact JSON is
the leaf.
"""

from __future__ import annotations

from datetime import UTC

import msgspec

from catena.audit.entries import KINDS, Entry
from catena.audit.tiles import MAX_ENTRY
from catena.errors import CatenaError, FormatError
from catena.formats import dsse
from catena.formats.dsse import Statement
from catena.keys.envelope import open_envelope, seal
from catena.keys.signer import PublicKey, Signer, key_id_of

_DECODERS = {uri: msgspec.json.Decoder(kind) for uri, kind in KINDS.items()}


class UnloggableEntry(CatenaError):
    """An entry whose fields break their own limits: it is not logged, so nothing is decided."""

    code = "unloggable-entry"
    remedy = "This is a defect in catena: an entry must be abridged before it is logged."


def seal_entry(signer: Signer, entry: Entry) -> bytes:
    """The leaf for an entry. Raises ``UnloggableEntry`` rather than log what cannot be read."""
    uri = entry.predicate_type()
    predicate = msgspec.json.encode(entry)
    try:
        if _DECODERS[uri].decode(predicate) != entry or entry.at.utcoffset() != UTC.utcoffset(None):
            raise UnloggableEntry("entry does not survive its own encoding", got=entry.kind)
    except msgspec.ValidationError as error:
        raise UnloggableEntry(f"entry breaks its limits: {error}", got=entry.kind) from error
    statement = Statement(
        subject=entry.subjects(), predicate_type=uri, predicate=msgspec.Raw(predicate)
    )
    leaf = seal(signer, statement).encode()
    if len(leaf) > MAX_ENTRY:
        raise UnloggableEntry(
            "entry is too large", expected=f"at most {MAX_ENTRY} bytes", got=f"{len(leaf)}"
        )
    return leaf


def open_entry(leaf: bytes, key: PublicKey) -> Entry:
    """Verify a leaf's signature and read its entry.

    1. The envelope is signed by the log key.
    2. Its payload is a Statement of a known kind, its predicate an entry of that kind.
    3. The subjects are those that this entry has.
    4. The envelope is spelled as ``seal_entry`` spells it, to the last bit.

    Raises ``Refusal`` (1) or ``FormatError`` (2 to 4).
    """
    # 1.
    statement = open_envelope(leaf, (key,))
    # 2.
    decoder = _DECODERS.get(statement.predicate_type)
    if decoder is None:
        raise FormatError("entry is of an unknown kind", got=ascii(statement.predicate_type[:80]))
    try:
        entry = decoder.decode(statement.predicate)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # The decoder quotes names that the entry has, at any length.
        raise FormatError(f"entry cannot be read: {str(error)[:200]}") from error
    # 3.
    if entry.subjects() != statement.subject:
        raise FormatError("the statement's subjects are not those of its entry")
    # 4.
    envelope = dsse.parse(leaf)
    if [one.keyid for one in envelope.signatures] != [key_id_of(key)] or envelope.encode() != leaf:
        raise FormatError("the envelope is not spelled the way the log writes it")
    return entry
