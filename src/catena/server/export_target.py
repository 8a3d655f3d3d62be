"""Where entries are exported to, as ``exports`` in server.toml spells it: ``KIND ADDRESS``.

==========  ===================================================================
``syslog``  ``unix:PATH``, ``unix-stream:PATH``, ``udp:HOST:PORT``, ``tcp:HOST:PORT``
``otlp``    an ``http`` or ``https`` URL, commonly ending in ``/v1/logs``
``http``    an ``http`` or ``https`` URL
``webhook`` an ``http`` or ``https`` URL, a space, and a file with the secret that signs
``file``    a path
==========  ===================================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast, get_args

from catena.errors import UsageError

Kind = Literal["syslog", "otlp", "http", "webhook", "file"]

_URL = re.compile(r"https?://[A-Za-z0-9._\[\]:-]+(/[A-Za-z0-9._~/-]*)?")
_WEBHOOK = re.compile(rf"{_URL.pattern} [^\x00-\x20\x7f][^\x00-\x1f\x7f]{{0,999}}")
_SYSLOG = re.compile(
    r"unix(-stream)?:[^\x00-\x1f\x7f]{1,100}|(udp|tcp):(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}"
)
_PATH = re.compile(r"[^\x00-\x1f\x7f]{1,1000}")
_FORMS = {
    "syslog": (_SYSLOG, "syslog unix:PATH|unix-stream:PATH|udp:HOST:PORT|tcp:HOST:PORT"),
    "otlp": (_URL, "otlp https://HOST[:PORT]/v1/logs"),
    "http": (_URL, "http https://HOST[:PORT][/PATH]"),
    "webhook": (_WEBHOOK, "webhook https://HOST[:PORT][/PATH] SECRETFILE"),
    "file": (_PATH, "file PATH"),
}


class BadExport(UsageError):
    """An export target that is spelled wrongly."""

    code = "bad-export"
    remedy = "Give `KIND ADDRESS`; the manual lists the kinds."


@dataclass(frozen=True, slots=True)
class ExportTarget:
    """One receiver; a webhook has a file with the secret that signs what it is sent."""

    kind: Kind
    address: str
    secret_file: str | None = None

    def __str__(self) -> str:
        """Which receiver it is, whatever its secret."""
        return f"{self.kind} {self.address}"


def parse(text: str) -> ExportTarget:
    """One target. Raises ``BadExport``."""
    kind, _, address = text.partition(" ")
    if kind not in _FORMS:
        expected = ", ".join(get_args(Kind))
        raise BadExport("unknown kind of export", expected=expected, got=ascii(kind[:40]))
    form, expected = _FORMS[kind]
    if not form.fullmatch(address) or not _port_fits(kind, address):
        raise BadExport("not an address for exports", expected=expected, got=ascii(text[:120]))
    if kind == "webhook":
        url, _, secret_file = address.partition(" ")
        return ExportTarget("webhook", url, secret_file)
    return ExportTarget(cast("Kind", kind), address)


def _port_fits(kind: str, address: str) -> bool:
    if kind != "syslog" or address.startswith("unix"):
        return True
    return 0 < int(address.rpartition(":")[2]) < 65_536
