"""``catena server run`` as a process, spoken to over TLS."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import threading
import time
from pathlib import Path

import httpx
import msgspec
import pytest

from catena.cli.main import run
from catena.keys.signer import load_signer, public_pem
from catena.server.config import load
from catena.server.run import AddressInUse, AddressUnusable, listen
from server.live import *  # noqa: F403 - fixtures
from server.live import SECONDS, end, start
from service.fixtures import make_server
from swtpm import needs_swtpm


def test_it_answers_over_tls_and_ends_cleanly_on_sigterm(running):
    with running.http() as http:
        assert http.get("/healthz").json() == {"status": "ok"}
        headers = {"authorization": f"Bearer {running.token}"}
        assert http.get("/v1/admin/nodes", headers=headers).json() == []
    running.process.send_signal(signal.SIGTERM)
    code, errors = end(running.process)
    assert code == 0
    assert "Traceback" not in errors
    lines = [msgspec.json.decode(line) for line in errors.splitlines()]
    answered = [one["status"] for one in lines if one["event"] == "request"]
    assert answered == [200, 200]
    life = [one["event"] for one in lines if one["event"] != "request"]
    assert life == ["start", "ready", "drain", "stop"]


def test_nobody_else_than_the_cluster_ca_is_trusted_and_tls_is_13(running):
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{running.url}/healthz", trust_env=False)
    context = ssl.create_default_context(cafile=str(running.folder / "ca.crt"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{running.url}/healthz", verify=context, trust_env=False)


@pytest.mark.parametrize("running", [{"idle_timeout": 1}], indirect=True)
def test_a_connection_that_says_nothing_or_trickles_is_closed(running):
    context = ssl.create_default_context(cafile=str(running.folder / "ca.crt"))
    for said in (b"", b"POST /v1/attest HTTP/1.1\r\nHost: x\r\nX-A: "):
        with (
            socket.create_connection(("127.0.0.1", running.port), timeout=SECONDS) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as tls,
        ):
            tls.sendall(said)
            started = time.monotonic()
            with contextlib.suppress(ConnectionResetError, ssl.SSLError):
                assert tls.recv(100) == b""
            assert time.monotonic() - started < 5


def trickle(tls: ssl.SSLSocket) -> None:
    tls.sendall(b"GET /healthz HTTP/1.1\r\n")
    for _ in range(100):
        tls.sendall(b"X-A: " + b"a" * 16_000 + b"\r\n")
        time.sleep(0.01)


def test_a_head_without_end_is_cut_off(running):
    context = ssl.create_default_context(cafile=str(running.folder / "ca.crt"))
    with (
        socket.create_connection(("127.0.0.1", running.port), timeout=SECONDS) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
        pytest.raises(OSError, match=r"(?i)reset|broken|eof|closed|protocol"),
    ):
        trickle(tls)
    with running.http() as http:
        assert http.get("/healthz").status_code == 200


def test_a_head_that_comes_at_once_has_the_same_limit(running):
    context = ssl.create_default_context(cafile=str(running.folder / "ca.crt"))
    for head in (b"X-A: " + b"a" * 70_000 + b"\r\n", b"X: y\r\n" * 3000, b""):
        with (
            socket.create_connection(("127.0.0.1", running.port), timeout=SECONDS) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as tls,
        ):
            with contextlib.suppress(OSError):
                tls.sendall(b"GET /healthz HTTP/1.1\r\n" + head + b"\r\n")
            answer = b""
            with contextlib.suppress(OSError):
                answer = tls.recv(100)
            assert answer.startswith(b"HTTP/1.1 200") == (head == b""), answer


def ask_on(tls: ssl.SSLSocket, request: bytes) -> None:
    for _ in range(SECONDS * 100):
        tls.sendall(request * 10)
        time.sleep(0.01)


@pytest.mark.parametrize("running", [{"idle_timeout": 1}], indirect=True)
def test_a_client_that_does_not_read_its_answers_is_cut_off(running):
    """Answers of several megabytes are asked for and left where they are."""
    context = ssl.create_default_context(cafile=str(running.folder / "ca.crt"))
    ask = b"GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"  # the largest that needs no token
    # A pipe that nobody reads would fill with the lines of so many requests.
    reader = threading.Thread(target=running.process.stderr.read)
    reader.start()
    raw = socket.create_connection(("127.0.0.1", running.port), timeout=SECONDS)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with (
        raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
        pytest.raises(OSError, match=r"(?i)reset|broken|eof|closed|protocol"),
    ):
        ask_on(tls, ask)
    with running.http() as http:
        assert http.get("/healthz").status_code == 200
    running.process.kill()
    reader.join()


@pytest.mark.parametrize("running", [{"mode": "open"}], indirect=True)
def test_open_mode_warns_loudly(running):
    running.process.send_signal(signal.SIGINT)
    code, errors = end(running.process)
    assert code == 0
    assert "WARNING: mode `open`" in errors


def test_a_port_in_use_is_a_clear_error(running, tmp_path, keys):
    second = make_server(tmp_path / "second", keys)
    second.opened.close()
    code, errors = end(start(second.folder, "--listen", f"127.0.0.1:{running.port}"))
    assert code == 1
    assert "address-in-use" in errors
    assert "Traceback" not in errors


def test_the_same_folder_cannot_be_run_twice(running):
    code, errors = end(start(running.folder))
    assert code == 1
    assert "log-in-use" in errors


def test_addresses_of_other_machines_are_refused():
    with pytest.raises(AddressUnusable):
        listen("192.0.2.1:0")
    with listen("127.0.0.1:0") as door, pytest.raises(AddressInUse):
        listen(f"127.0.0.1:{door.getsockname()[1]}")


def test_an_idle_server_is_small(running):
    with running.http() as http:
        http.get("/healthz")
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    kilobytes = int(next(line for line in status.splitlines() if "VmRSS" in line).split()[1])
    assert kilobytes < 120 * 1024


@needs_swtpm
@pytest.mark.tpm
def test_a_real_machine_attests_over_real_tls(tmp_path, keys, booted_tpm, machine):
    roots = tuple(f"software={path}" for path in booted_tpm.root_ca_pem_paths)
    server = make_server(tmp_path / "server", keys, roots)
    server.opened.close()
    process = start(server.folder)
    url = process.stdout.readline().split()[4].rstrip(",")
    context = ssl.create_default_context(cafile=str(server.folder / "ca.crt"))
    try:
        with httpx.Client(base_url=url, verify=context, trust_env=False) as http:

            def call(path, body, kind):
                response = http.post(path, content=msgspec.json.encode(body))
                return msgspec.json.decode(response.content, type=kind)

            assert machine.enrol(call).state == "pending"
            assert machine.attest(call).reasons[-1].code == "awaiting-approval"
    finally:
        process.terminate()
        assert end(process)[0] == 0
    assert os.path.lexists(server.folder / "log/checkpoint")


def test_the_log_is_read_over_https_with_a_token(running, tmp_path, capsys):
    key = tmp_path / "log.pub"
    signer = load_signer(running.folder / load(running.folder).log_key)
    key.write_bytes(public_pem(signer.public_key))
    (_, url, *others) = running.options
    words = ["audit", "verify", f"{url}/log", "--key", str(key), *others]
    assert run(words) == 0
    assert "verified" in capsys.readouterr().out
    assert run(words[:-2]) == 1
    assert "HTTP 401" in capsys.readouterr().err
