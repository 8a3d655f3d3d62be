"""Syslog messages (RFC 5424, section 6) and their framing on a stream (RFC 6587, section 3.4.1).

``<PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID [SD-ID NAME="VALUE" …] BOM MSG``

Only written here, never read. Whatever a value holds, it stays inside its field and on one line:
control characters are spelled out, the three characters of section 6.3.3 are escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

NIL = "-"
AUDIT = 13
"""Facility "log audit" (section 6.2.1)."""
_BOM = "\ufeff"


class Severity(IntEnum):
    """The two of section 6.2.1 that are used."""

    WARNING = 4
    NOTICE = 5


@dataclass(frozen=True, slots=True)
class SyslogMessage:
    """One message; ``at`` has a time zone, ``data`` is the one structured data element."""

    severity: Severity
    at: datetime
    hostname: str
    app_name: str
    message_id: str
    data_id: str
    data: Mapping[str, str]
    text: str

    def encode(self) -> bytes:
        """The message, on one line without an end of line."""
        header = " ".join(
            (
                f"<{AUDIT * 8 + self.severity}>1",
                self.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                _field(self.hostname, 255),
                _field(self.app_name, 48),
                NIL,
                _field(self.message_id, 32),
            )
        )
        values = "".join(f' {name}="{_value(value)}"' for name, value in self.data.items())
        return f"{header} [{self.data_id}{values}] {_BOM}{_one_line(self.text)}".encode()


def counted(message: bytes) -> bytes:
    """A message as it is sent on a stream: behind its length in bytes."""
    return b"%d %s" % (len(message), message)


def _field(text: str, limit: int) -> str:
    """PRINTUSASCII of section 6; other characters become ``?``."""
    shown = "".join(char if "!" <= char <= "~" else "?" for char in text[:limit])
    return shown or NIL


def _value(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")
    # Behind the escapes of section 6.3.3: a reader leaves a backslash before any other character alone.
    return _one_line(escaped)


def _one_line(text: str) -> str:
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
