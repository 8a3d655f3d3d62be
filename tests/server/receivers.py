"""Real receivers for exports: a syslog reader written from RFC 5424 and 6587, and an HTTP server."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

_HEAD = re.compile(
    r"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z) ([!-~]{1,255}) ([!-~]{1,48}) "
    r"([!-~]{1,128}) ([!-~]{1,32}) "
)
_PARAM = re.compile(r' ([!#-<>-\\^-~]{1,32})="((?:[^"\\\]]|\\.)*)"', re.DOTALL)


@dataclass
class Parsed:
    priority: int
    hostname: str
    app: str
    message_id: str
    data_id: str
    data: dict[str, str]
    text: str


def parse_syslog(raw: bytes) -> Parsed:
    """Section 6: fails on anything that the grammar does not have."""
    line = raw.decode()
    head = _HEAD.match(line)
    assert head, line
    rest = line[head.end() :]
    name = re.match(r"\[([!#-<>-\\^-~]{1,32})", rest)
    assert name, rest
    at, data = name.end(), {}
    while rest[at] == " ":
        param = _PARAM.match(rest, at)
        assert param, rest[at:]
        data[param[1]] = re.sub(r'\\(["\\\]])', r"\1", param[2])
        at = param.end()
    assert rest[at : at + 3] == "] \ufeff", rest[at:]
    priority, _, hostname, app, _, message_id = head.groups()
    return Parsed(int(priority), hostname, app, message_id, name[1], data, rest[at + 3 :])


class SyslogListener:
    """A socket that takes messages; ``close`` is the receiver going away."""

    def __init__(self, listening: socket.socket) -> None:
        self._socket = listening
        self.raw: list[bytes] = []
        self._connections: list[socket.socket] = []
        target = self._accept if listening.type == socket.SOCK_STREAM else self._take
        self._thread = threading.Thread(target=target, daemon=True)
        self._thread.start()

    @property
    def messages(self) -> list[Parsed]:
        return [parse_syslog(one) for one in list(self.raw)]

    @property
    def indices(self) -> list[int]:
        return [int(one.data["index"]) for one in self.messages]

    def close(self) -> None:
        for one in (*self._connections, self._socket):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._thread.join(5)

    def _take(self) -> None:
        while True:
            try:
                message = self._socket.recv(65_536)
            except OSError:
                return
            if not message:
                return
            self.raw.append(message)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._read(connection)

    def _read(self, connection: socket.socket) -> None:
        try:
            with connection.makefile("rb") as stream:
                while length := self._length(stream):
                    self.raw.append(stream.read(length))
        except OSError:
            return

    @staticmethod
    def _length(stream) -> int:
        digits = b""
        while (char := stream.read(1)) not in (b" ", b""):
            assert char.isdigit()
            digits += char
        return int(digits or b"0")


@dataclass
class HttpReceiver:
    """Takes POSTs; ``status`` and ``answer`` are what it says."""

    port: int = 0
    status: int = 200
    answer: bytes = b"{}"
    posts: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    seen: int = 0
    hold: threading.Event | None = None

    def __enter__(self) -> Self:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.seen += 1
                status = receiver.status
                if status == 200:
                    headers = {key.lower(): value for key, value in self.headers.items()}
                    receiver.posts.append((headers, body))
                if receiver.hold is not None:
                    receiver.hold.wait(20)
                try:
                    self.send_response(status)
                    self.send_header("content-length", str(len(receiver.answer)))
                    self.end_headers()
                    self.wfile.write(receiver.answer)
                except OSError:
                    pass  # the sender was killed while it waited

            def log_message(self, *_) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/logs"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        if self.hold is not None:
            self.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
