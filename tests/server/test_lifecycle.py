"""From start to stop: what the log says, what a supervisor is told, and what becomes of requests."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import ssl
from pathlib import Path

import httpx
import pytest

from catena.audit.verify import verify_folder
from catena.keys.hierarchy import KeyName
from catena.server.notify import tell, watchdog
from server.live import *  # noqa: F403 - fixtures
from server.live import SECONDS, Running, end, start

SCHEMAS = Path(__file__).parents[1] / "store/schemas"


def events(errors):
    return [one for one in map(json.loads, errors.splitlines()) if one["event"] != "request"]


def connect(running: Running) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(running.folder / "ca.crt"))
    raw = socket.create_connection(("127.0.0.1", running.port), timeout=SECONDS)
    return context.wrap_socket(raw, server_hostname="localhost")


BODY = b'{"roles": ["web"], "value": "cGFzc3dvcmQ="}'


def head(running: Running, path: str) -> bytes:
    return (
        f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {running.token}\r\n"
        f"Content-Length: {len(BODY)}\r\n\r\n"
    ).encode()


def answer(tls: ssl.SSLSocket) -> bytes:
    said = b""
    while b"\r\n\r\n" not in said:
        piece = tls.recv(4096)
        if not piece:
            break
        said += piece
    return said


@pytest.mark.parametrize("running", [{"drain_delay": 600, "grace": 30}], indirect=True)
def test_a_server_that_is_told_to_stop_is_not_ready_first_then_finishes_what_runs(running, keys):
    with running.http() as http, connect(running) as slow:
        assert http.get("/readyz").json() == {"status": "ready"}
        slow.sendall(head(running, "/v1/admin/secrets/one") + BODY[:10])
        running.process.send_signal(signal.SIGTERM)
        while (ready := http.get("/readyz")).status_code == 200:
            pass
        assert ready.json()["detail"] == "server: draining"
        assert http.get("/healthz").json() == {"status": "ok"}  # and requests are still taken
        running.process.send_signal(signal.SIGTERM)  # a second signal ends the delay
        while True:
            try:
                connect(running).close()
            except OSError:
                break
        slow.sendall(BODY[10:])
        assert answer(slow).startswith(b"HTTP/1.1 200")
    code, errors = end(running.process)
    assert code == 0
    assert "Traceback" not in errors
    life = events(errors)
    assert [one["event"] for one in life] == ["start", "ready", "drain", "stop"]
    assert life[2]["signal"] == "SIGTERM"
    assert (life[2]["delay"], life[2]["grace"]) == (600, 30)
    assert not (running.folder / "log/write-ahead").exists()  # the log was closed
    kinds = verify_folder(running.folder / "log", keys.public_key(KeyName.LOG)).kinds
    assert kinds["secret-put"] == 1 if "secret-put" in kinds else kinds


@pytest.mark.parametrize("running", [{"grace": 1}], indirect=True)
def test_a_request_that_does_not_finish_is_given_up_after_its_grace(running):
    with connect(running) as slow:
        slow.sendall(head(running, "/v1/admin/secrets/one") + BODY[:10])
        running.process.send_signal(signal.SIGTERM)
        code, errors = end(running.process)
    assert code == 0
    assert "Traceback" not in errors
    life = events(errors)
    assert life[-1]["event"] == "stop"
    faults = [one for one in life if one["event"] == "fault"]
    assert {one["code"] for one in faults} == {"uvicorn"}
    assert any("CancelledError" in one["detail"] for one in faults)


def test_a_server_that_is_killed_in_a_request_loses_nothing_that_it_answered(running, keys):
    with running.http() as http, connect(running) as slow:
        options = {"headers": {"authorization": f"Bearer {running.token}"}, "content": BODY}
        assert http.put("/v1/admin/secrets/kept", **options).status_code == 200
        slow.sendall(head(running, "/v1/admin/secrets/lost") + BODY[:10])
        running.process.kill()
        running.process.wait()
    again = start(running.folder)
    line = again.stdout.readline()
    try:
        after = Running(again, line.split()[4].rstrip(","), running.folder, running.token)
        with after.http() as http:
            found = http.get("/v1/admin/secrets", headers=options["headers"]).json()
            assert [one["name"] for one in found] == ["kept"]
            assert http.get("/readyz").status_code == 200
    finally:
        again.terminate()
        assert end(again)[0] == 0
    verify_folder(running.folder / "log", keys.public_key(KeyName.LOG))


def test_schema_steps_are_told_of(running):
    running.process.terminate()
    end(running.process)
    path = running.folder / "catena.db"
    with sqlite3.connect(path) as file:
        remembered = file.execute("SELECT origin, size, checkpoint FROM log_state").fetchall()
    file.close()
    path.unlink()
    with sqlite3.connect(path) as file:
        file.executescript((SCHEMAS / "4-sqlite.sql").read_text())
        file.execute("INSERT INTO schema_version VALUES (1, 4)")
        file.executemany("INSERT INTO log_state VALUES (?, ?, ?)", remembered)
    file.close()
    again = start(running.folder)
    again.stdout.readline()
    again.terminate()
    code, errors = end(again)
    assert code == 0
    first, second, *_ = events(errors)
    assert (first["event"], first["steps"][0]) == ("migration", 5)
    assert (second["event"], second["pid"]) == ("start", again.pid)
    assert second["log_size"] >= 1


def test_a_supervisor_is_told_when_it_is_ready_alive_and_stopping(running, tmp_path, monkeypatch):
    running.process.terminate()
    end(running.process)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "n"))
        supervisor.settimeout(SECONDS)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
        monkeypatch.setenv("WATCHDOG_USEC", "300000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        again = start(running.folder)
        try:
            assert supervisor.recv(100) == b"READY=1"
            line = again.stdout.readline()
            context = ssl.create_default_context(cafile=str(running.folder / "ca.crt"))
            url = line.split()[4].rstrip(",")
            assert httpx.get(f"{url}/healthz", verify=context, trust_env=False).status_code == 200
            assert supervisor.recv(100) == b"WATCHDOG=1"
            assert supervisor.recv(100) == b"WATCHDOG=1"
        finally:
            again.terminate()
        while (said := supervisor.recv(100)) == b"WATCHDOG=1":
            pass
        assert said == b"STOPPING=1"
        assert end(again)[0] == 0


def test_a_watchdog_may_be_another_process_s(monkeypatch):
    environment = {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}
    assert watchdog(environment, 2) is None
    assert watchdog(environment, 1) == 30.0
    assert watchdog({}, 1) is None
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    tell("READY=1")
