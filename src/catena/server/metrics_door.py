"""Where metrics are read: ``GET /metrics`` on an address of its own, in a thread of its own.

Plain HTTP without authentication, so it is closed unless ``metrics_listen`` names an address; what it
tells is how much, never who. One reader at a time, with a time limit: it cannot be used for load.
"""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from catena.server.access import FaultLine, Write, timestamp, write_line
from catena.server.metrics import Metrics

PATH = "/metrics"
TIMEOUT = 5
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class MetricsDoor:
    """Answers until it is closed."""

    def __init__(self, door: socket.socket, metrics: Metrics, write: Write) -> None:
        """Answer at a socket that listens, and is ours from now on."""
        self._server = _Server(door, _handler(metrics, write))
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(HTTPServer):
    """Over a socket that listens already."""

    def __init__(self, door: socket.socket, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(door.getsockname()[:2], handler, bind_and_activate=False)
        self.socket.close()
        self.socket = door
        self.server_address = door.getsockname()[:2]

    def handle_error(self, request: object, client_address: object) -> None:
        """A reader that goes away is no fault."""


def _handler(metrics: Metrics, write: Write) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = TIMEOUT
        server_version = "catena"
        sys_version = ""

        def do_GET(self) -> None:
            """The one thing there is."""
            if self.path != PATH:
                self._answer(404, b"there is only /metrics here\n")
                return
            try:
                self._answer(200, metrics.text())
            except Exception as error:  # noqa: BLE001 - a database that is gone must not end the door
                detail = f"metrics: {type(error).__name__}"
                write_line(write, FaultLine(at=timestamp(), code="metrics", detail=detail))
                self._answer(503, b"the metrics cannot be read now\n")

        def log_message(self, *_: object) -> None:
            """Readers are not logged: they come every few seconds."""

        def _answer(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", _TEXT)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler
