from __future__ import annotations

import inspect
import json
import re
import socket
from datetime import UTC, datetime
from io import StringIO

from catena.agent import daemon, events
from catena.agent.events import json_lines, notify

AT = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)


def test_event_is_one_line_of_json_whatever_it_says():
    output = StringIO()
    emit = json_lines(output, lambda: AT)
    emit("failed", message="line\nfake: \x1b[0m")
    emit("stopped")
    first, second = output.getvalue().splitlines()
    assert json.loads(first) == {
        "event": "failed",
        "at": "2031-02-03T04:05:06Z",
        "message": "line\nfake: \x1b[0m",
    }
    assert "\x1b" not in first
    assert json.loads(second)["event"] == "stopped"


def test_systemd_is_told_through_its_socket(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify("READY=1")
        assert systemd.recv(100) == b"READY=1"


def test_abstract_socket_works_too(monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0catena-notify-test")
        monkeypatch.setenv("NOTIFY_SOCKET", "@catena-notify-test")
        notify("READY=1")
        assert systemd.recv(100) == b"READY=1"


def test_without_systemd_nothing_happens(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")


def test_every_event_is_documented():
    documented = set(re.findall(r"^``([\w-]+)``", events.__doc__, re.MULTILINE))
    source = inspect.getsource(daemon)
    assert set(re.findall(r"self\.emit\(\s*\"([\w-]+)\"", source)) == documented
