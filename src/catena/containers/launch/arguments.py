"""``runc exec``'s command line, as the process that it asks for.

runc takes the container's own process and changes what its options say (runc 1.0 to 1.2, "exec"); with
``--process`` it takes a file instead, and ignores the other options. Options may have one dash or
two, and their value behind ``=`` or as the next word; they end at the container's name, or at ``--``.
Numbers are plain decimals: runc itself lets ``--user 4294967296`` wrap around to root.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from catena.containers.launch.refusals import LaunchPrivileges, UnknownExecOption, shown
from catena.formats.runtime import Capabilities, Process

_ALIASES = {"e": "env", "t": "tty", "u": "user", "g": "additional-gids", "p": "process"}
_ALIASES |= {"d": "detach", "c": "cap"}
_SWITCHES = frozenset({"tty", "detach", "no-new-privs", "ignore-paused"})
_LISTS = frozenset({"env", "additional-gids", "cap"})
_HARMLESS = frozenset({"console-socket", "pid-file", "preserve-fds", "cgroup"})
_LABELS = frozenset({"process-label", "apparmor"})
_ONE = frozenset({"cwd", "user", "process"}) | _HARMLESS | _LABELS
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
_MAX_ID = 2**32 - 1


@dataclass(frozen=True, slots=True)
class ExecArguments:
    """What follows ``exec`` on the command line, by option.

    ``process_file`` is the path behind ``--process``, or empty; who judges the file must see to it
    that the runtime reads the same bytes.
    """

    container: str
    command: tuple[str, ...]
    values: dict[str, str]
    lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    switches: dict[str, bool] = field(default_factory=dict)

    @property
    def process_file(self) -> str:
        """Where the process is described, if it is a file."""
        return self.values.get("process", "")

    def process(self, own: Process) -> Process:
        """The process that runc makes of ``own``, the container's, without a process file.

        Raises ``UnknownExecOption`` for a user or group that is no number.
        """
        changes: dict[str, object] = {
            "args": self.command,
            "user": self._user(own),
            "env": (*(own.env or ()), *self.lists.get("env", ())),
            "terminal": self.switches.get("tty", own.terminal),
            "no_new_privileges": self.switches.get("no-new-privs", own.no_new_privileges),
            "capabilities": _with(own.capabilities, self.lists.get("cap", ())),
            "cwd": self.values.get("cwd") or own.cwd,
        }
        return msgspec.structs.replace(own, **changes)

    def _user(self, own: Process) -> object:
        groups = tuple(map(_number, self.lists.get("additional-gids", ())))
        uid, colon, gid = self.values.get("user", "").partition(":")
        return msgspec.structs.replace(
            own.user,
            uid=_number(uid) if uid or colon else own.user.uid,
            gid=_number(gid) if colon else own.user.gid,
            additional_gids=(*(own.user.additional_gids or ()), *groups),
        )


def parse_exec(arguments: Sequence[str]) -> ExecArguments:
    """Read what follows ``exec``. Raises ``UnknownExecOption`` or ``LaunchPrivileges``."""
    words = list(arguments)
    values: dict[str, str] = {}
    lists: dict[str, tuple[str, ...]] = {}
    switches: dict[str, bool] = {}
    while words and words[0].startswith("-") and words[0] not in {"-", "--"}:
        name, equals, value = words.pop(0).removeprefix("-").removeprefix("-").partition("=")
        name = _ALIASES.get(name, name)
        if name in values or name in switches:
            raise UnknownExecOption("an option that stands twice", got=shown(name))
        if name in _SWITCHES:
            switches[name] = _truth(value) if equals else True
            continue
        if name not in _ONE | _LISTS:
            raise UnknownExecOption("an option of exec that is not known", got=shown(name))
        value = value if equals else _next(words, name)
        if name in _LISTS:
            lists[name] = (*lists.get(name, ()), value)
        else:
            values[name] = value
    if words[:1] == ["--"]:
        words.pop(0)
    container = _next(words, "CONTAINER")
    if words[:1] == ["--"]:
        words.pop(0)
    check_cgroup(values.get("cgroup", ""))
    return ExecArguments(container, tuple(words), values, lists, switches)


def check_cgroup(value: str) -> None:
    """``--cgroup`` stays below the container's own. Raises ``LaunchPrivileges``."""
    if ".." in value.rpartition(":")[2].split("/"):
        raise LaunchPrivileges("a cgroup that is not the container's", got=shown(value))


def _next(words: list[str], name: str) -> str:
    if not words:
        raise UnknownExecOption("a command line that ends too early", expected=shown(name))
    return words.pop(0)


def _truth(value: str) -> bool:
    if value not in _TRUE | _FALSE:
        raise UnknownExecOption("a switch that is neither true nor false", got=shown(value))
    return value in _TRUE


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= _MAX_ID):
        raise UnknownExecOption("a user or group that is not a number", got=shown(text))
    return int(text)


def _with(own: Capabilities | None, more: tuple[str, ...]) -> Capabilities | None:
    if not more:
        return own
    return Capabilities(bounding=(*(own.all if own else ()), *more))
