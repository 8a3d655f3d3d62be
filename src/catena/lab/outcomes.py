"""What an attack is, and what it means that it was stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from catena.errors import Refusal
from catena.lab.running import Lab


class AttackSucceeded(Refusal):
    """The chain did not stop an attack where it must."""

    code = "attack-succeeded"
    remedy = "Do not use this build. Keep the lab folder and report what the line above says."


class Where(Enum):
    """The machine that an attack needs."""

    ON_FIRST = auto()
    """The first machine, switched on and as it was released."""

    INSTEAD_OF_FIRST = auto()
    """The first machine's TPM, booted otherwise."""

    ELSEWHERE = auto()
    """A machine of its own."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attack ended: the place it was stopped at, and the words seen there."""

    attack: str
    stopped_by: str
    seen: str


@dataclass(frozen=True, slots=True)
class Attack:
    """One entry of the gallery."""

    name: str
    does: str
    expected: str
    run: Callable[[Lab], Outcome]
    where: Where = Where.INSTEAD_OF_FIRST


def require(otherwise: str, *, held: bool) -> None:
    """Raise ``AttackSucceeded``, which says ``otherwise``, unless it ``held``."""
    if not held:
        raise AttackSucceeded(otherwise)
