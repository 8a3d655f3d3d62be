"""Readers of documents, made ready before there are threads.

msgspec finds out what a ``Struct`` consists of when it reads the first one, and two threads that do
so for one type at the same time crash the process (0.22: one uses what the other has not finished). So all
types that are loaded are looked at once, in one thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import msgspec


def make_ready() -> None:
    """Have msgspec look at every ``Struct`` that is loaded. Before the first thread."""
    for kind in _below(msgspec.Struct):
        with contextlib.suppress(TypeError, NameError):  # one that is never read by itself
            msgspec.json.Decoder(kind)


def _below(kind: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)
