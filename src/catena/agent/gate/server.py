"""The gate's socket: who may ask, how many at a time, for how long.

One thread accepts, a fixed number answers. What would wait in a full queue is refused at once.
A caller is known by its socket's credentials (SO_PEERCRED, unix(7)): the kernel's word about
the process that connected.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from catena.agent.events import Emit
from catena.agent.gate.guard import Peer
from catena.containers.wrapper import protocol
from catena.errors import FormatError, Refusal, Unavailable

Answer = Callable[[bytes, Peer], bytes]
_UCRED = struct.Struct("3i")
_TALK_SECONDS = 5.0
"""How long a caller may take to ask, and to take the answer."""
_RETRY_SECONDS = 0.5
_BACKLOG = 4096
"""Connections that the kernel keeps until they are accepted, which is at once: a full queue is
to be told, and not to look like a gate that is gone."""


class GateBusy(Unavailable):
    """More questions than the gate takes."""

    code = "gate-busy"
    remedy = "Start it again in a moment; `queue` in gate.toml is how many may wait."


class NotAllowedToAsk(Refusal):
    """A user who must not start containers."""

    code = "gate-peer-refused"
    remedy = "Ask as root, or add the user to `uids` in gate.toml."


class GateRunning(Unavailable):
    """Another gate holds the socket."""

    code = "gate-running"
    remedy = "There is one gate on a node: `systemctl status catena-gate`."


class SocketUnusable(Unavailable):
    """The socket cannot be made."""

    code = "gate-socket-unusable"
    remedy = "The socket's folder must exist, or be creatable, and belong to root."


@contextmanager
def sole(path: Path) -> Iterator[None]:
    """Being the one gate behind ``path``. Raises ``GateRunning`` or ``SocketUnusable``."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SocketUnusable(f"cannot use {path.parent}", got=error.strerror) from error
    try:
        _lock(lock, path)
        yield
    finally:
        os.close(lock)


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise GateRunning(f"another gate serves {path}") from error


@dataclass(slots=True)
class Server:
    """Serves until ``stop``, for whoever is ``sole``. ``answer`` is called in up to ``workers`` threads."""

    path: Path
    uids: frozenset[int]
    workers: int
    queue_size: int
    answer: Answer
    emit: Emit
    _socket: socket.socket | None = None
    _waiting: queue.Queue[socket.socket | None] = field(init=False)
    _threads: list[threading.Thread] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._waiting = queue.Queue(self.queue_size)

    def listen(self) -> None:
        """Open the socket and begin to answer. Raises ``SocketUnusable``."""
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self.path.unlink(missing_ok=True)  # the lock says that nobody listens there
            mask = os.umask(0o177)
            try:
                channel.bind(os.fspath(self.path))
            finally:
                os.umask(mask)
            channel.listen(_BACKLOG)
        except OSError as error:
            channel.close()
            raise SocketUnusable(f"cannot listen on {self.path}", got=error.strerror) from error
        self._socket = channel
        self._start(self._accept, "accept")
        for number in range(self.workers):
            self._start(self._work, f"answer-{number}")

    def stop(self) -> None:
        """Accept nothing more, finish what was accepted, and leave the place."""
        self._stopped.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            for thread in self._threads[:1]:
                thread.join()
            self._socket.close()
            self.path.unlink(missing_ok=True)
            for _ in self._threads[1:]:
                self._waiting.put(None)
            for thread in self._threads[1:]:
                thread.join()

    def _start(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        assert self._socket is not None  # noqa: S101 - for the type checker
        while not self._stopped.is_set():
            try:
                channel, _ = self._socket.accept()
            except OSError:
                if not self._stopped.is_set():
                    self._stopped.wait(
                        _RETRY_SECONDS
                    )  # out of descriptors: others will give some back
                continue
            try:
                self._waiting.put_nowait(channel)
            except queue.Full:
                self._turn_away(channel)

    def _turn_away(self, channel: socket.socket) -> None:
        error = GateBusy("too many questions wait", expected=f"at most {self.queue_size}")
        self.emit("denied", code=error.code, message=str(error))
        with channel, contextlib.suppress(OSError):
            channel.setblocking(False)
            channel.sendall(protocol.frame(protocol.deny(error)))

    def _work(self) -> None:
        while (channel := self._waiting.get()) is not None:
            with channel, contextlib.suppress(OSError):  # who went away needs no answer
                channel.settimeout(_TALK_SECONDS)
                channel.sendall(protocol.frame(self._converse(channel)))

    def _converse(self, channel: socket.socket) -> bytes:
        pid, uid, _ = _UCRED.unpack(
            channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        )
        if uid not in self.uids:
            error = NotAllowedToAsk("this user may not ask", got=f"uid {uid}")
            self.emit("denied", code=error.code, message=str(error))
            return protocol.deny(error)
        pidfd = os.pidfd_open(pid)
        try:
            return self.answer(_request(channel), Peer(pid, pidfd))
        except FormatError as error:
            return protocol.deny(error)
        finally:
            os.close(pidfd)


def _request(channel: socket.socket) -> bytes:
    size = int.from_bytes(_exactly(channel, protocol.LENGTH), "big")
    if size > protocol.MAX_FRAME:
        raise protocol.BadRequest("request is too long", expected=f"at most {protocol.MAX_FRAME}")
    return _exactly(channel, size)


def _exactly(channel: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        more = channel.recv(min(size - len(parts), 65536))
        if not more:
            raise OSError("the caller went away")
        parts += more
    return bytes(parts)
