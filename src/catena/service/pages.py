"""Long lists in pages: a cursor says behind which row the next page begins.

A page begins behind a row's key and not at a number of rows, so that rows which come or go meanwhile neither
hide nor repeat another. A cursor is opaque to whoever holds it: the key as JSON, in base64url.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Generic, TypeVar

import msgspec

from catena.errors import FormatError
from catena.formats.nodeapi import NodeState
from catena.service.views import Label, View

MAX_PAGE = 500
DEFAULT_PAGE = 100

Moment = Annotated[datetime, msgspec.Meta(tz=True)]

K = TypeVar("K", bound=msgspec.Struct)
R = TypeVar("R")
T = TypeVar("T")


class PageRequest(View, frozen=True, kw_only=True):
    """Which part of a list: at most ``limit`` rows from ``cursor`` on."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE
    cursor: Annotated[str, msgspec.Meta(min_length=1, max_length=512)] | None = None


class NodesRequest(PageRequest, frozen=True, kw_only=True):
    """Which nodes: of a state as of now, of a role, and whether retired ones count."""

    state: NodeState | None = None
    role: Label | None = None
    retired: bool = False


class ExpectedRequest(PageRequest, frozen=True, kw_only=True):
    """Which expected machines: those that have not shown up, or ``all`` that are listed."""

    all: bool = False


class NodeKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Nodes are listed by their enrolment."""

    at: Moment
    id: str


class ExpectedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Expected machines are listed by name."""

    name: str


class SecretKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Secrets are listed by name."""

    name: str


class ReferenceKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """References are listed by their acceptance, then come ``shipped`` rules by number."""

    at: Moment | None = None
    sha256: str = ""
    shipped: Annotated[int, msgspec.Meta(ge=0)] = 0


class PersonKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """People are listed by name."""

    name: str


class TokenKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Tokens are listed by their creation."""

    at: Moment
    hash: str


class EndorsementKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What server.toml names comes first, by number (``fixed``); then endorsements by their acceptance."""

    fixed: Annotated[int, msgspec.Meta(ge=0)] = 0
    at: Moment | None = None
    name: str = ""
    sha256: str = ""


class BadCursor(FormatError):
    """A cursor that no page of this list gave."""

    code = "bad-cursor"
    remedy = "Begin again without a cursor, and follow the `next` links as they are."


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows of a list; ``cursor`` leads to the following ones, None behind the last."""

    items: tuple[T, ...]
    cursor: str | None = None


def page_of(rows: Sequence[R], limit: int, key: Callable[[R], msgspec.Struct]) -> Page[R]:
    """The first ``limit`` of ``rows``, of which one more was fetched if there are more."""
    shown = tuple(rows[:limit])
    return Page(shown, encode(key(shown[-1])) if len(rows) > limit else None)


def whole(page: Callable[[PageRequest], Page[T]]) -> tuple[T, ...]:
    """All pages of a list, joined: for who has the service in the same process."""
    found = page(PageRequest(limit=MAX_PAGE))
    items = list(found.items)
    while found.cursor is not None:
        found = page(PageRequest(limit=MAX_PAGE, cursor=found.cursor))
        items += found.items
    return tuple(items)


def encode(key: msgspec.Struct) -> str:
    """A key as a cursor."""
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def decode(cursor: str | None, kind: type[K]) -> K | None:
    """The key in a cursor; None for the beginning. Raises ``BadCursor``."""
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        key = msgspec.json.decode(
            base64.b64decode(padded, altchars=b"-_", validate=True), type=kind
        )
    except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError) as error:
        raise BadCursor("not a cursor of this list", got=ascii(cursor[:40])) from error
    if encode(key) != cursor:  # one key has one cursor
        raise BadCursor("not a cursor of this list", got=ascii(cursor[:40]))
    return key
