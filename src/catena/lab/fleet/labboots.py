"""The boots that a lab recorded: firmware logs of its machines, which its trust service has kept.

Read from the database of the lab's server, whether it runs or not. Of each machine that was trusted
last, it is the log of that boot; without IMA's, so PCR 10 is as after power-on.
"""

from __future__ import annotations

from pathlib import Path

from catena.lab.fleet.boots import NoRecordedBoots, RecordedBoot, replayed
from catena.store.database import Database
from catena.store.nodes import Node

DATABASE = "catena.db"
_TRUSTED = "trusted"


class NoLabBoots(NoRecordedBoots):
    """No lab where one was looked for, or one in which no machine was trusted."""

    code = "no-lab-boots"
    remedy = (
        "Run `catena lab demo` or `catena lab up` here, name the lab's folder in CATENA_HOME, or "
        "give --logs FOLDER."
    )


def lab_boots(server: Path) -> tuple[RecordedBoot, ...]:
    """Boots that the service in ``server`` trusts, by machine, each log once.

    Raises ``NoLabBoots``, ``DatabaseGone``.
    """
    file = server.resolve() / DATABASE
    url = f"sqlite:///{file}"
    if not file.is_file():
        raise NoLabBoots("no lab has recorded boots here", got=str(server))
    if Database.pending(url):  # opening would change it
        raise NoLabBoots("the lab is of an earlier version", got=str(server))
    database = Database.open(url)
    try:
        with database.snapshot() as rows:
            trusted = {
                one.boot_log: one
                for one in rows.nodes.list()
                if one.last_verdict == _TRUSTED and one.boot_log is not None
            }
            logs = {_name(one): rows.logs.get(digest) for digest, one in trusted.items()}
    finally:
        database.close()
    found = tuple(replayed(name, log, b"") for name, log in sorted(logs.items()) if log)
    if not found:
        raise NoLabBoots("no machine of the lab was trusted", got=str(server))
    return found


def _name(node: Node) -> str:
    return node.name or node.id[:16]
