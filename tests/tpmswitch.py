"""One software TPM for several programs at once, as ``/dev/tpmrm0`` is: whole commands take turns.

A swtpm serves one connection. Objects and sessions are not swapped, as the kernel would do it; the
TPM has room for the few that two gates and an agent hold.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer

from catena.lab.swtpm import free_port_pair
from swtpm import SoftwareTpm

HEAD = 6
"""Tag and size, of commands and responses alike (TPM 2.0 Part 1, 18)."""


def whole(connection: socket.socket) -> bytes:
    """One command or response; empty at the end."""
    data = b""
    while len(data) < HEAD or len(data) < int.from_bytes(data[2:HEAD], "big"):
        wanted = HEAD if len(data) < HEAD else int.from_bytes(data[2:HEAD], "big")
        part = connection.recv(wanted - len(data))
        if not part:
            return b""
        data += part
    return data


class Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@contextmanager
def switch(tpm: SoftwareTpm) -> Iterator[str]:
    """The TCTI for everybody, as long as the ``with`` lasts."""
    turn, port = threading.Lock(), free_port_pair()
    with socket.create_connection(("127.0.0.1", tpm.port)) as commands:

        class Commands(BaseRequestHandler):
            def handle(self) -> None:
                with suppress(ConnectionError):
                    while request := whole(self.request):
                        with turn:
                            commands.sendall(request)
                            response = whole(commands)
                        self.request.sendall(response)

        class Control(BaseRequestHandler):
            def handle(self) -> None:
                with turn, socket.create_connection(("127.0.0.1", tpm.port + 1)) as control:
                    while request := self.request.recv(4096):
                        control.sendall(request)
                        self.request.sendall(control.recv(4096))

        servers = [
            Server(("127.0.0.1", port + n), one) for n, one in enumerate((Commands, Control))
        ]
        threads = [threading.Thread(target=one.serve_forever, args=(0.05,)) for one in servers]
        for thread in threads:
            thread.start()
        try:
            yield f"swtpm:port={port}"
        finally:
            for server, thread in zip(servers, threads, strict=True):
                server.shutdown()
                thread.join()
                server.server_close()
