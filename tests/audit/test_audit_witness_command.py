"""``catena audit witness`` and ``catena audit verify --witness`` as their users see them."""

from __future__ import annotations

import json
import shutil

import pytest
from audit_samples import ORIGIN
from witness_samples import PaperLog, witness_of

from catena.audit import checkpoint as checkpoints
from catena.audit import cosigned
from catena.audit.log import TransparencyLog
from catena.cli.main import run
from catena.errors import ExitCode
from catena.formats import note
from catena.formats.note import Note
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key
from catena.server import witness_folder

NAME = "witness.example.org/w1"


@pytest.fixture(scope="module")
def cosigner():
    return PrivateKeySigner(generate_key(KeyAlgorithm.ED25519))


@pytest.fixture
def witness_key(cosigner):
    return cosigned.cosigner_key(NAME, cosigner.public_key).encode()


@pytest.fixture
def demanded(key, witness_key):
    return ("--key", key, "--witness", witness_key)


def cosign(content: str, cosigner, time: int = 1_700_000_000) -> bytes:
    signed = note.parse(content.encode())
    line = cosigned.cosign(cosigner, NAME, signed.text, time)
    return Note(signed.text, (*signed.signatures, line)).encode().encode()


@pytest.fixture
def witnessed(tmp_path, signer, sealed, cosigner):
    """A log of nine entries, cosigned at its first five."""
    folder = tmp_path / "site/log"
    folder.parent.mkdir()
    with_five = TransparencyLog.create(folder, ORIGIN, signer)
    with_five.append(sealed(9)[:5])
    (tmp_path / "site/checkpoint.cosigned").write_bytes(cosign(with_five.checkpoint(), cosigner))
    with_five.append(sealed(9)[5:])
    with_five.close()
    return folder


def refused(capsys, *arguments: str) -> str:
    code = run(["audit", "verify", *arguments, "-o", "json"])
    document = json.loads(capsys.readouterr().out)
    assert code == ExitCode.LOG_INCONSISTENT
    return document["error"]["code"] if "error" in document else document["code"]


# audit verify ------------------------------------------------------------------------------


def test_a_cosigned_log_says_how_much_of_it_is(witnessed, key, witness_key, capsys):
    assert run(["audit", "verify", str(witnessed), "--key", key, "--witness", witness_key]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "entries  9" in lines
    assert "cosigned 5" in lines
    assert f"         2023-11-14 22:13:20Z by {NAME}" in lines


def test_json_holds_the_same(witnessed, key, witness_key, capsys):
    arguments = ["audit", "verify", str(witnessed), "--key", key, "--witness", witness_key]
    assert run([*arguments, "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["cosigned"] == {"size": 5, "witnesses": {NAME: "2023-11-14T22:13:20Z"}}


def test_without_witnesses_nothing_is_said_of_them(witnessed, key, capsys):
    assert run(["audit", "verify", str(witnessed), "--key", key]) == 0
    assert "cosigned" not in capsys.readouterr().out


def test_a_log_without_cosignatures_is_not_taken(witnessed, key, witness_key, capsys):
    (witnessed.parent / "checkpoint.cosigned").unlink()
    arguments = ["audit", "verify", str(witnessed), "--key", key, "--witness", witness_key]
    assert run(arguments) == ExitCode.NOT_FOUND
    assert "cosigned-missing" in capsys.readouterr().err


def test_the_logs_own_checkpoint_is_not_a_cosigned_one(witnessed, key, witness_key, capsys):
    plain = ("--witness", witness_key, "--cosigned", str(witnessed / "checkpoint"))
    assert refused(capsys, str(witnessed), "--key", key, *plain) == "quorum-missed"


def test_two_are_demanded_where_one_signed(witnessed, key, witness_key, capsys, stranger):
    other = cosigned.cosigner_key("w2", stranger.public_key).encode()
    both = ("--witness", witness_key, "--witness", other)
    assert refused(capsys, str(witnessed), "--key", key, *both) == "quorum-missed"
    one = ("--quorum", "1")
    assert run(["audit", "verify", str(witnessed), "--key", key, *both, *one]) == 0


def test_a_fork_with_the_cosigned_checkpoint_of_the_other_branch_is_refused(
    witnessed, demanded, capsys, signer, sealed
):
    shutil.rmtree(witnessed)
    other = TransparencyLog.create(witnessed, ORIGIN, signer)
    other.append(sealed(9)[3:])
    other.close()
    assert refused(capsys, str(witnessed), *demanded) == "checkpoint-not-contained"


def test_a_cosigned_checkpoint_of_another_log_is_refused(
    witnessed, demanded, capsys, signer, cosigner
):
    other = PaperLog(signer, "other.example").grow(3)
    path = witnessed.parent / "checkpoint.cosigned"
    path.write_bytes(cosign(other.checkpoint(), cosigner))
    assert refused(capsys, str(witnessed), *demanded) == "foreign-origin"


def test_a_cosignature_from_the_future_is_refused(witnessed, demanded, capsys, cosigner):
    path = witnessed.parent / "checkpoint.cosigned"
    content = (witnessed / "checkpoint").read_text()
    path.write_bytes(cosign(content, cosigner, time=2**62))
    assert refused(capsys, str(witnessed), *demanded) == "cosignature-from-future"


@pytest.mark.parametrize(
    "arguments", [("--quorum", "1"), ("--cosigned", "x"), ("--witness", "x"), ("--quorum", "0")]
)
def test_senseless_demands_are_usage_errors(witnessed, key, arguments):
    assert run(["audit", "verify", str(witnessed), "--key", key, *arguments]) == ExitCode.USAGE


def test_a_quorum_that_cannot_be_is_a_usage_error(witnessed, key, witness_key):
    demanded = ("--witness", witness_key, "--quorum", "2")
    assert run(["audit", "verify", str(witnessed), "--key", key, *demanded]) == ExitCode.USAGE


# audit witness -----------------------------------------------------------------------------


def test_a_witness_is_made_and_shown(tmp_path, key, signer, capsys):
    assert run(["audit", "witness", "log-key", "--key", key, "--origin", ORIGIN]) == 0
    log_key = capsys.readouterr().out.strip()
    assert log_key == checkpoints.verifier_key(ORIGIN, signer.public_key).encode()
    folder = str(tmp_path / "w")
    assert run(["audit", "witness", "init", folder, "--name", NAME, "--log", log_key]) == 0
    made = capsys.readouterr().out
    assert run(["audit", "witness", "show", folder]) == 0
    assert capsys.readouterr().out == made
    assert f"watches  {ORIGIN}" in made
    assert witness_folder.key_of(tmp_path / "w").encode() in made
    assert run(["audit", "witness", "show", folder, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["logs"] == [ORIGIN]


def test_mistakes_have_their_exit_codes(tmp_path, key, witness_key, capsys):
    folder = str(tmp_path / "w")
    init = ["audit", "witness", "init", folder, "--name"]
    assert run([*init, "a b"]) == ExitCode.USAGE
    assert run([*init, NAME, "--log", "x"]) == ExitCode.USAGE
    assert run([*init, NAME, "--log", witness_key]) == ExitCode.USAGE
    assert run([*init, NAME]) == 0
    assert run([*init, NAME]) == ExitCode.USAGE
    assert run(["audit", "witness", "show", str(tmp_path)]) == ExitCode.NOT_FOUND
    assert run(["audit", "witness", "run", str(tmp_path)]) == ExitCode.NOT_FOUND
    assert run(["audit", "witness", "run", folder, "--listen", "x"]) == ExitCode.USAGE
    (tmp_path / "w/witness.key").chmod(0o644)
    assert run(["audit", "witness", "run", folder]) == ExitCode.UNTRUSTED
    arguments = ["audit", "witness", "log-key", "--key", key, "--origin", "a b"]
    assert run(arguments) == ExitCode.USAGE
    capsys.readouterr()


def test_a_running_witness_keeps_its_memory_to_itself(tmp_path, signer, cosigner, capsys):
    folder = tmp_path / "w"
    witness_folder.init(folder, NAME, "127.0.0.1:0", [])
    held = witness_of(folder / "state", cosigner)
    assert run(["audit", "witness", "run", str(folder)]) == ExitCode.INTERNAL
    assert "witness-in-use" in capsys.readouterr().err
    held.state.close()
