"""The command line of an OCI runtime (runc 1.0 to 1.3), read strictly.

``catena-runc`` decides by the same rules which calls concern the gate; the gate reads the words again,
and the real runtime gets what the gate read, in one spelling, never the words themselves: there is
nothing left that the two could read differently.

An option is ``--name``, ``--name=value`` or ``--name value`` (``-x`` where there is a short one). One
that is unknown, or given twice although it counts once, is refused. Two of runc's are unknown here on
purpose: ``--criu`` names a program to run, ``--no-pivot`` leaves a container a way to the host's files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from catena.errors import Refusal

_ID = re.compile(r"[A-Za-z0-9_+.][A-Za-z0-9_+.-]{0,1023}\Z")
DEFAULT_ROOT = "/run/runc"


class CommandRefused(Refusal):
    """A call of the runtime that is not one of those the gate understands."""

    code = "runtime-command-refused"
    remedy = "Call the runtime as containerd, podman, Docker or CRI-O do."


class Verb(StrEnum):
    """The commands that the gate is asked about."""

    CREATE = "create"
    RUN = "run"
    EXEC = "exec"
    RESTORE = "restore"
    DELETE = "delete"


class _Kind(StrEnum):
    FLAG = "flag"
    ONE = "one"
    MANY = "many"


@dataclass(frozen=True, slots=True)
class RuntimeCommand:
    """One call: ``options`` by full name, each with its values in order (none for a flag)."""

    verb: Verb
    container: str
    global_options: Mapping[str, tuple[str, ...]]
    options: Mapping[str, tuple[str, ...]]
    arguments: tuple[str, ...] = ()

    @property
    def root(self) -> str:
        """Where the real runtime keeps its state."""
        return self.value_of_global("root") or DEFAULT_ROOT

    def value_of_global(self, name: str) -> str:
        """The value of an option before the verb, or nothing."""
        return "".join(self.global_options.get(name, ()))

    def value(self, name: str) -> str:
        """The value of an option that counts once, or nothing."""
        return "".join(self.options.get(name, ()))

    def words(self, **changed: str | None) -> tuple[str, ...]:
        """The call in one spelling, some options changed (``None`` takes one away).

        Names in ``changed`` have ``_`` for ``-``. The arguments behind the container are left
        out: they are part of a process document by then.
        """
        options = dict(self.options)
        for name, value in changed.items():
            options.pop(name.replace("_", "-"), None)
            if value is not None:
                options[name.replace("_", "-")] = (value,)
        return (
            *_spelled(self.global_options, _GLOBAL),
            self.verb.value,
            *_spelled(options, _OPTIONS[self.verb]),
            self.container,
        )


_GLOBAL = {
    "debug": _Kind.FLAG,
    "systemd-cgroup": _Kind.FLAG,
    "log": _Kind.ONE,
    "log-format": _Kind.ONE,
    "root": _Kind.ONE,
    "rootless": _Kind.ONE,
}
_START = {
    "bundle": _Kind.ONE,
    "console-socket": _Kind.ONE,
    "pidfd-socket": _Kind.ONE,
    "pid-file": _Kind.ONE,
    "no-new-keyring": _Kind.FLAG,
    "preserve-fds": _Kind.ONE,
}
_DETACHED = {"detach": _Kind.FLAG, "keep": _Kind.FLAG, "no-subreaper": _Kind.FLAG}
_OPTIONS: dict[Verb, dict[str, _Kind]] = {
    Verb.CREATE: _START,
    Verb.RUN: {**_START, **_DETACHED},
    Verb.EXEC: {
        "console-socket": _Kind.ONE,
        "pidfd-socket": _Kind.ONE,
        "cwd": _Kind.ONE,
        "env": _Kind.MANY,
        "tty": _Kind.FLAG,
        "user": _Kind.ONE,
        "additional-gids": _Kind.MANY,
        "process": _Kind.ONE,
        "detach": _Kind.FLAG,
        "pid-file": _Kind.ONE,
        "process-label": _Kind.ONE,
        "apparmor": _Kind.ONE,
        "no-new-privs": _Kind.FLAG,
        "cap": _Kind.MANY,
        "preserve-fds": _Kind.ONE,
        "cgroup": _Kind.MANY,
        "ignore-paused": _Kind.FLAG,
    },
    Verb.RESTORE: {
        **_START,
        **_DETACHED,
        "image-path": _Kind.ONE,
        "work-path": _Kind.ONE,
        "tcp-established": _Kind.FLAG,
        "ext-unix-sk": _Kind.FLAG,
        "shell-job": _Kind.FLAG,
        "file-locks": _Kind.FLAG,
        "manage-cgroups-mode": _Kind.ONE,
        "empty-ns": _Kind.MANY,
        "auto-dedup": _Kind.FLAG,
        "lazy-pages": _Kind.FLAG,
        "lsm-profile": _Kind.ONE,
        "lsm-mount-context": _Kind.ONE,
    },
    Verb.DELETE: {"force": _Kind.FLAG},
}
_SHORT = {
    "b": "bundle",
    "d": "detach",
    "e": "env",
    "f": "force",
    "g": "additional-gids",
    "p": "process",
    "t": "tty",
    "u": "user",
    "c": "cap",
}


def parse_command(words: Sequence[str]) -> RuntimeCommand:
    """Read the words behind ``runc``. Raises ``CommandRefused``."""
    global_options, rest = _options(words, _GLOBAL)
    if not rest or rest[0] not in set(Verb):
        raise CommandRefused("unknown command", got=_shown(rest[0] if rest else ""))
    verb = Verb(rest[0])
    options, rest = _options(rest[1:], _OPTIONS[verb])
    if not rest or not _ID.match(rest[0]):
        raise CommandRefused("no usable container ID", got=_shown(rest[0] if rest else ""))
    if len(rest) > 1 and verb is not Verb.EXEC:
        raise CommandRefused("words behind the container ID", got=_shown(rest[1]))
    return RuntimeCommand(verb, rest[0], global_options, options, tuple(rest[1:]))


def _options(
    words: Sequence[str], known: Mapping[str, _Kind]
) -> tuple[dict[str, tuple[str, ...]], Sequence[str]]:
    """The options up to the first word that is none, and the words from there on."""
    found: dict[str, tuple[str, ...]] = {}
    position = 0
    while position < len(words) and words[position].startswith("-"):
        name, given, value = _name_of(words[position], known)
        kind = known[name]
        position += 1
        if name in found and kind is not _Kind.MANY:
            raise CommandRefused("an option is given twice", got=f"--{name}")
        if kind is _Kind.FLAG:
            if given:
                raise CommandRefused("an option takes no value", got=f"--{name}")
            found[name] = ()
            continue
        if not given:
            if position == len(words):
                raise CommandRefused("an option lacks its value", got=f"--{name}")
            value = words[position]
            position += 1
        if not value:
            raise CommandRefused("an option has an empty value", got=f"--{name}")
        found[name] = (*found.get(name, ()), value)
    return found, words[position:]


def _name_of(word: str, known: Mapping[str, _Kind]) -> tuple[str, str, str]:
    """The full name of an option, ``=`` if a value is attached to it, and that value."""
    spelled, equals, value = word.partition("=")
    name = _SHORT.get(spelled[1:], "") if len(spelled) == 2 else spelled[2:]
    if name not in known or not (len(spelled) == 2 or spelled.startswith("--")):
        raise CommandRefused("unknown option", got=_shown(word))
    return name, equals, value


def _spelled(options: Mapping[str, tuple[str, ...]], known: Mapping[str, _Kind]) -> list[str]:
    words: list[str] = []
    for name, values in options.items():
        if known[name] is _Kind.FLAG:
            words.append(f"--{name}")
        words.extend(f"--{name}={value}" for value in values)
    return words


def _shown(word: str) -> str:
    return ascii(word[:60])
