"""The API's description for programs, OpenAPI 3.1, made from the tables of operations.

Nothing in it is written twice: shapes come from the structs that requests are decoded with, refusals from the
error classes that an operation names and from the table of statuses.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Final, cast

import msgspec

from catena import __version__
from catena.errors import CatenaError, FormatError, Unavailable
from catena.formats import openapi
from catena.formats.nodeapi import PROBLEM_JSON, ErrorBody
from catena.formats.openapi import (
    Components,
    Document,
    Header,
    Info,
    MediaType,
    OperationObject,
    Parameter,
    RequestBody,
    Response,
    Schema,
    SecurityScheme,
)
from catena.server import idempotencykey, requestid
from catena.server.answer import JSON
from catena.server.faults import (
    STATUS,
    BadQuery,
    BodyTooLarge,
    BodyTooSlow,
    Busy,
    ExpiredToken,
    Forbidden,
    RateLimited,
    Unauthenticated,
    status_of,
)
from catena.server.idempotencykey import BadIdempotencyKey
from catena.server.operation import Operation
from catena.service.idempotency import KeyReused, OutcomeUnknown, StillDecided
from catena.service.pages import PageRequest
from catena.service.roles import roles_with
from catena.store.errors import DatabaseGone

_TOKEN = "token"  # noqa: S105  a name in the description
_SCHEMAS = "#/components/schemas/"
_DESCRIPTION = """What machines (`/v1/…`) and people with their tools (`/v1/admin/…`) ask the trust service.

A body is JSON, read strictly: an unknown member is refused. Binary members are base64. Every refusal is
problem details (RFC 9457) with a stable `code`."""

_ALWAYS: Final = (CatenaError, Unavailable, DatabaseGone, RateLimited)
_WITH_TOKEN: Final = (Unauthenticated, ExpiredToken, Forbidden)
_WITH_KEY: Final = (BadIdempotencyKey, KeyReused, StillDecided, OutcomeUnknown)
_WITH_BODY: Final = (FormatError, BodyTooLarge, BodyTooSlow, Busy)


def describe(operations: Sequence[Operation]) -> Document:
    """The description of all operations."""
    types = [*(kind for one in operations for kind in _types(one)), ErrorBody]
    schemas, components = msgspec.json.schema_components(
        types, schema_hook=_open, ref_template=f"{_SCHEMAS}{{name}}"
    )
    adapted = cast("list[Schema]", [*map(_adapted, schemas)])
    found = dict(zip(map(repr, types), adapted, strict=True))
    paths: dict[str, dict[str, OperationObject]] = defaultdict(dict)
    for one in operations:
        paths[one.path.replace(":path}", "}")][one.method.lower()] = _operation(one, found)
    return Document(
        openapi=openapi.VERSION,
        info=Info(title="catena trust service", version=__version__, description=_DESCRIPTION),
        paths=dict(paths),
        components=Components(
            schemas={name: cast("Schema", _adapted(one)) for name, one in components.items()},
            security_schemes={
                _TOKEN: SecurityScheme(
                    type="http",
                    scheme="bearer",
                    description="What `catena server init` printed, or a token made later.",
                )
            },
        ),
    )


def refusals(operation: Operation) -> tuple[type[CatenaError], ...]:
    """Every error that an operation may answer, those that all have included."""
    return (
        *_ALWAYS,
        *(_WITH_TOKEN if operation.right else ()),
        *(_WITH_KEY if operation.writes else ()),
        *((BadQuery,) if operation.verb else ()),
        *(_WITH_BODY if operation.takes else ()),
        *operation.refuses,
    )


def _types(operation: Operation) -> Iterator[object]:
    if operation.has_name:
        yield operation.name
    if operation.takes is not None:
        yield operation.takes
    if operation.answer is not None:
        yield operation.answer


def _operation(one: Operation, found: Mapping[str, Schema]) -> OperationObject:
    body = None
    if one.takes is not None:
        body = RequestBody(content={JSON: MediaType(schema=found[repr(one.takes)])}, required=True)
    return OperationObject(
        operation_id=_identifier(one),
        summary=one.summary,
        description=_who(one),
        tags=(_tag(one),),
        security=({_TOKEN: ()},) if one.right else None,
        parameters=tuple(_parameters(one, found)),
        request_body=body,
        responses={"200": _answer(one, found), **_problems(refusals(one))},
    )


def _who(one: Operation) -> str:
    if one.right is None:
        return "Needs no token."
    return f"Right of the token: `{one.right}` (roles {', '.join(roles_with(one.right))})."


def _parameters(one: Operation, found: Mapping[str, Schema]) -> Iterator[Parameter]:
    if one.has_name:
        yield Parameter(name="name", in_="path", required=True, schema=found[repr(one.name)])
    if one.query is not None:
        yield from _query(one.query)
    yield from one.parameters
    if one.writes:
        yield Parameter(
            name=idempotencykey.HEADER,
            in_="header",
            description="A key that makes this request one that may be repeated.",
            schema={"type": "string", "pattern": idempotencykey.PATTERN},
        )
    yield Parameter(
        name=requestid.HEADER,
        in_="header",
        description="What the request is called in the server's log; made up if it is not plain.",
        schema={"type": "string"},
    )


def _query(kind: type[msgspec.Struct]) -> Iterator[Parameter]:
    _, components = msgspec.json.schema_components([kind], schema_hook=_open)
    schema = cast("Schema", _adapted(components[kind.__name__]))
    for name, member in cast("Mapping[str, Schema]", schema["properties"]).items():
        # What may be left out is never sent as null.
        given = cast("list[Schema]", member["anyOf"])[0] if "anyOf" in member else member
        yield Parameter(name=name, in_="query", schema=given)


def _answer(one: Operation, found: Mapping[str, Schema]) -> Response:
    schema = {"type": "string"} if one.answer is None else found[repr(one.answer)]
    headers = _headers()
    if one.writes:
        headers[idempotencykey.REPEATED] = Header(
            description="`true` if this is the answer of an earlier request with the same key.",
            schema={"type": "string"},
        )
    if one.query is not None and issubclass(one.query, PageRequest):
        headers["link"] = Header(
            description='Where the next page is (RFC 8288), `rel="next"`; not on the last.',
            schema={"type": "string"},
        )
    return Response(
        description=one.summary,
        headers=headers,
        content={one.media.partition(";")[0]: MediaType(schema=cast("Schema", schema))},
    )


def _headers() -> dict[str, Header]:
    pattern = _pattern(requestid.PATTERN)
    return {
        requestid.HEADER: Header(
            description="The request's id.", schema={"type": "string", "pattern": pattern}
        )
    }


def _problems(kinds: Iterable[type[CatenaError]]) -> dict[str, Response]:
    """A response for each status, which names the codes that come with it."""
    codes: dict[HTTPStatus, set[str]] = defaultdict(set)
    for kind in kinds:
        for each in (kind,) if kind in STATUS else _family(kind):
            codes[status_of(each.__new__(each))].add(each.code)
    schema: Schema = {"$ref": f"{_SCHEMAS}{ErrorBody.__name__}"}
    return {
        str(int(status)): Response(
            description=f"{status.phrase}: {', '.join(f'`{code}`' for code in sorted(codes[status]))}",
            headers=_headers(),
            content={PROBLEM_JSON: MediaType(schema=schema)},
        )
        for status in sorted(codes)
    }


def _family(kind: type[CatenaError]) -> Iterator[type[CatenaError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)


def _identifier(one: Operation) -> str:
    words = [part.strip("{}").removesuffix(":path") for part in one.path.split("/")[1:]]
    return "-".join([one.method.lower(), *words])


def _tag(one: Operation) -> str:
    """What an operation is about: the noun behind ``/v1/admin``, or the part of the API."""
    head, *rest = one.path.removeprefix("/v1/").lstrip("/").split("/")
    return rest[0] if head == "admin" else head


def _open(kind: type) -> Schema:
    """The schema of a member that has no shape of its own, such as a document's content."""
    if kind is object:
        return {"description": "Any JSON value."}
    raise NotImplementedError(kind)


def _adapted(value: object) -> object:
    """A JSON Schema as others read it: ECMA-262 patterns, base64 by name, plain paragraphs."""
    if isinstance(value, Mapping):
        changed = {key: _adapted(one) for key, one in value.items()}
        if isinstance(changed.get("pattern"), str):
            changed["pattern"] = _pattern(str(changed["pattern"]))
        if isinstance(changed.get("description"), str):
            changed["description"] = inspect.cleandoc(str(changed["description"]))
        if changed.get("contentEncoding") == "base64":
            changed["format"] = "byte"
        return changed
    return [*map(_adapted, value)] if isinstance(value, list) else value


def _pattern(pattern: str) -> str:
    r"""Python's ``\Z`` as ECMA-262 has it: ``$`` is the very end there."""
    return pattern.replace(r"\Z", "$")
