"""The inventory: machines that are expected, with the name and role that they will have.

In the mode ``inventory`` a listed machine is admitted when it enrols, and nobody else is. In every
mode the list says which machines have not shown up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from catena.audit.entries import InventoryChanged
from catena.errors import NotFound, Refusal, UsageError
from catena.formats.inventory import COLUMNS, Machine, encode
from catena.ids import NodeId, Sha256Hex
from catena.service import pages
from catena.service.nodes import rfc3339
from catena.service.pages import ExpectedKey, ExpectedRequest, Page, page_of
from catena.service.setting import Setting
from catena.service.views import ExpectedView, Imported, InventoryRequest
from catena.store.database import Transaction
from catena.store.errors import Conflict
from catena.store.inventory import ExpectedMachine

MAX_TOLD = 20


class NotExpected(Refusal):
    """A TPM that nobody listed, where only listed ones are admitted."""

    code = "not-expected"
    remedy = "List the machine with `catena node import`, then enrol it again."


class ListedTwice(Refusal):
    """A TPM that two lines claim: one by its EK, one by its certificate."""

    code = "listed-twice"
    remedy = "Take one of the lines off with `catena node unlist`."


class AlreadyArrived(Refusal):
    """A line of the inventory that another TPM used already."""

    code = "already-arrived"
    remedy = "Two TPMs claim one certificate; find out which is the copy before anything else."


class ListedNameTaken(Refusal):
    """A line of the inventory whose name a node has already."""

    code = "listed-name-taken"
    remedy = "Replace or retire the node that has the name, then enrol this machine again."


class InventoryConflict(Conflict):
    """A list that contradicts what is listed or enrolled; nothing of it was imported."""

    code = "inventory-conflict"
    remedy = "Correct these lines, or take the older ones off with `catena node unlist`."


class EmptyInventory(UsageError):
    """A list without a machine."""

    code = "empty-inventory"


class NotListed(NotFound):
    """No expected machine has this name."""

    code = "not-listed"
    remedy = "`catena node expected` shows the list."


class Inventory:
    """The verbs *expect*, *unlist* and *show*."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def expect(self, request: InventoryRequest, actor: str) -> Imported:
        """Add machines, all or none; those that are listed as they are stay. A dry run adds none.

        Raises ``EmptyInventory`` or ``InventoryConflict``.
        """
        if not request.machines:
            raise EmptyInventory("the list names no machine")
        with self._setting.journal.deciding("inventory"):
            with self._setting.database.snapshot() as rows:
                listed = rows.expected.list()
                conflicts = list(_conflicts(rows, listed, request.machines))
            if conflicts:
                more = len(conflicts) - MAX_TOLD
                told = "; ".join(conflicts[:MAX_TOLD])
                raise InventoryConflict(told + (f"; and {more} more" if more > 0 else ""))
            present = {one.name for one in listed}
            new = tuple(one for one in request.machines if one.name not in present)
            if new and not request.dry_run:
                self._record("expected", new, actor)
                now = self._setting.now()
                with self._setting.journal.effect() as rows:
                    rows.expected.insert(tuple(_stored(one, now) for one in new))
        return Imported(
            added=len(new), unchanged=len(request.machines) - len(new), dry_run=request.dry_run
        )

    def unlist(self, name: str, actor: str) -> ExpectedView:
        """Expect a machine no longer; a node that it became stays. Raises ``NotListed``."""
        with self._setting.journal.deciding("inventory"):
            with self._setting.database.snapshot() as rows:
                found = rows.expected.get(name)
            if found is None:
                raise NotListed("no expected machine has this name", got=name[:80])
            self._record("unlisted", (_machine(found),), actor)
            with self._setting.journal.effect() as rows:
                rows.expected.remove(found.name)
        return _view(found)

    def page(self, request: ExpectedRequest) -> Page[ExpectedView]:
        """Machines that have not shown up, or all that are listed. Raises ``BadCursor``."""
        key = pages.decode(request.cursor, ExpectedKey)
        after = None if key is None else key.name
        with self._setting.database.snapshot() as rows:
            found = rows.expected.page(after, request.limit + 1, awaited=not request.all)
        page = page_of(found, request.limit, lambda one: ExpectedKey(one.name))
        return Page(tuple(map(_view, page.items)), page.cursor)

    def _record(self, action: str, machines: tuple[Machine, ...], actor: str) -> None:
        document = encode(machines)
        digest = Sha256Hex(hashlib.sha256(document).hexdigest())
        self._setting.evidence.keep({digest: document})
        self._setting.journal.record(
            InventoryChanged(
                at=self._setting.now(),
                actor=actor,
                action="expected" if action == "expected" else "unlisted",
                machines=len(machines),
                list_sha256=digest,
            )
        )


def expected_for(
    rows: Transaction, node_id: NodeId, issuer: str | None, serial: str | None
) -> ExpectedMachine:
    """The line that admits this TPM. Raises ``NotExpected``, ``ListedTwice``, ``AlreadyArrived``."""
    found = rows.expected.find(node_id, issuer, serial)
    if not found:
        raise NotExpected("this TPM is not in the inventory")
    if len(found) > 1:
        names = ", ".join(one.name for one in found)
        raise ListedTwice("the inventory claims this TPM twice", got=names[:120])
    (machine,) = found
    if machine.node_id not in {None, node_id}:
        raise AlreadyArrived("another TPM enrolled as this machine", got=machine.name)
    return machine


def _conflicts(
    rows: Transaction, listed: tuple[ExpectedMachine, ...], machines: tuple[Machine, ...]
) -> Iterator[str]:
    """Everything that a list contradicts, itself included."""
    names: dict[str, Machine] = {one.name: _machine(one) for one in listed}
    identities: dict[tuple[str, ...], str] = {_machine(one).identity: one.name for one in listed}
    holders = rows.nodes.names()
    for machine in machines:
        if names.get(machine.name) == machine:
            continue
        if machine.name in names:
            yield f"{machine.name}: the name is listed with other values"
        elif machine.identity in identities:
            yield f"{machine.name}: its TPM is listed as {identities[machine.identity]}"
        elif holders.get(machine.name, machine.ek_sha256) != machine.ek_sha256:
            yield f"{machine.name}: another node has this name"
        names[machine.name] = machine
        identities.setdefault(machine.identity, machine.name)


def _machine(stored: ExpectedMachine) -> Machine:
    return Machine(**_line(stored))


def _stored(machine: Machine, now: datetime) -> ExpectedMachine:
    return ExpectedMachine(**_line(machine), listed_at=now)


def _view(machine: ExpectedMachine) -> ExpectedView:
    return ExpectedView(
        **_line(machine), listed_at=rfc3339(machine.listed_at), node=machine.node_id
    )


def _line(machine: Machine | ExpectedMachine) -> dict[str, Any]:
    """What a line of the list says, which is the same wherever it is kept."""
    return {column: getattr(machine, column) for column in COLUMNS}
