"""Sending entries to one receiver: each kind of export is a ``Sender``.

``send`` returns once the receiver has what it was given, as far as its protocol can tell: HTTP answers,
a file is synchronised; syslog never answers, so what was handed to its socket counts as sent.
"""

from __future__ import annotations

import os
import socket
import ssl
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from catena.audit.entries import NodeEntry
from catena.errors import FormatError
from catena.formats import otlp, syslog
from catena.formats.otlp import LogRecord, SeverityNumber
from catena.formats.syslog import Severity, SyslogMessage
from catena.server.export_post import (
    TIMEOUT,
    ExportRefused,
    ExportUnreachable,
    http_client,
    post,
)
from catena.server.export_target import ExportTarget
from catena.server.exported import Exported
from catena.server.webhook import WebhookSender

DATA_ID = "catena@32473"
"""The structured data's name; 32473 is the number that RFC 5612 sets aside."""
LEAF_TYPE = "application/vnd.dsse.envelope.v1+json"


class Sender(Protocol):
    """One receiver; used by one thread."""

    batch: int
    """Entries that are sent together at most."""

    def send(self, entries: Sequence[Exported]) -> None:
        """Send them, in order. Raises ``ExportUnreachable`` or ``ExportRefused``."""
        ...

    def close(self) -> None:
        """Let go of the receiver."""
        ...


def sender_for(
    target: ExportTarget, origin: str, name: str, folder: Path, tls: ssl.SSLContext | None
) -> Sender:
    """The sender of a target's kind; ``name`` is the server's, relative paths start at ``folder``."""
    match target.kind:
        case "syslog":
            return SyslogSender(target.address, origin, name, folder)
        case "otlp":
            return OtlpSender(target.address, origin, name, tls)
        case "http":
            return HttpSender(target.address, origin, tls)
        case "webhook":
            return WebhookSender(target.address, origin, tls, folder / (target.secret_file or ""))
        case "file":
            return FileSender(folder / target.address, origin)


class SyslogSender:
    """RFC 5424 over a Unix socket, UDP, or TCP with octet counting."""

    batch = 64

    def __init__(self, address: str, origin: str, name: str, folder: Path) -> None:
        self._transport, _, self._place = address.partition(":")
        self._origin = origin
        self._name = name
        self._folder = folder
        self._socket: socket.socket | None = None

    def send(self, entries: Sequence[Exported]) -> None:
        """Send one message for each entry."""
        try:
            connected = self._connected()
            for exported in entries:
                message = self._message(exported).encode()
                if connected.type == socket.SOCK_STREAM:
                    connected.sendall(syslog.counted(message))
                else:
                    connected.send(message)
        except OSError as error:
            self.close()
            reason = error.strerror or type(error).__name__
            raise ExportUnreachable(f"cannot send to syslog: {reason}") from error

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        if self._socket is not None and _hung_up(self._socket):
            self.close()
        if self._socket is None:
            self._socket = self._connect()
        return self._socket

    def _connect(self) -> socket.socket:
        stream = self._transport in ("tcp", "unix-stream")
        kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
        family, address = socket.AF_UNIX, str(self._folder / self._place)
        if not self._transport.startswith("unix"):
            host, _, port = self._place.rpartition(":")
            found = socket.getaddrinfo(host.strip("[]"), int(port), type=kind)
            family, address = found[0][0], found[0][4]  # type: ignore[assignment]
        connection = socket.socket(family, kind)
        try:
            connection.settimeout(TIMEOUT)
            connection.connect(address)
        except OSError:
            connection.close()
            raise
        return connection

    def _message(self, exported: Exported) -> SyslogMessage:
        entry = exported.entry
        data = {
            "origin": self._origin,
            "index": str(exported.index),
            "sha256": exported.leaf_sha256,
            "actor": entry.actor,
        }
        if isinstance(entry, NodeEntry):
            data["node"] = entry.node_id
        return SyslogMessage(
            severity=Severity.WARNING if exported.alarming else Severity.NOTICE,
            at=entry.at,
            hostname=self._name,
            app_name="catena",
            message_id=entry.kind,
            data_id=DATA_ID,
            data=data,
            text=entry.summary(),
        )


def _hung_up(connection: socket.socket) -> bool:
    """Whether a stream's other end has closed it: what is written then is lost without an error."""
    if connection.type != socket.SOCK_STREAM:
        return False
    connection.setblocking(False)  # with a timeout, even MSG_DONTWAIT would wait for it
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    finally:
        connection.settimeout(TIMEOUT)


class HttpSender:
    """Each entry's leaf, unchanged, as the body of its own POST."""

    batch = 1

    def __init__(self, url: str, origin: str, tls: ssl.SSLContext | None) -> None:
        self._url = url
        self._origin = origin
        self._http = http_client(tls)

    def send(self, entries: Sequence[Exported]) -> None:
        """Post the entries one after the other; any 2xx answer takes one."""
        for exported in entries:
            headers = {
                "content-type": LEAF_TYPE,
                "catena-log-origin": self._origin,
                "catena-log-index": str(exported.index),
            }
            post(self._http, self._url, exported.leaf, headers)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


class OtlpSender:
    """OTLP/HTTP with JSON; a batch of which anything was rejected is sent again."""

    batch = 64

    def __init__(self, url: str, origin: str, name: str, tls: ssl.SSLContext | None) -> None:
        self._url = url
        self._resource = {
            "service.name": "catena",
            "service.instance.id": name,
            "catena.log.origin": origin,
        }
        self._http = http_client(tls)

    def send(self, entries: Sequence[Exported]) -> None:
        """Post the entries as log records."""
        body = otlp.encode(self._resource, "catena.audit", [_record(one) for one in entries])
        answer = post(self._http, self._url, body, {"content-type": "application/json"})
        try:
            count, reason = otlp.rejected(answer)
        except FormatError as error:
            raise ExportRefused(f"the receiver's answer cannot be read: {error}") from error
        if count:
            raise ExportRefused(f"the receiver rejected {count} records: {reason[:160]!a}")

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


def _record(exported: Exported) -> LogRecord:
    entry = exported.entry
    attributes: dict[str, str | int] = {
        "catena.kind": entry.kind,
        "catena.index": exported.index,
        "catena.actor": entry.actor,
        "catena.leaf.sha256": exported.leaf_sha256,
        "catena.leaf": exported.leaf.decode(),
    }
    if isinstance(entry, NodeEntry):
        attributes["catena.node"] = entry.node_id
    severity = SeverityNumber.WARN if exported.alarming else SeverityNumber.INFO
    return LogRecord(entry.at, severity, entry.summary(), attributes)


class FileLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a file; ``envelope`` is the leaf as the log has it."""

    origin: str
    index: int
    envelope: str


class FileSender:
    """JSON lines at the end of a file, synchronised. It may be renamed away at any time."""

    batch = 256

    def __init__(self, path: Path, origin: str) -> None:
        self._path = path
        self._origin = origin

    def send(self, entries: Sequence[Exported]) -> None:
        """Append one line for each entry."""
        lines = b"".join(
            msgspec.json.encode(
                FileLine(origin=self._origin, index=one.index, envelope=one.leaf.decode())
            )
            + b"\n"
            for one in entries
        )
        try:
            self._append(lines)
        except OSError as error:
            raise ExportUnreachable(f"cannot write: {error.strerror}") from error

    def close(self) -> None:
        """Nothing is open between two batches."""

    def _append(self, lines: bytes) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        with open(descriptor, "r+b", buffering=0) as file:  # noqa: PTH123  a descriptor has no path
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ExportUnreachable("not a regular file")
            if status.st_size and os.pread(descriptor, 1, status.st_size - 1) != b"\n":
                lines = b"\n" + lines  # a crash cut the last line off: its entry comes again
            view = memoryview(lines)
            while view:
                view = view[file.write(view) :]
            os.fsync(descriptor)
