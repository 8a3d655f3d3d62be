"""Versions of images, in the order of Semantic Versioning 2.0.0, section 11.

``[v]1[.2[.3[.4]]][-pre.release][+build]``: as many numbers as there are, missing ones count as 0; a
pre-release comes before its release; build metadata does not count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from catena.errors import FormatError

MAX_VERSION = 128

_VERSION = re.compile(
    r"v?(?P<numbers>[0-9]{1,18}(?:\.[0-9]{1,18}){0,3})"
    r"(?:-(?P<pre>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?\Z"
)
_RELEASE = ((2, 0, ""),)
"""Above every identifier of a pre-release."""


@dataclass(frozen=True, order=True, slots=True)
class Version:
    """Compares as its specification says; ``text`` is as it was written."""

    numbers: tuple[int, ...]
    pre: tuple[tuple[int, int, str], ...]
    text: str = field(compare=False)

    def __str__(self) -> str:
        return self.text


def parse_version(text: str) -> Version:
    """Read a version. Raises ``FormatError``."""
    found = _VERSION.match(text) if len(text) <= MAX_VERSION else None
    if found is None:
        raise FormatError(
            "not a version that can be compared",
            expected="such as 1.2.3 or v1.2.3-rc.1",
            got=ascii(text[:60]),
        )
    numbers = [int(number) for number in found["numbers"].split(".")]
    numbers += [0] * (4 - len(numbers))
    pre = tuple(map(_identifier, found["pre"].split("."))) if found["pre"] else _RELEASE
    return Version(tuple(numbers), pre, text)


def _identifier(text: str) -> tuple[int, int, str]:
    """Numbers come before words, and compare as numbers."""
    return (0, int(text), "") if text.isdecimal() else (1, 0, text)
