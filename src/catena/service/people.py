"""The people of the audit log: who a pseudonym stands for, until somebody is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from catena.audit import people
from catena.audit.entries import PersonForgotten
from catena.audit.people import Person
from catena.errors import NotFound, UsageError
from catena.service import pages
from catena.service.journal import Journal
from catena.service.pages import Page, PageRequest, PersonKey, page_of
from catena.service.views import Forgotten
from catena.store.database import Database


class UnknownPerson(NotFound):
    """A pseudonym that nobody is behind, or nobody any more."""

    code = "unknown-person"
    remedy = "See `catena audit people`."


class PersonInUse(UsageError):
    """Somebody who still has a token."""

    code = "person-in-use"
    remedy = "Remove the person's tokens first; their next use would name the person again."


class People:
    """The verbs about people."""

    def __init__(self, journal: Journal, database: Database, now: Callable[[], datetime]) -> None:
        self._journal = journal
        self._database = database
        self._now = now

    def page(self, request: PageRequest) -> Page[Person]:
        """Some of those whom the log names, by name. Raises ``BadCursor``."""
        key = pages.decode(request.cursor, PersonKey)
        with self._database.snapshot() as rows:
            found = rows.people.page("" if key is None else key.name, request.limit + 1)
        page = page_of(found, request.limit, lambda one: PersonKey(one.name))
        people_ = (
            Person(pseudonym=one.pseudonym, salt=one.salt.hex(), name=one.name)
            for one in page.items
        )
        return Page(tuple(people_), page.cursor)

    def forget(self, pseudonym: str, actor: str) -> Forgotten:
        """Delete name and salt behind a pseudonym.

        Raises ``UnknownPerson``, ``PersonInUse``, ``LogUnwritable``.
        """
        with self._journal.deciding("people"):
            with self._database.snapshot() as rows:
                person = rows.people.get(pseudonym) if people.is_pseudonym(pseudonym) else None
                labels = {token.label for token in rows.tokens.list()}
            if person is None:
                raise UnknownPerson("nobody is behind this pseudonym", got=ascii(pseudonym[:80]))
            if person.name in labels:
                raise PersonInUse("this person still has a token")
            self._journal.record(PersonForgotten(at=self._now(), actor=actor, person=pseudonym))
            with self._journal.effect() as rows:
                rows.people.remove(pseudonym)
                rows.policies.rename(person.name, pseudonym)
                rows.endorsements.rename(person.name, pseudonym)
        return Forgotten(pseudonym=pseudonym)
