"""What one entry says that somebody may search for, as pairs of words. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from catena.audit.entries import (
    ContainersRecorded,
    Denial,
    EndorsementJudged,
    Enrolment,
    Entry,
    NodeEntry,
    Revocation,
    SecretReleased,
    Transition,
    Verdict,
)

Fact = Literal["release", "image", "secret", "failed", "state"]
"""Booted this release; ran this image; received this secret; failed with this code; the state after it."""

UNNAMED = "unnamed"
"""The code of a failure for which the entry gives no reason."""


def facts_of(entry: Entry) -> tuple[tuple[Fact, str], ...]:
    """The facts of an entry, each once."""
    return tuple(dict.fromkeys(_facts(entry)))


def node_of(entry: Entry) -> tuple[str | None, str | None]:
    """The id of the node that an entry is about, and its name; a denial's id is only claimed."""
    if isinstance(entry, NodeEntry):
        return entry.node_id, entry.node_name
    return (entry.node_id, None) if isinstance(entry, Denial) else (None, None)


def _facts(entry: Entry) -> Iterator[tuple[Fact, str]]:
    match entry:
        case Verdict():
            yield from _verdict_facts(entry)
        case Enrolment() | Transition():
            yield "state", entry.state
        case EndorsementJudged():
            yield "state", entry.state
            if entry.code:
                yield "failed", entry.code
        case Revocation():
            yield "state", "untrusted"
        case ContainersRecorded():
            # Of what was refused nothing ran.
            ran = (event.image for event in entry.events if event.kind != "deny")
            yield from (("image", image) for image in ran if image)
        case SecretReleased():
            yield "secret", entry.secret
        case Denial():
            yield "failed", entry.code
        case _:
            return


def _verdict_facts(entry: Verdict) -> Iterator[tuple[Fact, str]]:
    yield "state", entry.state
    if entry.release:
        yield "release", entry.release
    if entry.verdict == "untrusted":
        codes = [reason.code for reason in entry.reasons] or [UNNAMED]
        yield from (("failed", code) for code in codes)
