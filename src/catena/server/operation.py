"""One operation of the API as data: what it takes, answers and refuses, and what it does.

The tables of operations (``admin``, ``nodes``, ``public``) are what the application routes by and what
``openapi`` describes, so that neither can tell of something that the other does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec

from catena.errors import CatenaError, FormatError, without_frames
from catena.formats import nodeapi
from catena.formats.nodeapi import AttestResult
from catena.formats.openapi import Parameter
from catena.server.answer import JSON
from catena.server.cosigning import Collector
from catena.server.exporting import Exporters
from catena.server.ratelimit import Buckets
from catena.service.idempotency import Keyed
from catena.service.login import Login
from catena.service.roles import Right
from catena.service.trust import TrustService

Method = Literal["GET", "POST", "PUT", "DELETE"]

Segment = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_:][A-Za-z0-9._@+:-]{0,127}\Z")]
"""What stands for one thing in a path: a name, or the first digits of an id."""

ADMIN = "/v1/admin/"
B = TypeVar("B")
S = TypeVar("S", bound=msgspec.Struct)


class UnguardedOperation(CatenaError):
    """An operation of the admin API that nobody said who may ask for: a defect, stopped at the start."""

    code = "unguarded-operation"
    remedy = "This is a defect in catena; report it."


@dataclass(frozen=True, slots=True)
class Parts:
    """What operations work with."""

    service: TrustService
    collector: Collector | None = None
    exporters: Exporters | None = None
    people: Login | None = None
    node_limit: Buckets | None = None
    """How often each node may attest."""
    attested: Callable[[AttestResult], object] = lambda _: None
    """Is told of each attestation that was concluded."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that was let through, its body not decoded yet."""

    content: bytes = b""
    name: str = ""
    actor: str = ""
    query: msgspec.Struct | None = None
    keyed: Keyed | None = None
    """Set if the caller may repeat it."""


@dataclass(frozen=True, slots=True)
class Call(Generic[B]):
    """One request that was let through. ``actor`` is its token's label, ``name`` the path's."""

    body: B
    content: bytes = b""
    """The body as it was sent."""
    name: str = ""
    actor: str = ""
    query: Any = None


Verb = Callable[[Parts, Call[Any]], object]
Together = Callable[[Parts, Sequence[Any]], Sequence[object]]


@dataclass(frozen=True, slots=True)
class Operation:
    """A row of a table. Without a ``verb`` the module that has the table answers itself."""

    method: Method
    path: str
    summary: str
    _: KW_ONLY
    right: Right | None = None
    """What its token must be good for; None if it needs none, as nothing below ``/v1/admin`` does."""
    takes: type[msgspec.Struct] | None = None
    changes_nothing: bool = False
    """A POST that only asks: it needs no idempotency key."""
    verbatim: bool = False
    """The body is signed: it is not decoded before its verb has it."""
    query: type[msgspec.Struct] | None = None
    """What the query string may say; None: nothing."""
    name: Any = Segment
    """The type of ``{name}`` in the path."""
    answer: Any = None
    """What a 200 has as JSON; None for another ``media`` type."""
    media: str = JSON
    parameters: tuple[Parameter, ...] = ()
    """Headers of its own."""
    refuses: tuple[type[CatenaError], ...] = ()
    """What it refuses with beside what every operation of its table does."""
    limit: int | None = None
    """Bytes of a body, if less than the server's own limit."""
    verb: Verb | None = None
    together: Together | None = None
    """The verb for the bodies of several requests that arrive at once: to each its answer or its
    exception. Only for operations that need no token and name nothing."""

    def __post_init__(self) -> None:
        """Raises ``UnguardedOperation``: then the server does not start."""
        if self.right is None and self.path.startswith(ADMIN):
            raise UnguardedOperation("no right is named for an operation", got=self.path)

    def act(self, parts: Parts, asked: Asked) -> object:
        """Decode the body and run the verb. Raises ``FormatError`` and what the verb raises."""
        if self.verb is None:
            raise NotImplementedError(self.path)
        kind = None if self.verbatim else self.takes
        body = None if kind is None else nodeapi.decode(asked.content, kind)
        return self.verb(parts, Call(body, asked.content, asked.name, asked.actor, asked.query))

    def act_together(self, parts: Parts, contents: Sequence[bytes]) -> Sequence[bytes | Exception]:
        """Decode bodies, decide about those that can be read, and encode the answers."""
        if self.together is None or self.takes is None:
            raise NotImplementedError(self.path)
        read = [_read(content, self.takes) for content in contents]
        bodies = [one for one in read if not isinstance(one, FormatError)]
        answers = iter(self.together(parts, bodies))
        outcomes = [one if isinstance(one, FormatError) else next(answers) for one in read]
        return [
            outcome if isinstance(outcome, Exception) else msgspec.json.encode(outcome)
            for outcome in outcomes
        ]

    @property
    def writes(self) -> bool:
        """Whether it does something that must not be done twice by mistake."""
        return self.right is not None and self.method != "GET" and not self.changes_nothing

    @property
    def has_name(self) -> bool:
        """Whether the path names one thing."""
        return "{name" in self.path


def _read(content: bytes, kind: type[S]) -> S | FormatError:
    """A body, or why it is none."""
    try:
        return nodeapi.decode(content, kind)
    except FormatError as error:
        return without_frames(error)
