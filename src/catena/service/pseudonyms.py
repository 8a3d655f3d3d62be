"""Names of people leave entries before these are sealed; ``audit.people`` says why and how."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from catena.audit import people
from catena.audit.entries import Entry
from catena.audit.people import PREFIX, SALT_SIZE
from catena.errors import Refusal
from catena.store.database import Database
from catena.store.errors import Conflict
from catena.store.people import StoredPerson

SERVER = "server"
UNKNOWN = "unknown"
"""The actor of a request that was refused before anybody was recognised."""
_NODE = re.compile(r"[0-9a-f]{64}")


class ReservedName(Refusal):
    """A person called as entries call the server, a node or a pseudonym."""

    code = "reserved-name"
    remedy = "Use another label."


def is_reserved(name: str) -> bool:
    """Whether a person must not be called this: entries would show somebody else."""
    return name in {SERVER, UNKNOWN} or bool(_NODE.fullmatch(name)) or name.startswith(PREFIX)


def require_free(name: str) -> None:
    """Refuse a name that is reserved. Raises ``ReservedName``."""
    if is_reserved(name):
        raise ReservedName("entries call somebody else so", got=ascii(name[:80]))


class Pseudonyms:
    """Makes and remembers pseudonyms. Safe to share between threads and replicas."""

    def __init__(self, database: Database, random: Callable[[int], bytes]) -> None:
        self._database = database
        self._random = random

    def masked(self, entry: Entry) -> Entry:
        """The entry with a pseudonym wherever it named a person.

        Nodes, by their id, and the server stay as they are.
        """
        named = {field: getattr(entry, field) for field in entry.personal}
        masks = {field: self.of(name) for field, name in named.items() if not is_reserved(name)}
        return msgspec.structs.replace(entry, **masks) if masks else entry

    def of(self, name: str) -> str:
        """The pseudonym of a name, made the first time; durable before it is used."""
        found = self._known(name)
        if found is None:
            salt = self._random(SALT_SIZE)
            made = StoredPerson(pseudonym=people.pseudonym(salt, name), salt=salt, name=name)
            try:
                with self._database.transaction() as rows:
                    rows.people.insert(made)
            except Conflict:
                found = self._known(name)  # another replica was first
                if found is None:
                    raise
            else:
                found = made.pseudonym
        return found

    def _known(self, name: str) -> str | None:
        with self._database.snapshot() as rows:
            person = rows.people.named(name)
        return None if person is None else person.pseudonym
