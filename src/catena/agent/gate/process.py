"""The process document of an ``exec``: what the runtime would have made of its options.

The runtime is then given the document and none of the options: it has nothing left to understand in its
own way.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec

from catena.containers.launch.arguments import ExecArguments, check_cgroup
from catena.containers.wrapper.command import RuntimeCommand
from catena.errors import FormatError, Unavailable
from catena.formats.runtime import parse_config

MAX_DOCUMENT = 4 * 1024 * 1024


class DocumentUnreadable(Unavailable):
    """A bundle's config.json or a process document that cannot be had."""

    code = "bundle-unreadable"
    remedy = "Check the bundle; its config.json must be a regular file."


class BadExec(FormatError):
    """An ``exec`` without a command."""

    code = "exec-malformed"
    remedy = "Say what to run."


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

    Raises ``DocumentUnreadable``, ``BadExec``, ``UnknownExecOption`` or ``LaunchPrivileges``.
    """
    for cgroup in command.options.get("cgroup", ()):
        check_cgroup(cgroup)
    if command.value("process"):
        return read_document(folder / command.value("process"))
    if not command.arguments:
        raise BadExec("exec names no command")
    own = parse_config(config).started
    asked = ExecArguments(
        command=command.arguments,
        cwd=command.value("cwd"),
        user=command.value("user"),
        env=command.options.get("env", ()),
        capabilities=command.options.get("cap", ()),
        groups=command.options.get("additional-gids", ()),
        terminal="tty" in command.options,
        no_new_privileges="no-new-privs" in command.options,
    ).process(own)
    labels = {
        "apparmor_profile": command.value("apparmor") or asked.apparmor_profile,
        "selinux_label": command.value("process-label") or asked.selinux_label,
    }
    return msgspec.json.encode(msgspec.structs.replace(asked, **labels))
