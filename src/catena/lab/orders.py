"""Orders to a running machine: what an orchestrator, or an attacker on the node, does there.

The other end is ``node/orders.py``: a line into the machine's port, an answer on its console.
"""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import msgspec

from catena.lab.running import Lab, LabDown

READY = "lab-orders: ready"
_ANSWER = re.compile(r"lab-orders: (\{.*\})")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """How an order ended. ``status`` is the program's, or -1 if there was none; ``container``
    is what a container of this order is called.

    ``said`` and ``error`` are what it printed, ``log`` the runtime's own log (a JSON document a
    line), ``seconds`` what a start took, and
    ``prepared`` what came before it.
    """

    order: str
    status: int
    container: str = ""
    said: str = ""
    error: str = ""
    log: str = ""
    seconds: float = 0.0
    prepared: float = 0.0

    @property
    def reason(self) -> str:
        """The last thing that the runtime logged, as it says it."""
        for line in reversed(self.log.splitlines()):
            try:
                return str(json.loads(line)["msg"])
            except (ValueError, KeyError, TypeError):
                continue
        return self.error.strip()


def give(lab: Lab, machine: str, verb: str, name: str, *, seconds: float) -> Answer:
    """Give a machine one order and wait for the answer. Raises ``LabDown`` or ``MachineTimeout``."""
    console = lab.wait_for_console(
        machine, lambda text: READY in text, seconds=seconds, what="orders taken"
    )
    number = str(len(answers(console)) + 1)
    _write(lab.workspace.orders(machine), f"{number} {verb} {name}\n")
    console = lab.wait_for_console(
        machine,
        lambda text: any(one.order == number for one in answers(text)),
        seconds=seconds,
        what=f"answer to `{verb} {name}`",
    )
    return next(one for one in answers(console) if one.order == number)


def answers(console: str) -> list[Answer]:
    """All answers on a console, oldest first."""
    return [
        msgspec.json.decode(found, type=Answer)
        for found in _ANSWER.findall(console)
        if _whole(found)
    ]


def _whole(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:  # the console is still printing it
        return False
    return True


def _write(pipe: Path, line: str) -> None:
    """Into the pipe that the machine holds open; without a machine nobody does."""
    try:
        descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in {errno.ENXIO, errno.ENOENT}:
            raise
        raise LabDown("the machine takes no orders: it is off", got=pipe.parent.name) from error
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
