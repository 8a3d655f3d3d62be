"""A witness as a process, spoken to over HTTP as the specification says."""

from __future__ import annotations

import concurrent.futures
import json
import socket
import sys
import time
from pathlib import Path

import httpx
import pytest

from catena.audit import checkpoint as checkpoints
from catena.audit import cosigned
from catena.audit.cosigned import verify_cosignature
from catena.errors import UsageError
from catena.formats import addcheckpoint, note, verifierkey
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key, load_signer
from catena.server import witness_folder
from catena.server.config import BadConfig
from catena.server.witness import STATUS
from catena.server.witness_folder import NoWitnessFolder, WitnessExists, open_witness
from server.witnesses import SECONDS, running_witness

sys.path.insert(0, str(Path(__file__).parents[1] / "audit"))
from witness_samples import PaperLog

NAME = "witness.example.org/w1"


@pytest.fixture(scope="module")
def log():
    return PaperLog(PrivateKeySigner(generate_key(KeyAlgorithm.ED25519))).grow(20)


@pytest.fixture
def witness(tmp_path, log):
    with running_witness(tmp_path / "witness", log.key(), name=NAME) as running:
        yield running


def ask(witness, body: bytes, **options) -> httpx.Response:
    return httpx.post(f"{witness.url}/add-checkpoint", content=body, trust_env=False, **options)


def test_a_checkpoint_is_cosigned_over_http(witness, log):
    answer = ask(witness, log.request(0, 5))
    assert answer.status_code == 200
    (line,) = note.parse_signatures(answer.content)
    key = verifierkey.parse(witness.key)
    assert (line.name, line.key_id) == (NAME, key.key_id)
    text = note.parse(log.checkpoint(5).encode()).text
    assert abs(verify_cosignature(key, text, line.signature) - time.time()) < 60


def test_every_answer_has_the_status_of_the_specification(witness, log):
    stranger = PaperLog(PrivateKeySigner(generate_key(KeyAlgorithm.ED25519)), log.origin).grow(3)
    other = PaperLog(log.signer, "other.example").grow(3)
    assert ask(witness, log.request(0, 5)).status_code == 200
    fork = log.fork(3).grow(2, "fork")
    for body, status in (
        (b"", 400),
        (b"old 05" + log.request(5)[5:], 400),
        (log.request(5, 4), 400),
        (stranger.request(0), 403),
        (other.request(0), 404),
        (log.request(5, proof=()), 422),
        (fork.request(5), 409),
        (log.request(0), 409),
        (log.request(4), 409),
    ):
        answer = ask(witness, body)
        assert answer.status_code == status, answer.text
        if status == 409:
            assert answer.headers["content-type"] == addcheckpoint.SIZE_TYPE
            assert answer.content == b"5\n"
    _, errors = witness.end()
    lines = [json.loads(line) for line in errors.splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert [line["status"] for line in requests] == [
        200,
        400,
        400,
        400,
        403,
        404,
        422,
        409,
        409,
        409,
    ]
    noted = [line["code"] for line in lines if line["event"] == "fault"]
    assert noted == ["growth-unproven", "fork-shown"]


def test_other_paths_and_methods_are_not_there(witness):
    with httpx.Client(base_url=witness.url, trust_env=False) as http:
        assert http.get("/add-checkpoint").status_code == 405
        for path in ("/", "/add-checkpoint/", "/state", "/witness.key"):
            assert http.get(path).status_code == 404


def test_a_body_above_the_bound_is_not_read(witness, log):
    body = log.request(0) + b"x" * addcheckpoint.MAX_REQUEST
    assert ask(witness, body).status_code == 413
    assert ask(witness, iter([body[:100], body[100:]])).status_code == 413
    assert ask(witness, log.request(0)).status_code == 200


def test_a_body_that_does_not_come_is_given_up(tmp_path, log):
    folder = tmp_path / "witness"
    witness_folder.init(folder, NAME, "127.0.0.1:0", [log.key()])
    config = (folder / "witness.toml").read_text()
    (folder / "witness.toml").write_text(config.replace("body_timeout = 10", "body_timeout = 1"))
    with (
        running_witness(folder) as witness,
        socket.create_connection(("127.0.0.1", witness.port), timeout=SECONDS) as raw,
    ):
        raw.sendall(b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nold")
        assert raw.recv(100).startswith(b"HTTP/1.1 408 ")


def test_a_witness_forgets_nothing_when_it_is_killed(tmp_path, log):
    folder = tmp_path / "witness"
    with running_witness(folder, log.key(), name=NAME) as witness:
        assert ask(witness, log.request(0, 5)).status_code == 200
        witness.process.kill()
    with running_witness(folder) as witness:
        assert ask(witness, log.request(0, 5)).content == b"5\n"
        assert ask(witness, log.request(5)).status_code == 200


def test_many_at_once_are_answered_with_one_history(witness, log):
    """Eight callers with four forks: what is answered with 200 is one of them alone."""
    forks = [log.fork(4).grow(12, f"fork{number}") for number in range(4)]
    assert ask(witness, log.request(0, 4)).status_code == 200

    def climb(number: int) -> list[tuple[int, bytes]]:
        fork, size, signed = forks[number % 4], 4, []
        with httpx.Client(base_url=witness.url, trust_env=False, timeout=SECONDS) as http:
            for step in range(16):
                new = min(16, max(size, 5 + step))
                answer = http.post("/add-checkpoint", content=fork.request(size, new))
                if answer.status_code == 200:
                    head = note.parse_checkpoint(note.parse(fork.checkpoint(new).encode()).text)
                    signed.append((new, head.root))
                    size = new
                elif answer.status_code == 409:
                    size = min(16, addcheckpoint.parse_size_answer(answer.content))
                else:
                    assert answer.status_code == 422
        return signed

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        signed = [one for found in pool.map(climb, range(8)) for one in found]
    roots = dict(signed)
    assert len(roots) > 3
    assert all(roots[size] == root for size, root in signed)


def test_the_table_of_statuses_is_the_specifications():
    assert {int(status) for status in STATUS.values()} == {
        400,
        403,
        404,
        408,
        409,
        413,
        422,
        500,
        503,
    }


# The folder --------------------------------------------------------------------------------


def test_a_witness_is_not_made_over(tmp_path, log):
    witness_folder.init(tmp_path / "w", NAME, "127.0.0.1:0", [])
    before = (tmp_path / "w/witness.key").read_bytes()
    with pytest.raises(WitnessExists):
        witness_folder.init(tmp_path / "w", NAME, "127.0.0.1:0", [])
    assert (tmp_path / "w/witness.key").read_bytes() == before
    assert (tmp_path / "w/witness.key").stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_a_witness_is_not_made(tmp_path, log):
    for name, listen, logs in (
        ("with space", "127.0.0.1:0", []),
        (NAME, "nowhere", []),
        (NAME, "127.0.0.1:0", ["no key"]),
        (NAME, "127.0.0.1:0", [log.key(), log.key()]),
    ):
        with pytest.raises(UsageError):
            witness_folder.init(tmp_path / "w", name, listen, logs)
        assert not (tmp_path / "w").exists()


def test_there_must_be_a_witness(tmp_path):
    with pytest.raises(NoWitnessFolder):
        open_witness(tmp_path, now=lambda: 0)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("listen", "lisen"),
        ("workers = 4", "workers = 0"),
        ("workers = 4", "workers = "),
        ("# tls_key =", 'tls_key = "x"'),
        ("# tls_certificate =", 'tls_certificate = "x"\ntls_key = "y"\n#'),
        ("keys = [", "keys = []\nnot = ["),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, log, old, new):
    witness_folder.init(tmp_path / "w", NAME, "127.0.0.1:0", [log.key()])
    path = tmp_path / "w/witness.toml"
    text = path.read_text()
    assert old in text
    text = text.replace(old, new)
    if "tls_certificate = " in new:
        text = text.replace("\n# tls_key =", "\n#")
    path.write_text(text)
    with pytest.raises(BadConfig):
        open_witness(tmp_path / "w", now=lambda: 0)


def test_settings_are_read_as_they_are_written(tmp_path, log):
    key = witness_folder.init(tmp_path / "w", NAME, "[::1]:1", [log.key()])
    config = witness_folder.load(tmp_path / "w")
    assert witness_folder.render(config) == (tmp_path / "w/witness.toml").read_text()
    opened = open_witness(tmp_path / "w", now=lambda: 0)
    assert list(opened.witness.logs) == [log.origin]
    signer = load_signer(tmp_path / "w/witness.key")
    assert key == cosigned.cosigner_key(NAME, signer.public_key)
    assert checkpoints.verifier_key(log.origin, log.signer.public_key).encode() == log.key()
    opened.close()
