"""Descriptions of HTTP APIs: the objects of OpenAPI 3.1.1 that catena's own description needs.

Section numbers are those of the specification (https://spec.openapis.org/oas/v3.1.1.html). A JSON Schema
(draft 2020-12, the base dialect of OpenAPI 3.1) is a plain object, for it has no fixed shape.
"""

from __future__ import annotations

from typing import Literal

import msgspec

VERSION = "3.1.1"

Schema = dict[str, object]


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Base of all objects: what is not set is left out."""


class Info(Part, frozen=True, kw_only=True):
    """4.8.2: which API this is."""

    title: str
    version: str
    summary: str = ""
    description: str = ""


class Parameter(Part, frozen=True, kw_only=True):
    """4.8.12: one value in the path, the query or the head of a request."""

    name: str
    in_: Literal["path", "query", "header"] = msgspec.field(name="in")
    description: str = ""
    required: bool = False
    schema: Schema


class MediaType(Part, frozen=True, kw_only=True):
    """4.8.14: what a body of one media type holds."""

    schema: Schema


class RequestBody(Part, frozen=True, kw_only=True):
    """4.8.13: what a request carries."""

    content: dict[str, MediaType]
    required: bool = False


class Header(Part, frozen=True, kw_only=True):
    """4.8.21: one header of an answer."""

    description: str = ""
    schema: Schema


class Response(Part, frozen=True, kw_only=True):
    """4.8.17: one kind of answer."""

    description: str
    headers: dict[str, Header] = {}
    content: dict[str, MediaType] = {}


class OperationObject(Part, frozen=True, kw_only=True):
    """4.8.10: one method of one path."""

    operation_id: str
    summary: str
    description: str = ""
    tags: tuple[str, ...]
    security: tuple[dict[str, tuple[str, ...]], ...] | None = None
    parameters: tuple[Parameter, ...] = ()
    request_body: RequestBody | None = None
    responses: dict[str, Response]


class SecurityScheme(Part, frozen=True, kw_only=True):
    """4.8.27: how a caller says who it is."""

    type: Literal["http"]
    scheme: Literal["bearer"]
    description: str = ""


class Components(Part, frozen=True, kw_only=True):
    """4.8.7: what other objects refer to."""

    schemas: dict[str, Schema]
    security_schemes: dict[str, SecurityScheme]


class Document(Part, frozen=True, kw_only=True):
    """4.8.1: the whole description."""

    openapi: str
    info: Info
    paths: dict[str, dict[str, OperationObject]]
    components: Components

    def encode(self) -> bytes:
        """As JSON for programs; equal descriptions give equal bytes."""
        return msgspec.json.encode(self)
