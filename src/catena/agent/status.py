"""``status.json`` in the runtime directory: what the agent last knew, for people and scripts."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from catena.errors import ExitCode, FormatError, NotFound, Unavailable
from catena.formats.nodeapi import NodeState, Reason

FILE = "status.json"


class NoStatus(NotFound):
    """The agent has not run since this machine was started."""

    code = "agent-not-running"
    remedy = "Start it with `systemctl start catena-agent` or `catena agent run`."


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why the last round did not end."""

    code: str
    message: str


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state after the last round. Times are RFC 3339 in UTC."""

    updated_at: datetime
    node_id: str | None = None
    name: str | None = None
    state: NodeState | None = None
    verdict: Literal["trusted", "untrusted"] | None = None
    reasons: tuple[Reason, ...] = ()
    attested_at: datetime | None = None
    certificate_until: datetime | None = None
    secrets: dict[str, int] = {}
    failure: Failure | None = None
    next_attempt_at: datetime | None = None

    def exit_code(self, now: datetime) -> ExitCode:
        """What ``catena agent status`` ends with.

        Trusted means a certificate that is valid now. Without one, a node that was never
        judged, or whose trust service went silent, is stale.
        """
        if self.state == "pending":
            return ExitCode.UNKNOWN_NODE
        if "untrusted" in {self.verdict, self.state}:
            return ExitCode.UNTRUSTED
        if self.certificate_until is not None and now < self.certificate_until:
            return ExitCode.OK
        return ExitCode.STALE


def write(folder: Path, status: AgentStatus) -> None:
    """Replace the status file at once. It says nothing secret, but stays in a 0700 folder."""
    temporary = folder / f".{FILE}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        descriptor = os.open(temporary, flags, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(msgspec.json.encode(status))
        temporary.replace(folder / FILE)
    except OSError as error:
        raise Unavailable(f"cannot write {folder / FILE}", got=error.strerror) from error


def read(folder: Path) -> AgentStatus:
    """The last status. Raises ``NoStatus`` or ``FormatError``."""
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=AgentStatus)
    except FileNotFoundError as error:
        raise NoStatus(f"there is no {path}") from error
    except OSError as error:
        raise Unavailable(f"cannot read {path}", got=error.strerror) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is no agent status") from error
