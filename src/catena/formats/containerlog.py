"""Container records: what a node's gate decided, as content of a canonical event log.

A record is CEL-TLV (``formats.cel``) whose content has type ``CONTENT`` and is one compact
JSON object, ``{"kind": …}``; the digests are over exactly these bytes, in every bank. They are
extended in order into one PCR (15 by default). Times are RFC 3339 UTC and, like all of it, the
gate's word: a verifier believes it because the boot proved the gate.

==============  =====================================================================
``gate-start``  a gate began; ``boot`` is the kernel's boot ID, ``bank_values`` the PCR it found
``policy``      the container policy in force from here on
``create``      a container was allowed to start
``deny``        something was refused; nothing ran
``exec``        a command was allowed into a running container
``exit``        a container is gone
==============  =====================================================================

Environment values are never in a record: each is ``HMAC-SHA256(key, name=value)`` under a key
that does not leave the gate's memory.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import msgspec

from catena.errors import FormatError

CONTENT = 0x90
"""The content type; the values above 0x80 are free for vendors."""
MAX_EVENT = 60 * 1024
CONTAINER_PCR: Final = 15

Word = Annotated[str, msgspec.Meta(max_length=512)]
Hex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
HexOrNone = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")]
Texts = Annotated[tuple[str, ...], msgspec.Meta(max_length=1024)]


class _Event(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind"
):
    at: datetime


class GateStart(_Event, frozen=True, kw_only=True, tag="gate-start"):
    """A gate took over; ``banks`` maps bank to the PCR's value that it found, in hex."""

    boot: Word
    catena: Word
    banks: Annotated[dict[str, str], msgspec.Meta(min_length=1, max_length=8)]


class PolicyInForce(_Event, frozen=True, kw_only=True, tag="policy"):
    """The policy that decides from here on; ``policy`` is the SHA-256 of its document."""

    policy: Hex
    name: Word
    version: int


class Launch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was to be started, abridged to what fits; ``config`` is the SHA-256 of all of it.

    ``env`` maps name to commitment. ``argv_total`` counts arguments that were left out, too.
    """

    argv: Texts
    argv_total: int
    user: Word = ""
    env: Annotated[dict[str, Hex], msgspec.Meta(max_length=1024)] = {}
    mounts: Texts = ()
    capabilities: Texts = ()
    config: Hex


class Create(_Event, frozen=True, kw_only=True, tag="create"):
    """A verified container may start. ``sandbox`` is the pod it belongs to, if it says so."""

    container: Word
    sandbox: Word = ""
    image: Word
    repository: Word
    publisher: Word
    signature: Word
    root: Hex
    policy: Hex
    launch_policy: HexOrNone = ""
    launch: Launch


class Exec(_Event, frozen=True, kw_only=True, tag="exec"):
    """A command may run in a container that was created before."""

    container: Word
    image: Word
    policy: Hex
    launch: Launch


class Deny(_Event, frozen=True, kw_only=True, tag="deny"):
    """``verb`` (create, run, exec, restore) was refused for ``code``; what is known is said."""

    container: Word
    verb: Word
    code: Word
    message: Word
    image: Word = ""
    repository: Word = ""
    policy: HexOrNone = ""


class Exit(_Event, frozen=True, kw_only=True, tag="exit"):
    """A container was deleted."""

    container: Word


ContainerEvent = GateStart | PolicyInForce | Create | Exec | Deny | Exit


def encode(event: ContainerEvent) -> bytes:
    """The event as content of a record. Raises ``FormatError`` if it is too long or breaks a limit."""
    data = msgspec.json.encode(event)
    parse(data)
    return data


def parse(data: bytes) -> ContainerEvent:
    """Read one event. Raises ``FormatError``."""
    if len(data) > MAX_EVENT:
        raise FormatError("container event is too long", expected=f"at most {MAX_EVENT} bytes")
    try:
        event: ContainerEvent = msgspec.json.decode(data, type=ContainerEvent)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"not a container event: {error}") from error
    return event
