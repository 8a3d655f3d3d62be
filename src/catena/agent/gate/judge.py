"""What decides, as the guard sees it: whether something may be started, and with which document."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from catena.formats.containerlog import Create, Exec

E = TypeVar("E", Create, Exec)


@dataclass(frozen=True, slots=True)
class Allowed(Generic[E]):
    """Something may start: the event to record, and the only document the runtime may read."""

    event: E
    document: bytes


class Judge(Protocol):
    """Decides. Every method raises a ``CatenaError`` to refuse; for several threads at once."""

    def create(self, bundle: Path, container: str, *, restore: bool) -> Allowed[Create]:
        """May this container be created, or restored from a checkpoint?"""

    def exec(self, process: bytes, created: Create) -> Allowed[Exec]:
        """May this process (OCI ``process``, JSON) run in that container?"""

    def policy(self) -> str:
        """The digest of the policy in force, or nothing; never raises."""
