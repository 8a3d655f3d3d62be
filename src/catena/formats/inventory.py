"""A list of expected machines, as CSV (RFC 4180) or JSON: what a purchase department can fill in.

==============  =======================================================================
column          holds
==============  =======================================================================
``ek_sha256``   the node's id: SHA-256 of the EK's public area, 64 hex digits
``ek_serial``   or the serial number of its EK certificate, in hex …
``ek_issuer``   … and that certificate's issuer as an RFC 4514 string
``name``        the node's name (a DNS label)
``role``        its role (a DNS label)
``site``        where it stands; may be empty
``channel``     the release channel it follows; may be empty
==============  =======================================================================

CSV begins with a line of column names, in any order; JSON is an array of objects with these names.
Everything that is wrong with a list is found at once; one bad line spoils all.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Final

import msgspec

from catena.errors import FormatError
from catena.formats import ijson

MAX_LIST = 16 * 1024 * 1024
MAX_MACHINES = 50_000
MAX_TOLD = 30
"""Faults that are shown; of the rest only the number is."""
_MAX_FAULT = 100
"""Characters of one of them."""

Label = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")]
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Serial = Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9a-f][0-9a-f]{0,39})\Z")]
"""RFC 5280, 4.1.2.2: at most 20 octets; here without leading zeros, lower case."""
Issuer = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One line. Exactly one of ``ek_sha256`` and the pair ``ek_issuer``, ``ek_serial`` is there."""

    name: Label
    role: Label
    site: Label | None = None
    channel: Label | None = None
    ek_sha256: Digest | None = None
    ek_issuer: Issuer | None = None
    ek_serial: Serial | None = None

    def __post_init__(self) -> None:
        """Refuse a line that says nothing about the EK, or too much."""
        pair = (self.ek_issuer is None, self.ek_serial is None)
        if len(set(pair)) != 1:
            raise ValueError("`ek_serial` and `ek_issuer` go together")
        if (self.ek_sha256 is None) == (self.ek_serial is None):
            raise ValueError("either `ek_sha256` or `ek_serial` says which TPM it is")

    @property
    def identity(self) -> tuple[str, ...]:
        """What says which TPM it is."""
        if self.ek_sha256 is not None:
            return (self.ek_sha256,)
        return (self.ek_issuer or "", self.ek_serial or "")


COLUMNS: Final = Machine.__struct_fields__


class BadInventory(FormatError):
    """A list of machines with lines that cannot be used; nothing of it counts."""

    code = "bad-inventory"
    remedy = "Correct these lines; the manual says what each column holds."

    def __init__(self, faults: tuple[str, ...]) -> None:
        told = "; ".join(fault[:_MAX_FAULT] for fault in faults[:MAX_TOLD])
        more = f"; and {len(faults) - MAX_TOLD} more" if len(faults) > MAX_TOLD else ""
        super().__init__(f"{len(faults)} lines cannot be used: {told}{more}")
        self.faults = faults


def parse(content: bytes) -> tuple[Machine, ...]:
    """The machines of a list; JSON if it begins with a bracket. Raises ``FormatError``."""
    if len(content) > MAX_LIST:
        raise FormatError("the list is too large", expected=f"at most {MAX_LIST} bytes")
    is_json = content.lstrip()[:1] == b"["
    numbered = _json_rows(content) if is_json else _csv_rows(content)
    faults: list[str] = []
    found: list[tuple[str, Machine]] = []
    for place, row in numbered:
        if isinstance(row, str):
            faults.append(f"{place}: {row}")
            continue
        try:
            found.append((place, msgspec.convert(row, Machine)))
        except msgspec.ValidationError as error:
            faults.append(f"{place}: {_shown(str(error))}")
    faults += _twice(found)
    if faults:
        raise BadInventory(tuple(faults))
    if not found:
        raise FormatError("the list names no machine")
    return tuple(machine for _, machine in found)


def encode(machines: tuple[Machine, ...]) -> bytes:
    """The list as JSON, by name: one list has one digest."""
    return msgspec.json.encode(sorted(machines, key=lambda one: one.name))


def _json_rows(content: bytes) -> Iterator[tuple[str, Mapping[str, object]]]:
    rows = ijson.decode(content, list[dict[str, object]], limit=MAX_LIST, what="inventory")
    _require_few(len(rows))
    for number, row in enumerate(rows, 1):
        yield f"machine {number}", row


def _csv_rows(content: bytes) -> Iterator[tuple[str, Mapping[str, object] | str]]:
    """Rows by the number of the line they end on; a row that is none as what is wrong with it."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError("the list is not UTF-8", offset=error.start) from error
    if "\0" in text:
        raise FormatError("the list holds a NUL", offset=text.index("\0"))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = _columns(next(reader, []))
        for count, cells in enumerate(reader, 1):
            _require_few(count)
            if cells:
                yield f"line {reader.line_num}", _row(columns, cells)
    except csv.Error as error:
        raise FormatError(f"not CSV: line {reader.line_num}: {error}") from error


def _columns(names: list[str]) -> list[str]:
    unknown = sorted(set(names) - set(COLUMNS))
    if unknown:
        raise FormatError(
            "the list has unknown columns",
            expected=", ".join(COLUMNS),
            got=_shown(", ".join(unknown)),
        )
    if len(set(names)) != len(names):
        raise FormatError("the list has a column twice")
    missing = sorted({"name", "role"} - set(names))
    if missing:
        raise FormatError("the list lacks columns", got=f"without {', '.join(missing)}")
    return names


def _row(columns: list[str], cells: list[str]) -> Mapping[str, object] | str:
    if len(cells) != len(columns):
        return f"{len(cells)} fields, but {len(columns)} columns"
    return {column: cell for column, cell in zip(columns, cells, strict=True) if cell}


def _twice(found: list[tuple[str, Machine]]) -> Iterator[str]:
    """Names and TPMs that occur on several lines."""
    seen: dict[tuple[str, ...], str] = {}
    for place, machine in found:
        for what, key in (
            ("name", ("name", machine.name)),
            ("TPM", ("TPM", *machine.identity)),
        ):
            first = seen.setdefault(key, place)
            if first != place:
                yield f"{place}: the {what} of {first} once more"


def _require_few(count: int) -> None:
    if count > MAX_MACHINES:
        raise FormatError("the list is too long", expected=f"at most {MAX_MACHINES} machines")


def _shown(text: str) -> str:
    """What may quote the list, safe for a line of text."""
    return re.sub(r"[^\x20-\x7e]", "?", text[:200])
