from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading

import pytest

from catena.agent.gate.guard import Peer
from catena.agent.gate.server import GateRunning, Server, SocketUnusable, sole
from catena.containers.wrapper import protocol


class Asked:
    """An answer that can be made to wait."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.go = threading.Event()
        self.go.set()
        self.busy = threading.Semaphore(0)

    def __call__(self, data: bytes, peer: Peer) -> bytes:
        self.peers.append(peer)
        self.busy.release()
        assert self.go.wait(20)
        return b"echo:" + data


@pytest.fixture
def answer():
    return Asked()


@pytest.fixture
def told():
    return []


@pytest.fixture
def serve(room, answer, told):
    servers = []

    def start(**changes):
        settings = {"uids": frozenset({os.getuid()}), "workers": 1, "queue_size": 1} | changes
        server = Server(
            path=room / "run/gate.sock",
            answer=answer,
            emit=lambda event, **fields: told.append((event, fields)),
            **settings,
        )
        server.path.parent.mkdir(exist_ok=True)
        server.listen()
        servers.append(server)
        return server

    yield start
    answer.go.set()
    for server in servers:
        server.stop()


def connected(server):
    channel = socket.socket(socket.AF_UNIX)
    channel.settimeout(20)
    channel.connect(str(server.path))
    return channel


def answered(channel) -> bytes:
    size = int.from_bytes(channel.recv(4, socket.MSG_WAITALL), "big")
    return channel.recv(size, socket.MSG_WAITALL)


def test_caller_is_who_the_kernel_says(serve, answer):
    with connected(serve()) as channel:
        channel.sendall(protocol.frame(b"hello"))
        assert answered(channel) == b"echo:hello"
    assert answer.peers[0].pid == os.getpid()


def test_user_who_is_not_listed_gets_no_answer(serve, answer, told):
    with connected(serve(uids=frozenset({12345}))) as channel:
        with contextlib.suppress(BrokenPipeError):  # the answer may be there before the question
            channel.sendall(protocol.frame(b"hello"))
        assert answered(channel).startswith(b"deny\0gate-peer-refused\0")
    assert not answer.peers
    assert told[0][1]["code"] == "gate-peer-refused"


def test_more_questions_than_the_queue_takes_are_refused_at_once(serve, answer):
    server = serve()
    answer.go.clear()
    first = connected(server)
    first.sendall(protocol.frame(b"1"))
    assert answer.busy.acquire(timeout=20)
    second = connected(server)
    second.sendall(protocol.frame(b"2"))
    late = [connected(server) for _ in range(3)]
    refused = _answered_first(late, 2)  # one may have been accepted before the second
    assert answered(refused[0]).startswith(b"deny\0gate-busy\0")
    answer.go.set()
    assert answered(first) == b"echo:1"
    for channel in (first, second, *late):
        channel.close()


def _answered_first(channels, number):
    """The channels with an answer, once there are so many."""
    with selectors.DefaultSelector() as waiting:
        for channel in channels:
            waiting.register(channel, selectors.EVENT_READ)
        found = []
        while len(found) < number:
            ready = [key.fileobj for key, _ in waiting.select(timeout=20)]
            assert ready, "the gate refuses nobody"
            for channel in ready:
                waiting.unregister(channel)
            found += ready
    return found


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0", b"\0\0\0\5abc"])
def test_caller_that_goes_away_is_forgotten(serve, answer, data):
    server = serve(queue_size=8)
    with connected(server) as channel:
        channel.sendall(data)
    with connected(server) as channel:
        channel.sendall(protocol.frame(b"next"))
        assert answered(channel) == b"echo:next"


def test_question_that_is_too_long_is_refused_before_it_is_read(serve, answer):
    with connected(serve()) as channel:
        channel.sendall((protocol.MAX_FRAME + 1).to_bytes(4, "big"))
        assert answered(channel).startswith(b"deny\0gate-request-malformed\0")


def test_there_is_one_gate(room):
    path = room / "run/gate.sock"
    with sole(path):
        with pytest.raises(GateRunning) as refused, sole(path):
            pass
        assert refused.value.code == "gate-running"
    with sole(path):
        pass


def test_socket_that_a_dead_gate_left_is_replaced(serve, room):
    (room / "run").mkdir()
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(room / "run/gate.sock"))
    left.close()
    connected(serve()).close()


def test_socket_is_root_s_alone(serve):
    assert serve().path.stat().st_mode & 0o777 == 0o600


def test_folder_that_cannot_be_is_told(room):
    (room / "run").write_text("a file")
    with pytest.raises(SocketUnusable), sole(room / "run/gate.sock"):
        pass


def test_question_that_was_accepted_is_answered_before_the_end(serve, answer):
    server = serve()
    answer.go.clear()
    channel = connected(server)
    channel.sendall(protocol.frame(b"1"))
    assert answer.busy.acquire(timeout=20)
    ending = threading.Thread(target=server.stop)
    ending.start()
    answer.go.set()
    assert answered(channel) == b"echo:1"
    ending.join(20)
    assert not ending.is_alive()
    assert not server.path.exists()
    channel.close()
