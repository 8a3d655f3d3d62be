"""The API's description for people: one page without scripts, made from the one for programs.

Everything is escaped; the page's own style is named by its digest in the content security policy (CSP level 3,
section 6.7.2.3), which allows nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from html import escape
from typing import cast

from catena.formats.openapi import Document, MediaType, OperationObject, Schema

HTML = "text/html; charset=utf-8"

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, th { font-family: ui-monospace, monospace; font-size: 0.9em; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid; } h3 { margin-bottom: 0; }
table { border-collapse: collapse; } th, td { text-align: left; vertical-align: top; padding: 0 1em 0 0; }
@media (prefers-color-scheme: dark) { body { background: #111; color: #eee; } a { color: #9cf; } }
"""
_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS = {
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_DIGEST}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def render(document: Document) -> bytes:
    """The page, in UTF-8."""
    title = f"{escape(document.info.title)} {escape(document.info.version)}"
    lines = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>',
        f"<style>{_STYLE}</style><h1>{title}</h1>",
        *(f"<p>{_text(part)}</p>" for part in document.info.description.split("\n\n")),
        '<p>For programs: <a href="openapi.json">openapi.json</a>.</p>',
        *_operations(document),
        "<h2>Bodies</h2>",
        *(line for name, one in document.components.schemas.items() for line in _schema(name, one)),
    ]
    return "\n".join(lines).encode()


def _operations(document: Document) -> Iterator[str]:
    told = None
    for path, methods in document.paths.items():
        for method, one in methods.items():
            if one.tags != told:
                told = one.tags
                yield f"<h2>{escape(', '.join(told))}</h2>"
            yield f'<h3 id="{escape(one.operation_id)}"><code>{method.upper()} {escape(path)}</code></h3>'
            yield f"<p>{_text(one.summary)}. {_text(one.description)}</p>"
            yield from _table(_rows(one))


def _rows(one: OperationObject) -> Iterator[tuple[str, str]]:
    for parameter in one.parameters:
        shown = f"{_type(parameter.schema)} {_text(parameter.description)}"
        yield f"{parameter.in_} {escape(parameter.name)}", shown
    if one.request_body is not None:
        yield "takes", _content(one.request_body.content)
    for status, answer in one.responses.items():
        shown = _content(answer.content) if status == "200" else _text(answer.description)
        yield status, shown


def _content(content: Mapping[str, MediaType]) -> str:
    return ", ".join(f"{escape(media)}: {_type(one.schema)}" for media, one in content.items())


def _schema(name: str, schema: Schema) -> Iterator[str]:
    yield f'<h3 id="{escape(name)}"><code>{escape(name)}</code></h3>'
    yield f"<p>{_text(str(schema.get('description', '')))}</p>"
    members = cast("Mapping[str, Schema]", schema.get("properties", {}))
    needed = cast("list[str]", schema.get("required", []))
    yield from _table(
        (escape(member), f"{_type(one)}{'' if member in needed else ', optional'}")
        for member, one in members.items()
    )


def _table(rows: Iterator[tuple[str, str]]) -> Iterator[str]:
    yield "<table>"
    for head, shown in rows:
        yield f"<tr><th>{head}</th><td>{shown}</td></tr>"
    yield "</table>"


def _type(schema: Schema) -> str:
    """A schema in a few words; a shape with a name is linked."""
    if "$ref" in schema:
        name = escape(str(schema["$ref"]).rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(map(_type, cast("list[Schema]", schema["anyOf"])))
    if "enum" in schema:
        return " or ".join(
            f"<code>{escape(str(one))}</code>" for one in cast("list[object]", schema["enum"])
        )
    kind = escape(str(schema.get("type", "any value")))
    if kind == "array" and isinstance(schema.get("items"), Mapping):
        return f"list of {_type(cast('Schema', schema['items']))}"
    kind = "base64" if schema.get("contentEncoding") == "base64" else kind
    return f"{kind} <code>{escape(str(schema['pattern']))}</code>" if "pattern" in schema else kind


def _text(text: str) -> str:
    """Prose; what stands in backquotes is code."""
    parts = escape(text.replace("``", "`")).split("`")
    return "".join(
        f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts)
    )
