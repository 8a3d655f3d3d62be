"""A server and its witnesses: cosignatures collected, a fork caught, and what goes wrong."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import shutil
import ssl
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from catena.audit import checkpoint as checkpoints
from catena.audit import cosigned, growth
from catena.audit.cosigned import WitnessAddress
from catena.audit.folder import LogFolder
from catena.audit.log import TransparencyLog
from catena.audit.verify import verify_folder
from catena.cli.main import run
from catena.formats import addcheckpoint, note
from catena.formats.addcheckpoint import SIZE_TYPE
from catena.formats.note import Note
from catena.keys.authority import issue_server_certificate
from catena.keys.hierarchy import KeyName
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key, write_key
from catena.server import cosigning, witness_folder
from catena.server.config import BadConfig
from catena.server.cosigning import COSIGNED, Collector, NotCosigned
from catena.server.witness_client import (
    Asked,
    WitnessAhead,
    WitnessAnswerUnusable,
    WitnessClient,
    WitnessDeclines,
    WitnessSawAnother,
    WitnessUnreachable,
)
from catena.service.views import CosigningReport
from server.live import *  # noqa: F403 - fixtures
from server.live import lifetime
from server.witnesses import SECONDS, RunningWitness, running_witness
from service.fixtures import listed, make_server

sys.path.insert(0, str(Path(__file__).parents[1] / "audit"))
from witness_samples import PaperLog

ORIGIN = "log.example.org/fleet"


@pytest.fixture(scope="module")
def signer():
    return PrivateKeySigner(generate_key(KeyAlgorithm.ED25519))


@pytest.fixture
def log_key(signer):
    return checkpoints.verifier_key(ORIGIN, signer.public_key).encode()


def entries(count: int, salt: str = "") -> list[bytes]:
    return [f"{salt}{number}".encode() for number in range(count)]


def now() -> int:
    return int(time.time())


@pytest.fixture
def collector_of():
    made: list[Collector] = []

    def make(log: TransparencyLog, home: Path, witnesses, quorum: int, lines=None) -> Collector:
        home.mkdir(exist_ok=True)
        addresses = [WitnessAddress(one.url, cosigned.parse_witness(one.key)) for one in witnesses]
        made.append(
            Collector(
                LogFolder(log.reader.path),
                log._signer.public_key,
                addresses,
                quorum,
                home,
                now=now,
                write=(lines if lines is not None else []).append,
            )
        )
        return made[-1]

    yield make
    for collector in made:
        collector.stop()


# Forks -------------------------------------------------------------------------------------


def test_a_fork_shown_to_two_parties_is_caught_by_their_witness(
    tmp_path, signer, log_key, collector_of
):
    """Two folders with one key and a common past, each shown to somebody else: each verifies."""
    first = TransparencyLog.create(tmp_path / "first", ORIGIN, signer)
    first.append(entries(300))
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    second = TransparencyLog.open(tmp_path / "second", signer)
    with running_witness(tmp_path / "witness", log_key) as witness:
        lines: list[str] = []
        honest = collector_of(first, tmp_path / "a", [witness], 1, lines)
        forked = collector_of(second, tmp_path / "b", [witness], 1, lines)
        assert honest.round()
        assert forked.round()  # the common past: nothing is wrong yet
        first.append(entries(20, "shown to A: "))
        second.append(entries(30, "shown to B: "))
        for folder in ("first", "second"):  # nobody who sees one of them can tell
            reader = LogFolder(tmp_path / folder)
            head = checkpoints.verify(reader.read_checkpoint(), signer.public_key)
            growth.require_contained(reader, head, head.size)
        assert honest.round()
        assert not forked.round()
        (report,) = forked.status().witnesses
        assert report.code == "witness-saw-another-log"
        assert forked.status().cosigned_size == 300 < forked.status().log_size == 330
        assert any("witness-saw-another-log" in line for line in lines)
        first.append(entries(10, "shown to A, too: "))  # one size, two roots: proof in itself
        assert honest.round()
        assert not forked.round()
        assert len(list((tmp_path / "witness/state/forks").iterdir())) == 2
        code, errors = witness.end()
        assert code == 0
        assert {json.loads(line).get("code") for line in errors.splitlines()} >= {
            "growth-unproven",
            "fork-shown",
        }
    first.close()
    second.close()


def test_a_reader_who_demands_a_quorum_does_not_take_the_fork(
    tmp_path, signer, log_key, collector_of
):
    log = TransparencyLog.create(tmp_path / "log", ORIGIN, signer)
    log.append(entries(10))
    shutil.copytree(tmp_path / "log", tmp_path / "fork")
    with running_witness(tmp_path / "w", log_key) as witness:
        collector = collector_of(log, tmp_path / "home", [witness], 1)
        log.append(entries(5))
        assert collector.round()
        demanded = cosigned.policy([witness.key], 1)
        content = collector.content()
        found = cosigned.verify_cosigned(content, signer.public_key, demanded, origin=ORIGIN)
        assert found.checkpoint.size == 15
        growth.require_contained(LogFolder(tmp_path / "log"), found.checkpoint, 15)
        fork = TransparencyLog.open(tmp_path / "fork", signer)
        fork.append(entries(7, "fork"))
        with pytest.raises(growth.CheckpointNotContained):
            growth.require_contained(LogFolder(tmp_path / "fork"), found.checkpoint, 17)
        with pytest.raises(cosigned.QuorumMissed):
            cosigned.verify_cosigned(fork.checkpoint().encode(), signer.public_key, demanded)
        fork.close()
    log.close()


def test_a_log_that_was_rewound_is_told_apart(tmp_path, signer, log_key, collector_of):
    log = TransparencyLog.create(tmp_path / "log", ORIGIN, signer)
    log.append(entries(10))
    shutil.copytree(tmp_path / "log", tmp_path / "older")
    log.append(entries(10))
    older = TransparencyLog.open(tmp_path / "older", signer)
    with running_witness(tmp_path / "w", log_key) as witness:
        assert collector_of(log, tmp_path / "a", [witness], 1).round()
        rewound = collector_of(older, tmp_path / "b", [witness], 1)
        assert not rewound.round()
        (report,) = rewound.status().witnesses
        assert report.code == "witness-saw-another-log"
        assert "larger tree" in report.problem
    log.close()
    older.close()


# Quorums -----------------------------------------------------------------------------------


def test_without_its_quorum_the_log_goes_on_and_the_cosigned_checkpoint_lags(
    tmp_path, signer, log_key, collector_of
):
    log = TransparencyLog.create(tmp_path / "log", ORIGIN, signer)
    with running_witness(tmp_path / "w1", log_key) as w1:
        with running_witness(tmp_path / "w2", log_key, name="w2") as w2:
            port = w2.port
            log.append(entries(3))
            collector = collector_of(log, tmp_path / "home", [w1, w2], 2)
            with pytest.raises(NotCosigned):
                collector.content()
            assert collector.round()
            assert collector.status().cosigned_size == 3
        log.append(entries(4))
        assert not collector.round()
        status = collector.status()
        assert (status.log_size, status.cosigned_size) == (7, 3)
        assert [(one.name, one.size, one.code) for one in status.witnesses] == [
            ("w1", 7, None),
            ("w2", 3, "witness-unreachable"),
        ]
        log.append(entries(1))
        with running_witness(tmp_path / "w2", listen=f"127.0.0.1:{port}"):
            assert collector.round()
        assert collector.status().cosigned_size == 8
        assert {one.code for one in collector.status().witnesses} == {None}
    log.close()


def test_a_cosigned_checkpoint_survives_a_restart_and_a_policy_that_it_meets_not(
    tmp_path, signer, log_key, collector_of
):
    log = TransparencyLog.create(tmp_path / "log", ORIGIN, signer)
    with running_witness(tmp_path / "w1", log_key) as w1:
        collector = collector_of(log, tmp_path / "home", [w1], 1)
        assert collector.round()
        content = collector.content()
        assert (tmp_path / "home" / COSIGNED).read_bytes() == content
    assert collector_of(log, tmp_path / "home", [w1], 1).content() == content
    other = PrivateKeySigner(generate_key(KeyAlgorithm.ED25519))
    key = cosigned.cosigner_key("w2", other.public_key).encode()
    stranger = RunningWitness(w1.process, w1.url, w1.folder, key)
    lines: list[str] = []
    changed = collector_of(log, tmp_path / "home", [stranger], 1, lines)
    with pytest.raises(NotCosigned):
        changed.content()
    assert "quorum-missed" in lines[0]
    log.close()


def test_a_later_witness_is_added_to_the_same_checkpoint(tmp_path, signer, log_key, collector_of):
    log = TransparencyLog.create(tmp_path / "log", ORIGIN, signer)
    with (
        running_witness(tmp_path / "w1", log_key) as w1,
        running_witness(tmp_path / "w2", log_key, name="w2") as w2,
    ):
        late = RunningWitness(w2.process, "http://127.0.0.1:9", w2.folder, w2.key)
        collector = collector_of(log, tmp_path / "home", [w1, late], 1)
        assert not collector.round()
        assert len(note.parse(collector.content()).signatures) == 2
        collector._clients["w2"].close()
        collector._clients["w2"] = WitnessClient(
            WitnessAddress(w2.url, cosigned.parse_witness(w2.key))
        )
        assert collector.round()
        assert len(note.parse(collector.content()).signatures) == 3
    log.close()


def test_a_witness_that_was_at_another_size_is_asked_from_there(
    tmp_path, signer, log_key, collector_of
):
    log = TransparencyLog.create(tmp_path / "log", ORIGIN, signer)
    with running_witness(tmp_path / "w1", log_key) as w1:
        for count in (3, 300, 1):
            log.append(entries(count))
            # A new collector knows nothing: the witness's answer tells it where to begin.
            assert collector_of(log, tmp_path / f"home{count}", [w1], 1).round()
    log.close()


def test_a_slow_witness_holds_nobody_up(tmp_path, signer, log_key, collector_of, monkeypatch):
    monkeypatch.setattr(cosigning, "GRACE", 0.05)
    log = TransparencyLog.create(tmp_path / "log", ORIGIN, signer)
    log.append(entries(3))
    held = threading.Event()

    def answer(body: bytes):
        held.wait(SECONDS)
        return 200, TEXT, cosigned_line(addcheckpoint.parse(body).signed.text)

    with running_witness(tmp_path / "w2", log_key, name="w2") as w2, answering(answer) as url:
        slow = RunningWitness(w2.process, url, w2.folder, KEY.encode())
        collector = collector_of(log, tmp_path / "home", [slow, w2], 1)
        assert not collector.round()
        assert collector.status().cosigned_size == 3
        log.append(entries(2))
        assert not collector.round()  # the slow one is not asked twice at a time
        assert collector.status().cosigned_size == 5
        held.set()
        wait_for(lambda: not collector._busy)
        assert collector.status().cosigned_size == 5  # its late answer is for the older tree
        assert collector.round()
        assert len(note.parse(collector.content()).signatures) == 3
    log.close()


def test_a_full_disk_leaves_the_last_cosigned_checkpoint(
    tmp_path, signer, log_key, collector_of, monkeypatch
):
    log = TransparencyLog.create(tmp_path / "log", ORIGIN, signer)
    lines: list[str] = []
    with running_witness(tmp_path / "w1", log_key) as w1:
        collector = collector_of(log, tmp_path / "home", [w1], 1, lines)
        assert collector.round()
        before = collector.content()
        log.append(entries(2))

        def full(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", full)
            collector.round()
        assert collector.content() == (tmp_path / "home" / COSIGNED).read_bytes() == before
        assert "No space left" in lines[-1]
        log.append(entries(1))
        assert collector.round()
        assert collector.status().cosigned_size == 3
    log.close()


def test_a_witness_over_tls_is_trusted_by_its_certificate(tmp_path, signer, log_key, keys):
    """The witness speaks HTTPS with a certificate of the CA that the server's settings name."""
    tls_key, ca = generate_key(KeyAlgorithm.ECDSA_P256), keys.signer(KeyName.CA)
    certificate = issue_server_certificate(
        ca,
        keys.certificate(KeyName.CA),
        tls_key.public_key(),
        names=[ipaddress.ip_address("127.0.0.1")],
        not_before=datetime.now(UTC) - timedelta(minutes=1),
        lifetime=timedelta(hours=1),
    )
    folder = tmp_path / "w1"
    witness_folder.init(folder, "w1", "127.0.0.1:0", [log_key])
    write_key(folder / "tls.key", tls_key)
    (folder / "tls.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    config = (folder / "witness.toml").read_text()
    config = config.replace("# tls_key =", 'tls_key = "tls.key"')
    config = config.replace("# tls_certificate =", 'tls_certificate = "tls.crt"')
    (folder / "witness.toml").write_text(config)
    asked = asked_of(PaperLog(signer).grow(2))
    with running_witness(folder) as w1:
        address = WitnessAddress(w1.url, cosigned.parse_witness(w1.key))
        assert w1.url.startswith("https://")
        with WitnessClient(address) as client, pytest.raises(WitnessUnreachable):
            client.cosign(asked, now())
        trusted = ssl.create_default_context(cafile=keys.path / "ca.crt")
        with WitnessClient(address, trusted) as client:
            assert client.cosign(asked, now())


# Witnesses that answer as no witness should ------------------------------------------------


@contextmanager
def answering(answer):
    """An HTTP server that gives ``answer(body)``: status, content type, content."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            status, kind, content = answer(body)
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


W1 = PrivateKeySigner(generate_key(KeyAlgorithm.ED25519))
KEY = cosigned.cosigner_key("w1", W1.public_key)
TEXT = "text/plain"


def asked_of(log: PaperLog) -> Asked:
    signed = note.parse(log.checkpoint().encode())
    return Asked(signed, note.parse_checkpoint(signed.text), log.proof)


def cosigned_line(text: str, signer=W1, time: int | None = None) -> bytes:
    return f"{cosigned.cosign(signer, 'w1', text, time or now()).encode()}\n".encode()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda text: (200, TEXT, b""), WitnessAnswerUnusable),
        (lambda text: (200, TEXT, b"<html>"), WitnessAnswerUnusable),
        (lambda text: (200, TEXT, b"x" * 1_000_000), WitnessAnswerUnusable),
        (lambda text: (200, TEXT, cosigned_line(text + "more\n")), WitnessAnswerUnusable),
        (lambda text: (200, TEXT, cosigned_line(text, time=now() + 9999)), WitnessAnswerUnusable),
        (
            lambda text: (
                200,
                TEXT,
                cosigned_line(text, PrivateKeySigner(generate_key(KeyAlgorithm.ED25519))),
            ),
            WitnessAnswerUnusable,
        ),
        (lambda text: (409, TEXT, b"3\n"), WitnessAnswerUnusable),
        (lambda text: (409, SIZE_TYPE, b"03\n"), WitnessAnswerUnusable),
        (lambda text: (409, SIZE_TYPE, b"99\n"), WitnessAhead),
        (lambda text: (409, SIZE_TYPE, b"9\n"), WitnessSawAnother),
        (lambda text: (422, TEXT, b"bad proof"), WitnessSawAnother),
        (lambda text: (403, TEXT, b"\x1b[2J"), WitnessDeclines),
        (lambda text: (404, TEXT, b"who?"), WitnessDeclines),
        (lambda text: (400, TEXT, b"what?"), WitnessAnswerUnusable),
        (lambda text: (302, TEXT, b""), WitnessAnswerUnusable),
        (lambda text: (429, TEXT, b""), WitnessUnreachable),
        (lambda text: (503, TEXT, b""), WitnessUnreachable),
    ],
)
def test_an_answer_that_does_not_hold_is_an_error(signer, answer, error):
    log = PaperLog(signer).grow(9)
    asked = asked_of(log)
    with answering(lambda _: answer(asked.signed.text)) as url:
        with WitnessClient(WitnessAddress(url, KEY)) as client, pytest.raises(error) as caught:
            client.cosign(asked, now())
        assert "\x1b" not in str(caught.value)


def test_a_witness_that_names_another_size_each_time_is_given_up(signer):
    sizes = iter(range(1, 9))
    asked = asked_of(PaperLog(signer).grow(9))
    with (
        answering(lambda _: (409, SIZE_TYPE, f"{next(sizes)}\n".encode())) as url,
        WitnessClient(WitnessAddress(url, KEY)) as client,
        pytest.raises(WitnessAnswerUnusable, match="each time"),
    ):
        client.cosign(asked, now())
    assert next(sizes) == 4


def test_lines_of_other_keys_beside_the_witnesss_are_passed_over(signer):
    asked = asked_of(PaperLog(signer).grow(9))
    other = PrivateKeySigner(generate_key(KeyAlgorithm.ED25519))
    lines = cosigned_line(asked.signed.text, other) + cosigned_line(asked.signed.text)
    with (
        answering(lambda _: (200, TEXT, lines)) as url,
        WitnessClient(WitnessAddress(url, KEY)) as client,
    ):
        line = client.cosign(asked, now())
    merged = Note(asked.signed.text, (*asked.signed.signatures, line)).encode().encode()
    demanded = cosigned.policy([KEY.encode()], 1)
    assert cosigned.verify_cosigned(merged, signer.public_key, demanded)


def test_nobody_at_the_address_is_an_error(signer):
    with (
        WitnessClient(WitnessAddress("http://127.0.0.1:9", KEY)) as client,
        pytest.raises(WitnessUnreachable),
    ):
        client.cosign(asked_of(PaperLog(signer).grow(1)), now())


# The server --------------------------------------------------------------------------------


def wait_for(condition, seconds: float = SECONDS):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)
    return found


def test_two_sites_witness_each_others_logs(tmp_path, signer, log_key, collector_of):
    """Each site has a log and a witness of the other's."""
    other = PrivateKeySigner(generate_key(KeyAlgorithm.ED25519))
    other_key = checkpoints.verifier_key("other.example", other.public_key).encode()
    logs = (
        TransparencyLog.create(tmp_path / "log-1", ORIGIN, signer),
        TransparencyLog.create(tmp_path / "log-2", "other.example", other),
    )
    with (
        running_witness(tmp_path / "site-1", other_key, name="site-1.example") as at_1,
        running_witness(tmp_path / "site-2", log_key, name="site-2.example") as at_2,
    ):
        collectors = (
            collector_of(logs[0], tmp_path / "home-1", [at_2], 1),
            collector_of(logs[1], tmp_path / "home-2", [at_1], 1),
        )
        for count in (1, 5):
            for log, collector in zip(logs, collectors, strict=True):
                log.append(entries(count))
                assert collector.round()
                assert collector.status().cosigned_size == log.size
        stray = collector_of(logs[0], tmp_path / "home-3", [at_1], 1)
        assert not stray.round()
        assert stray.status().witnesses[0].code == "witness-declines"
    for log in logs:
        log.close()


def test_a_server_is_cosigned_by_two_witnesses_and_says_so(tmp_path, keys, capsys):
    key = checkpoints.verifier_key("acme.example/log", keys.public_key(KeyName.LOG)).encode()
    with (
        running_witness(tmp_path / "w1", key, name="site-1.example") as w1,
        running_witness(tmp_path / "w2", key, name="site-2.example") as w2,
    ):
        setting = {"witnesses": (w1.setting, w2.setting), "witness_quorum": 2}
        server = make_server(tmp_path / "server", keys, **setting)
        for running in lifetime(server):
            assert run(["audit", "witness", "status", *running.options]) == 0
            with running.http() as http:
                content = wait_for(
                    lambda: (
                        (answer := http.get(f"/log/{COSIGNED}")).status_code == 200
                        and b"\n5\n" in answer.content  # token, three keys, sign-in
                        and answer.content
                    )
                )
            capsys.readouterr()
            assert run(["audit", "witness", "status", *running.options]) == 0
            shown = capsys.readouterr().out.splitlines()
            assert shown[-2] == "log      5 entries"
            assert shown[-1].startswith("cosigned 5 by 2 of 2 since ")
            assert run(["audit", "witness", "status", *running.options, "-o", "json"]) == 0
            status = msgspec.json.decode(capsys.readouterr().out, type=CosigningReport)
            demanded = cosigned.policy([w1.key, w2.key], 2)
            found = cosigned.verify_cosigned(content, keys.public_key(KeyName.LOG), demanded)
            assert [one.name for one in found.cosigners] == ["site-1.example", "site-2.example"]
            assert (status.log_size, status.cosigned_size) == (5, 5)
            assert (running.folder / COSIGNED).read_bytes() == content
            # Nothing of it lies in the log itself.
            assert verify_folder(running.folder / "log", keys.public_key(KeyName.LOG)).size == 5


def test_a_server_cosigns_what_it_decides(tmp_path, keys):
    key = checkpoints.verifier_key("acme.example/log", keys.public_key(KeyName.LOG)).encode()
    with running_witness(tmp_path / "w1", key) as w1:
        server = make_server(tmp_path / "server", keys, witnesses=(w1.setting,), witness_quorum=1)
        collector = server.opened.collector
        collector.start()
        wait_for(lambda: collector.status().cosigned_size == 1)
        listed(server.service.secrets)
        from catena.service.views import SecretRequest

        for _ in range(3):
            server.service.secrets.put("s", SecretRequest(roles=("node",), value=b"x"), "admin")
        wait_for(lambda: collector.status().cosigned_size == server.opened.log.size > 1)
        server.opened.close()


@pytest.mark.parametrize(
    "settings",
    [
        {"witnesses": (f"http://127.0.0.1:1 {KEY.encode()}",)},
        {"witness_quorum": 1},
        {"witnesses": (f"http://127.0.0.1:1 {KEY.encode()}",), "witness_quorum": 2},
        {"witnesses": (KEY.encode(),), "witness_quorum": 1},
        {"witnesses": (f"ftp://h {KEY.encode()}",), "witness_quorum": 1},
        {"witnesses": (f"http://h?x {KEY.encode()}",), "witness_quorum": 1},
        {"witnesses": (f"http://user@h {KEY.encode()}",), "witness_quorum": 1},
        {"witnesses": ("http://h",), "witness_quorum": 1},
        {"witnesses": ("http://h key",), "witness_quorum": 1},
        {"witnesses": (f"http://h {KEY.encode()}",) * 2, "witness_quorum": 1},
        {
            "witnesses": (f"http://h {KEY.encode()}",),
            "witness_quorum": 1,
            "witness_ca": "server.toml",
        },
    ],
)
def test_witnesses_that_cannot_be_are_refused_before_the_server_starts(tmp_path, keys, settings):
    with pytest.raises(BadConfig):
        make_server(tmp_path / "server", keys, **settings)


def test_a_server_without_witnesses_says_so(api):
    answer = api.http.get(f"/log/{COSIGNED}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not-cosigned")
    assert api.admin("GET", "/witnesses").status_code == 404
    assert api.http.get("/v1/admin/witnesses").status_code == 401
