from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from stand_in import DAY, ClusterCa, https_server

from catena.agent import client as client_module
from catena.agent.client import (
    LogsMissing,
    RequestRefused,
    ServerFailing,
    ServerUnreachable,
    TrustClient,
    UnknownNode,
    UntrustedServer,
    WrongTime,
)
from catena.errors import CatenaError, ExitCode, FormatError, Unavailable
from catena.formats.nodeapi import ErrorBody, NonceResponse

NODE = "ab" * 32
NONCE = msgspec.json.encode(NonceResponse(nonce=b"nonce", expires_in=60))


@contextmanager
def answering(
    ca: ClusterCa,
    folder: Path,
    status: int = 200,
    content: bytes = NONCE,
    *,
    address: str = "127.0.0.1",
    age: timedelta = DAY,
    lifetime: timedelta = 2 * DAY,
) -> Iterator[str]:
    context = ca.server_context(
        folder, address=address, not_before=datetime.now(UTC) - age, lifetime=lifetime
    )
    with https_server(context, lambda *_: (status, content)) as url:
        yield url


def ask(url: str, ca_file: Path) -> bytes:
    with TrustClient(url, ca_file, timeout=5) as client:
        return client.nonce(NODE)


def refusal(url: str, ca_file: Path) -> CatenaError:
    with pytest.raises(CatenaError) as caught:
        ask(url, ca_file)
    return caught.value


def error_body(code: str, detail: str = "no", **fields: object) -> bytes:
    problem = ErrorBody.of(403, code, detail)
    return msgspec.json.encode(msgspec.structs.replace(problem, **fields))


def test_server_of_the_cluster_ca_is_believed(cluster_ca, ca_file, tmp_path):
    with answering(cluster_ca, tmp_path) as url:
        assert ask(url, ca_file) == b"nonce"


def test_several_requests_share_one_connection_and_survive_its_loss(cluster_ca, ca_file, tmp_path):
    with (
        answering(cluster_ca, tmp_path) as url,
        TrustClient(url, ca_file, timeout=5) as client,
    ):
        client.nonce(NODE)
        first = client._connection.sock
        client.nonce(NODE)
        assert client._connection.sock is first
        client._connection.close()
        assert client.nonce(NODE) == b"nonce"


def test_server_of_another_ca_is_refused(ca_file, tmp_path):
    impostor = ClusterCa(datetime.now(UTC) - DAY)
    with answering(impostor, tmp_path) as url:
        assert isinstance(refusal(url, ca_file), UntrustedServer)


def test_server_under_another_name_is_refused(cluster_ca, ca_file, tmp_path):
    with answering(cluster_ca, tmp_path, address="127.0.0.2") as url:
        assert isinstance(refusal(url, ca_file), UntrustedServer)


@pytest.mark.parametrize(("age", "lifetime"), [(3 * DAY, DAY), (-DAY, DAY)])
def test_certificate_outside_its_time_is_a_matter_of_clocks(
    cluster_ca, ca_file, tmp_path, age, lifetime
):
    with answering(cluster_ca, tmp_path, age=age, lifetime=lifetime) as url:
        assert isinstance(refusal(url, ca_file), WrongTime)


def test_tls_before_1_3_is_refused(cluster_ca, ca_file, tmp_path):
    context = cluster_ca.server_context(
        tmp_path, not_before=datetime.now(UTC) - DAY, lifetime=2 * DAY
    )
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with https_server(context, lambda *_: (200, NONCE)) as url:
        assert isinstance(refusal(url, ca_file), ServerUnreachable)


def test_nobody_listening_is_unreachable(ca_file):
    assert isinstance(refusal("https://127.0.0.1:1", ca_file), ServerUnreachable)


def test_server_that_hangs_up_is_unreachable(ca_file):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        error = refusal(f"https://127.0.0.1:{listener.getsockname()[1]}", ca_file)
        thread.join()
    assert isinstance(error, ServerUnreachable)


def test_server_that_does_not_answer_is_unreachable(ca_file):
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        TrustClient(
            f"https://127.0.0.1:{listener.getsockname()[1]}", ca_file, timeout=0.1
        ) as client,
        pytest.raises(ServerUnreachable),
    ):
        client.nonce(NODE)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((404, "unknown-node"), UnknownNode),
        ((409, "logs-missing"), LogsMissing),
        ((403, "stale-nonce"), RequestRefused),
        ((400, "malformed"), RequestRefused),
        ((413, "body-too-large"), RequestRefused),
        ((429, "busy"), ServerFailing),
        ((500, "internal"), ServerFailing),
        ((503, "log-unwritable"), ServerFailing),
        ((503, "unknown-node"), ServerFailing),
    ],
)
def test_answer_becomes_its_error(cluster_ca, ca_file, tmp_path, answer, kind):
    status, code = answer
    with answering(cluster_ca, tmp_path, status, error_body(code)) as url:
        assert type(refusal(url, ca_file)) is kind


def test_refusal_keeps_status_and_code_of_the_server(cluster_ca, ca_file, tmp_path):
    with answering(cluster_ca, tmp_path, 403, error_body("stale-nonce")) as url:
        error = refusal(url, ca_file)
    assert isinstance(error, RequestRefused)
    assert (error.status, error.server_code) == (403, "stale-nonce")
    assert error.exit_code is ExitCode.UNTRUSTED


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7), ("0", 0), ("-1", 0), ("x", 0), ("9" * 20, 0), ("\u0663", 0)]
)
def test_a_server_that_says_when_to_come_again_is_heard(
    cluster_ca, ca_file, tmp_path, header, seconds
):
    context = cluster_ca.server_context(
        tmp_path, not_before=datetime.now(UTC) - DAY, lifetime=2 * DAY
    )
    headers = {"Retry-After": header.encode().decode("latin-1")}
    body = error_body("rate-limited")
    with https_server(context, lambda *_: (429, body), headers) as url:
        error = refusal(url, ca_file)
    assert isinstance(error, ServerFailing)
    assert error.retry_after == seconds


def test_missing_logs_are_named(cluster_ca, ca_file, tmp_path):
    body = error_body("logs-missing", missing_logs=("12" * 32,))
    with answering(cluster_ca, tmp_path, 409, body) as url:
        error = refusal(url, ca_file)
    assert isinstance(error, LogsMissing)
    assert error.digests == ("12" * 32,)


def test_error_without_a_body_is_still_an_error(cluster_ca, ca_file, tmp_path):
    with answering(cluster_ca, tmp_path, 403, b"<html>") as url:
        assert isinstance(refusal(url, ca_file), RequestRefused)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"nonce": "!"}', b"\xff" * 9])
def test_answer_that_is_no_answer_is_malformed(cluster_ca, ca_file, tmp_path, content):
    with answering(cluster_ca, tmp_path, 200, content) as url:
        assert isinstance(refusal(url, ca_file), FormatError)


def test_redirect_is_not_followed(cluster_ca, ca_file, tmp_path):
    with answering(cluster_ca, tmp_path, 302, b"") as url:
        assert isinstance(refusal(url, ca_file), FormatError)


def test_endless_answer_is_cut_off(cluster_ca, ca_file, tmp_path, monkeypatch):
    monkeypatch.setattr(client_module, "MAX_RESPONSE", 100)
    with answering(cluster_ca, tmp_path, 200, b" " * 101) as url:
        assert isinstance(refusal(url, ca_file), FormatError)


def test_what_the_server_says_cannot_forge_lines_or_colours(cluster_ca, ca_file, tmp_path):
    body = error_body("x\n\x1b[31m", "line\nfake: \x1b[0m" + "a" * 5000)
    with answering(cluster_ca, tmp_path, 403, body) as url:
        text = str(refusal(url, ca_file))
    assert text.isprintable()
    assert len(text) < 1000


def test_missing_or_broken_ca_file_says_so(tmp_path):
    with pytest.raises(Unavailable, match="cluster CA"):
        TrustClient("https://127.0.0.1:1", tmp_path / "absent.crt")
    broken = tmp_path / "broken.crt"
    broken.write_text("not a certificate")
    with pytest.raises(Unavailable, match="cluster CA"):
        TrustClient("https://127.0.0.1:1", broken)
