"""People in the log: a salted digest each, whose salt and name are kept elsewhere.

A log cannot forget, a person may have to be forgotten. So an entry has the pseudonym
``person:HEX``, HEX the SHA-256 of ``catena/person/v1``, the salt and the name; equal names have
one pseudonym until they are forgotten. With the salt anybody can check what a pseudonym stands
for; once salt and name are deleted nobody can tell, and the log verifies as before.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated

import msgspec

from catena.errors import FormatError, Refusal

SALT_SIZE = 16
MAX_PEOPLE_FILE = 4 * 1024 * 1024
_DOMAIN = b"catena/person/v1"
PREFIX = "person:"
_PSEUDONYM = re.compile(rf"{PREFIX}[0-9a-f]{{64}}")
_SHOWN = len(PREFIX) + 12

Pseudonym = Annotated[str, msgspec.Meta(pattern=rf"^{_PSEUDONYM.pattern}\Z")]
Salt = Annotated[str, msgspec.Meta(pattern=rf"^[0-9a-f]{{{2 * SALT_SIZE}}}\Z")]


class PersonMismatch(Refusal):
    """A name and a salt that do not make the pseudonym they are given for."""

    code = "person-mismatch"
    remedy = "The list of people was changed; get it again with `catena audit people -o json`."


class Person(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who a pseudonym stands for; ``salt`` is hex."""

    pseudonym: Pseudonym
    salt: Salt
    name: str


def pseudonym(salt: bytes, name: str) -> str:
    """What entries have instead of a name."""
    return f"{PREFIX}{hashlib.sha256(_DOMAIN + salt + name.encode()).hexdigest()}"


def is_pseudonym(text: str) -> bool:
    """Whether this is the form of a pseudonym."""
    return _PSEUDONYM.fullmatch(text) is not None


def shortened(text: str) -> str:
    """As a line for a person has it: the first digits of a pseudonym, other text as it is."""
    return f"{text[:_SHOWN]}…" if is_pseudonym(text) else text


def open_people(content: bytes) -> Mapping[str, str]:
    """Names by pseudonym, from what ``catena audit people -o json`` printed.

    Raises ``FormatError`` and ``PersonMismatch``.
    """
    try:
        people = msgspec.json.decode(content, type=tuple[Person, ...])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # The decoder quotes names that the list has, at any length.
        raise FormatError(f"not a list of people: {str(error)[:200]}") from error
    for one in people:
        made = pseudonym(bytes.fromhex(one.salt), one.name)
        if made != one.pseudonym:
            raise PersonMismatch(
                "a name does not belong to its pseudonym", expected=one.pseudonym, got=made
            )
    return {one.pseudonym: one.name for one in people}
