"""Container records: what a node's gate decided, as content of a canonical event log.

A record is CEL-TLV (``formats.cel``) whose content has type ``CONTENT`` and is one compact
JSON object, ``{"kind": …}``; the digests are over exactly these bytes, in every bank. They are
extended in order into one PCR (15 by default). Times are RFC 3339 UTC and, like all of it, the
gate's word: a verifier believes it because the boot proved the gate.

==============  =====================================================================
``gate-start``  a gate began; ``boot`` is the kernel's boot ID, ``banks`` the PCR it found
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

from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from typing import Annotated, TypeVar

import msgspec

from catena.errors import FormatError
from catena.formats.cel import CelRecord
from catena.ids import HashAlg

CONTENT = 0x90
"""The content type; the values above 0x80 are free for vendors."""
MAX_EVENT = 60 * 1024
CONTAINER_PCR = 15

Word = Annotated[str, msgspec.Meta(max_length=512)]
Hex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
HexOrNone = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")]
Texts = Annotated[tuple[str, ...], msgspec.Meta(max_length=1024)]
Bank = Annotated[str, msgspec.Meta(max_length=16)]
BankValue = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{2}){20,64}\Z")]


class _Event(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind"
):
    at: Annotated[datetime, msgspec.Meta(tz=True)]


class GateStart(_Event, frozen=True, kw_only=True, tag="gate-start"):
    """A gate took over; ``banks`` maps bank to the PCR's value that it found, in hex."""

    boot: Word
    catena: Word
    banks: Annotated[dict[Bank, BankValue], msgspec.Meta(min_length=1, max_length=8)]


class PolicyInForce(_Event, frozen=True, kw_only=True, tag="policy"):
    """The policy that decides from here on; ``policy`` is the SHA-256 of its document."""

    policy: Hex
    name: Word
    version: Annotated[int, msgspec.Meta(ge=0)]


class Launch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was to be started, abridged to what fits; ``config`` is the SHA-256 of all of it.

    ``env`` maps name to commitment. ``argv_total`` counts arguments that were left out, too;
    ``abridged`` says that something was left out or shortened, wherever it was.
    """

    argv: Texts
    argv_total: Annotated[int, msgspec.Meta(ge=0)]
    user: Word = ""
    env: Annotated[dict[str, Hex], msgspec.Meta(max_length=1024)] = {}
    mounts: Texts = ()
    capabilities: Texts = ()
    config: Hex
    abridged: bool = False


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


WORD = 512
MAX_ITEM = 1024
"""Characters of one argument, mount or capability that are kept."""

_ITEMS = 1024
_WIDEST = 6
"""Bytes of one character in JSON, at most: a control character is ``\\u0000``."""

_SHARES = {"argv": 0.4, "env": 0.3, "mounts": 0.2, "capabilities": 0.1}
"""How the lists of a launch share the bytes that the rest of its event leaves."""

_COMMITMENT = 70
"""Bytes of a commitment in JSON, beside its name."""

ContainerEvent = GateStart | PolicyInForce | Create | Exec | Deny | Exit
E = TypeVar("E", bound=ContainerEvent)


def encode(event: ContainerEvent) -> bytes:
    """The event as content of a record. Raises ``FormatError`` if it is too long or breaks a limit."""
    try:
        data = msgspec.json.encode(event)
    except UnicodeEncodeError as error:
        raise FormatError("a container event is not Unicode") from error
    parse(data)
    return data


def abridge(event: E) -> E:
    """The event so that ``encode`` takes it, however long its texts and lists are.

    An event that fits stays as it is. A text that is cut ends in ``…``; what is no Unicode (file
    names and arguments that are bytes) is spelled with backslashes.
    """
    if _fits(event):
        return event
    words = {
        name: _cut(value, WORD)
        for name in event.__struct_fields__
        if isinstance(value := getattr(event, name), str)
    }
    short = msgspec.structs.replace(event, **words)
    if not isinstance(short, Create | Exec):
        return short
    whole = short.launch
    bare = Launch(argv=(), argv_total=len(whole.argv), config=whole.config, abridged=True)
    rest = msgspec.json.encode(msgspec.structs.replace(short, launch=bare))
    room = MAX_EVENT - len(rest) - WORD * _WIDEST
    return msgspec.structs.replace(short, launch=_abridged(whole, room))


def _fits(event: ContainerEvent) -> bool:
    try:
        encode(event)
    except FormatError:
        return False
    return True


def _abridged(whole: Launch, room: int) -> Launch:
    """The launch in ``room`` bytes: of each list as many as its share has room for."""
    kept: dict[str, object] = {
        name: _fitting(getattr(whole, name), room * share)
        for name, share in _SHARES.items()
        if name != "env"
    }
    kept["env"] = _fitting_env(whole.env, room * _SHARES["env"])
    kept["user"] = _cut(whole.user, WORD)
    total = max(whole.argv_total, len(whole.argv))
    short = msgspec.structs.replace(whole, **kept, argv_total=total)
    complete = short == msgspec.structs.replace(whole, argv_total=total)
    return msgspec.structs.replace(short, abridged=whole.abridged or not complete)


def _fitting(items: Iterable[str], room: float) -> tuple[str, ...]:
    kept = []
    for item in islice(items, _ITEMS):
        text = _cut(item, MAX_ITEM)
        room -= len(msgspec.json.encode(text)) + 1
        if room < 0:
            break
        kept.append(text)
    return tuple(kept)


def _fitting_env(env: dict[str, str], room: float) -> dict[str, str]:
    kept = {}
    for name, commitment in islice(env.items(), _ITEMS):
        text = _cut(name, MAX_ITEM)
        room -= len(msgspec.json.encode(text)) + _COMMITMENT
        if room < 0:
            break
        kept[text] = commitment
    return kept


def _cut(text: str, limit: int) -> str:
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    spelled = text.encode("utf-8", "backslashreplace").decode()
    return spelled if len(spelled) <= limit else spelled[: limit - 1] + "…"


def parse(data: bytes) -> ContainerEvent:
    """Read one event. Raises ``FormatError``."""
    if len(data) > MAX_EVENT:
        raise FormatError("container event is too long", expected=f"at most {MAX_EVENT} bytes")
    try:
        event: ContainerEvent = msgspec.json.decode(data, type=ContainerEvent)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"not a container event: {error}") from error
    return event


def parse_record(record: CelRecord) -> ContainerEvent:
    """The event in a record of a canonical event log. Raises ``FormatError`` with its offset."""
    if record.content_type != str(CONTENT):
        raise FormatError(
            "record is not about containers",
            offset=record.offset,
            expected=f"content type {CONTENT}",
            got=record.content_type,
        )
    try:
        return parse(record.content)
    except FormatError as error:
        error.offset = record.offset
        raise


def to_record(
    index: int, content: bytes, banks: Iterable[HashAlg], *, pcr: int | None, nv_index: int | None
) -> CelRecord:
    """Record ``index`` of a log, with the digests of ``content`` (an encoded event) in ``banks``."""
    return CelRecord(
        index=index,
        pcr=pcr,
        nv_index=nv_index,
        digests={bank: bank.digest(content) for bank in banks},
        content_type=str(CONTENT),
        content=content,
        offset=0,
    )
