"""The process document of an ``exec``: what the runtime would have made of its options.

``runc exec`` starts from the container's own ``process`` and changes what options say (runc 1.1.5,
``exec.go``, getProcess); with ``--process FILE`` it takes that file and nothing else.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import msgspec

from catena.containers.wrapper.command import RuntimeCommand
from catena.errors import FormatError, Unavailable

MAX_DOCUMENT = 4 * 1024 * 1024
_USER = re.compile(r"([0-9]{1,10})(?::([0-9]{1,10}))?\Z")
_SETS = ("bounding", "effective", "permitted", "ambient")


class DocumentUnreadable(Unavailable):
    """A bundle's config.json or a process document that cannot be had."""

    code = "bundle-unreadable"
    remedy = "Check the bundle; its config.json must be a regular file."


class BadExec(FormatError):
    """Options of an ``exec`` that make no process."""

    code = "exec-malformed"
    remedy = "Give user and groups as numbers, and a command."


def read_document(path: Path) -> bytes:
    """A regular file, whole. Raises ``DocumentUnreadable``."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_DOCUMENT:
                raise DocumentUnreadable(f"{path} is no file of at most {MAX_DOCUMENT} bytes")
            data = stream.read(MAX_DOCUMENT + 1)
    except OSError as error:
        raise DocumentUnreadable(f"cannot read {path}", got=error.strerror) from error
    if len(data) > MAX_DOCUMENT:
        raise DocumentUnreadable(f"{path} is longer than {MAX_DOCUMENT} bytes")
    return data


def process_document(folder: Path, command: RuntimeCommand, config: bytes) -> bytes:
    """The document that an ``exec`` is about; ``config`` is the container's checked one.

    Raises ``DocumentUnreadable`` or ``BadExec``.
    """
    if command.value("process"):
        return read_document(folder / command.value("process"))
    if not command.arguments:
        raise BadExec("exec names no command")
    process: dict[str, Any] = msgspec.json.decode(config)["process"]
    process["args"] = list(command.arguments)
    process["terminal"] = "tty" in command.options
    for option, key in (
        ("cwd", "cwd"),
        ("apparmor", "apparmorProfile"),
        ("process-label", "selinuxLabel"),
    ):
        if command.value(option):
            process[key] = command.value(option)
    if "no-new-privs" in command.options:
        process["noNewPrivileges"] = True
    process["env"] = [*process.get("env", ()), *command.options.get("env", ())]
    _add_capabilities(process, command.options.get("cap", ()))
    _set_user(process, command)
    return msgspec.json.encode(process)


def _add_capabilities(process: dict[str, Any], added: tuple[str, ...]) -> None:
    if added:
        held = process.get("capabilities") or {}
        process["capabilities"] = held | {name: [*held.get(name, ()), *added] for name in _SETS}


def _set_user(process: dict[str, Any], command: RuntimeCommand) -> None:
    user = dict(process.get("user", {}))
    if command.value("user"):
        numbers = _USER.match(command.value("user"))
        if numbers is None:
            raise BadExec("user of an exec", expected="UID[:GID]")
        user["uid"] = int(numbers[1])
        if numbers[2] is not None:
            user["gid"] = int(numbers[2])
    for group in command.options.get("additional-gids", ()):
        if not group.isascii() or not group.isdecimal():
            raise BadExec("group of an exec", expected="a number")
        user["additionalGids"] = [*user.get("additionalGids", ()), int(group)]
    process["user"] = user
