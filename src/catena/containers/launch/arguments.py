"""``runc exec``'s command line, as the process that it asks for.

runc takes the container's own process and changes what its options say (runc 1.0 to 1.2, "exec"). The
words themselves are read by ``wrapper.command``. Numbers are plain decimals here: runc itself lets
``--user 4294967296`` wrap around to root.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from catena.containers.launch.refusals import LaunchPrivileges, UnknownExecOption, shown
from catena.formats.runtime import Capabilities, Process

_MAX_ID = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecArguments:
    """A command, and the options before it: empty ones leave what the container has."""

    command: tuple[str, ...]
    cwd: str = ""
    user: str = ""
    env: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    terminal: bool = False
    no_new_privileges: bool = False

    def process(self, own: Process) -> Process:
        """The process that runc makes of ``own``, the container's.

        Raises ``UnknownExecOption`` for a user or group that is no number.
        """
        changes: dict[str, object] = {
            "args": self.command,
            "user": self._user(own),
            "env": (*(own.env or ()), *self.env),
            "terminal": self.terminal,
            "no_new_privileges": self.no_new_privileges or own.no_new_privileges,
            "capabilities": _with(own.capabilities, self.capabilities),
            "cwd": self.cwd or own.cwd,
        }
        return msgspec.structs.replace(own, **changes)

    def _user(self, own: Process) -> object:
        groups = tuple(map(_number, self.groups))
        uid, colon, gid = self.user.partition(":")
        return msgspec.structs.replace(
            own.user,
            uid=_number(uid) if uid or colon else own.user.uid,
            gid=_number(gid) if colon else own.user.gid,
            additional_gids=(*(own.user.additional_gids or ()), *groups),
        )


def check_cgroup(value: str) -> None:
    """``--cgroup`` stays below the container's own. Raises ``LaunchPrivileges``."""
    if ".." in value.rpartition(":")[2].split("/"):
        raise LaunchPrivileges("a cgroup that is not the container's", got=shown(value))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= _MAX_ID):
        raise UnknownExecOption("a user or group that is not a number", got=shown(text))
    return int(text)


def _with(own: Capabilities | None, more: tuple[str, ...]) -> Capabilities | None:
    if not more:
        return own
    return Capabilities(bounding=(*(own.all if own else ()), *more))
