"""A witness signs what grew, once for each size, whatever it is asked and whenever it dies."""

from __future__ import annotations

import errno
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from audit_samples import ORIGIN, tree_of
from witness_samples import NAME, TIME, PaperLog, witness_of

from catena.audit import cosigned, merkle, witness_state
from catena.audit.witness import (
    BadWatchedLog,
    ForkShown,
    GrowthUnproven,
    OldSizeBeyondCheckpoint,
    OldSizeMoved,
    UnknownLog,
    UntrustedCheckpoint,
    watch,
)
from catena.audit.witness_state import (
    WitnessDamaged,
    WitnessInUse,
    WitnessState,
    WitnessUnwritable,
)
from catena.errors import CatenaError, FormatError
from catena.formats import note
from catena.formats.note import Note, NoteSignature
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key, write_key


@pytest.fixture(scope="module")
def cosigner():
    return PrivateKeySigner(generate_key(KeyAlgorithm.ED25519))


@pytest.fixture
def log(signer):
    return PaperLog(signer).grow(9)


@pytest.fixture
def witness(tmp_path, cosigner, log):
    made = witness_of(tmp_path / "state", cosigner, log)
    yield made
    made.state.close()


def text_of(log: PaperLog, size: int | None = None) -> str:
    return note.parse(log.checkpoint(size).encode()).text


def accepted(witness, log: PaperLog, old: int, size: int | None = None) -> None:
    """The request is answered with a cosignature that holds."""
    line = witness.add_checkpoint(log.request(old, size))
    key = cosigned.cosigner_key(NAME, witness.signer.public_key)
    assert (line.name, line.key_id) == (key.name, key.key_id)
    assert cosigned.verify_cosignature(key, text_of(log, size), line.signature) == TIME


# What is signed, and what is refused -------------------------------------------------------


def test_a_log_is_cosigned_as_it_grows(witness, log):
    for old, size in itertools.pairwise([0, 1, 2, 3, 4, 7, 8, 9]):
        accepted(witness, log, old, size)


def test_the_same_checkpoint_is_cosigned_again(witness, log):
    for old in (0, 9, 9):
        accepted(witness, log, old)


def test_an_empty_log_is_cosigned_and_grows(witness, log):
    accepted(witness, log, 0, 0)
    accepted(witness, log, 0, 0)
    accepted(witness, log, 0, 5)


def test_an_empty_tree_has_one_root(witness, log, signer):
    forged = text_of(log, 0).split("\n")
    forged[2] = note.encode_base64(bytes(32))
    text = "\n".join(forged)
    line = note.parse(log.checkpoint(0).encode()).signatures[0]
    signed = Note(text, (NoteSignature(line.name, line.key_id, signer.sign(text.encode())),))
    with pytest.raises(GrowthUnproven):
        witness.add_checkpoint(b"old 0\n\n" + signed.encode().encode())


def test_a_request_that_is_not_one_is_refused(witness):
    for body in (b"", b"old 0\n", b"old 00\n\n", b"\xff" * 300):
        with pytest.raises(FormatError):
            witness.add_checkpoint(body)


def test_a_log_that_is_not_watched_is_refused(witness, log):
    with pytest.raises(UnknownLog):
        witness.add_checkpoint(PaperLog(log.signer, "other.example").grow(1).request(0))


def test_another_key_of_the_same_name_is_refused(witness, log, stranger):
    with pytest.raises(UntrustedCheckpoint, match="no key"):
        witness.add_checkpoint(PaperLog(stranger, ORIGIN).grow(1).request(0))


def test_a_signature_that_does_not_hold_is_refused(witness, log):
    body = log.request(0).replace(b"\n9\n", b"\n8\n")
    with pytest.raises(UntrustedCheckpoint, match="hold"):
        witness.add_checkpoint(body)


def test_a_cosignature_alone_does_not_stand_for_the_log(witness, log, cosigner):
    text = text_of(log)
    signed = Note(text, (cosigned.cosign(cosigner, NAME, text, TIME),))
    with pytest.raises(UntrustedCheckpoint):
        witness.add_checkpoint(b"old 0\n\n" + signed.encode().encode())


def test_either_key_of_a_log_may_sign(tmp_path, cosigner, log, stranger):
    other = PaperLog(stranger, ORIGIN, log.leaves).grow(2)
    witness = witness_of(tmp_path / "state", cosigner)
    witness = type(witness)(
        NAME,
        cosigner,
        {ORIGIN: watch([log.key(), other.key()])},
        witness.state,
        witness.now,
    )
    accepted(witness, log, 0, 5)
    accepted(witness, other, 5)
    witness.state.close()


def test_an_old_size_beyond_the_checkpoint_is_refused(witness, log):
    with pytest.raises(OldSizeBeyondCheckpoint):
        witness.add_checkpoint(log.request(5, 4))


def test_another_old_size_is_answered_with_the_right_one(witness, log):
    accepted(witness, log, 0, 5)
    for old in (0, 4, 6):
        with pytest.raises(OldSizeMoved) as caught:
            witness.add_checkpoint(log.request(old))
        assert caught.value.size == 5


def test_a_log_that_shrinks_is_not_cosigned(witness, log):
    accepted(witness, log, 0, 9)
    with pytest.raises(OldSizeMoved):
        witness.add_checkpoint(log.request(0, 5))
    with pytest.raises(OldSizeBeyondCheckpoint):
        witness.add_checkpoint(log.request(9, 5))


@pytest.mark.parametrize(
    "change",
    [
        lambda proof: (),
        lambda proof: proof[:-1],
        lambda proof: proof[1:],
        lambda proof: proof[::-1],
        lambda proof: (*proof, bytes(32)),
        lambda proof: (bytes(32), *proof[1:]),
    ],
)
def test_growth_without_a_proof_that_holds_is_refused(witness, log, change):
    accepted(witness, log, 0, 5)
    with pytest.raises(GrowthUnproven):
        witness.add_checkpoint(log.request(5, proof=change(log.proof(5))))
    accepted(witness, log, 5)


def test_a_proof_from_nothing_is_refused(witness, log):
    with pytest.raises(GrowthUnproven):
        witness.add_checkpoint(log.request(0, proof=(bytes(32),)))


def test_a_fork_of_another_size_is_refused(witness, log):
    accepted(witness, log, 0, 5)
    fork = log.fork(4).grow(4, "fork")
    with pytest.raises(GrowthUnproven):
        witness.add_checkpoint(fork.request(5))
    with pytest.raises(OldSizeMoved):
        witness.add_checkpoint(fork.request(4))


def test_a_fork_of_the_same_size_is_kept_as_proof(witness, log, tmp_path):
    accepted(witness, log, 0, 9)
    fork = log.fork(4).grow(5, "fork")
    for old in (9, 0):
        with pytest.raises(ForkShown) as caught:
            witness.add_checkpoint(fork.request(old))
        assert caught.value.size == 9
    kept = tree_of(tmp_path / "state/forks")
    (seen,) = [content for name, content in kept.items() if name.endswith(".seen")]
    (shown,) = [content for name, content in kept.items() if name.endswith(".request")]
    heads = [
        note.parse_checkpoint(note.parse(one).text) for one in (seen, shown.split(b"\n\n", 1)[1])
    ]
    assert heads[0].size == heads[1].size == 9
    assert heads[0].root != heads[1].root
    accepted(witness, log, 9)


def test_no_more_proofs_are_kept_than_prove_something(witness, log, tmp_path, monkeypatch):
    monkeypatch.setattr(witness_state, "MAX_FORKS", 2)
    accepted(witness, log, 0, 9)
    for number in range(4):
        with pytest.raises(ForkShown):
            witness.add_checkpoint(log.fork(4).grow(5, f"fork{number}").request(9))
    assert len(tree_of(tmp_path / "state/forks")) == 4


def test_a_full_disk_does_not_hide_a_fork(witness, log, monkeypatch):
    accepted(witness, log, 0, 9)
    monkeypatch.setattr(witness_state, "replace_file", failing)
    with pytest.raises(ForkShown):
        witness.add_checkpoint(log.fork(4).grow(5, "fork").request(9))


@pytest.mark.parametrize("keys", [[], ["x"], None])
def test_a_log_without_a_usable_key_is_not_watched(keys, cosigner):
    if keys is None:
        keys = [cosigned.cosigner_key(NAME, cosigner.public_key).encode()]
    with pytest.raises(BadWatchedLog):
        watch(keys)


# Its memory --------------------------------------------------------------------------------


def failing(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_witness_remembers_over_a_restart(tmp_path, cosigner, log):
    for old, size in ((0, 5), (5, 9)):
        witness = witness_of(tmp_path / "state", cosigner, log)
        accepted(witness, log, old, size)
        witness.state.close()


def test_two_processes_do_not_share_a_memory(witness, tmp_path):
    with pytest.raises(WitnessInUse):
        WitnessState(tmp_path / "state")


def test_a_memory_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WitnessUnwritable):
        WitnessState(tmp_path / "file")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"fleet", b"other")),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_a_memory_that_cannot_be_read_signs_nothing(witness, log, tmp_path, damage):
    accepted(witness, log, 0, 5)
    (record,) = [path for path in (tmp_path / "state").iterdir() if path.name != "lock"]
    damage(record)
    with pytest.raises(WitnessDamaged):
        witness.add_checkpoint(log.request(5))


def test_what_cannot_be_remembered_is_not_signed(witness, log, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(witness_state, "replace_file", failing)
        with pytest.raises(WitnessUnwritable):
            witness.add_checkpoint(log.request(0, 5))
    accepted(witness, log, 0, 5)


@pytest.mark.parametrize("failed", range(1, 3))
def test_after_a_failed_sync_nothing_is_signed_that_is_not_on_disk(
    witness, log, monkeypatch, failed
):
    """The file's fsync, then the folder's, which leaves a new record that may vanish."""
    accepted(witness, log, 0, 5)
    synced = []

    def fsync(descriptor):
        synced.append(descriptor)
        if len(synced) == failed:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(WitnessUnwritable):
        witness.add_checkpoint(log.request(5))
    synced[:] = [0] * 10  # what follows succeeds
    moved = failed == 2
    if moved:
        with pytest.raises(OldSizeMoved) as caught:
            witness.add_checkpoint(log.request(5))
        assert caught.value.size == 9
    accepted(witness, log, 9 if moved else 5)
    # What was there is written once more before it is built on; of the same size nothing else is.
    assert len(synced) == (12 if moved else 14)


# Many at once ------------------------------------------------------------------------------


def test_of_many_forks_at_once_one_is_signed(tmp_path, cosigner, signer):
    """Threads ask for different trees of the same sizes; what is signed is one history."""
    base = PaperLog(signer).grow(3)
    witness = witness_of(tmp_path / "state", cosigner, base)
    accepted(witness, base, 0)
    forks = [base.fork(3).grow(40, f"fork{number}") for number in range(6)]
    signed: list[tuple[int, bytes]] = []
    errors: list[CatenaError] = []
    start = threading.Barrier(len(forks))

    def ask(fork: PaperLog, seed: int) -> None:
        order = random.Random(seed)
        size = 3
        start.wait()
        for _ in range(20):
            new = min(43, size + order.randint(0, 3))
            try:
                witness.add_checkpoint(fork.request(size, new))
            except OldSizeMoved as moved:
                size = moved.size
            except (ForkShown, GrowthUnproven, OldSizeBeyondCheckpoint):
                pass
            except CatenaError as error:
                errors.append(error)
            else:
                head = note.parse_checkpoint(text_of(fork, new))
                signed.append((head.size, head.root))
                size = new

    threads = [threading.Thread(target=ask, args=(one, n)) for n, one in enumerate(forks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    witness.state.close()
    assert not errors
    roots = dict(signed)
    assert len(roots) > 1
    assert all(roots[size] == root for size, root in signed)
    histories = {
        number
        for number, fork in enumerate(forks)
        if all(
            size <= 3 or merkle.Frontier().extend(fork.leaves[:size]).root() == root
            for size, root in signed
        )
    }
    assert histories


# Killed while it writes --------------------------------------------------------------------

_KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from witness_samples import PaperLog, witness_of
from catena.keys.signer import load_signer

step, when = int(sys.argv[1]), sys.argv[2]
calls = 0

def counted(real):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == step and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **options)
        if calls == step and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

here = Path({here!r})
log = PaperLog(load_signer(here / "log.key")).grow(9)
witness = witness_of(here / "state", load_signer(here / "witness.key"), log)
body = log.request(5)
for name in ("open", "fsync", "replace", "write"):
    setattr(os, name, counted(getattr(os, name)))
line = witness.add_checkpoint(body)
print(calls, line.encode(), flush=True)
"""


def run_killed(here: Path, step: int, when: str) -> subprocess.CompletedProcess:
    script = _KILLED.format(tests=str(Path(__file__).parent), here=str(here))
    return subprocess.run(
        [sys.executable, "-c", script, str(step), when], capture_output=True, text=True, check=False
    )


def test_a_witness_killed_at_any_step_never_signs_two_trees_of_one_size(tmp_path, signer, cosigner):
    """Killed before and after each system call that writes; then it is shown a fork."""
    keys = {
        "log": generate_key(KeyAlgorithm.ED25519),
        "witness": generate_key(KeyAlgorithm.ED25519),
    }
    log = PaperLog(PrivateKeySigner(keys["log"])).grow(9)
    fork = log.fork(5).grow(4, "fork")
    ends = set()
    for step, when in itertools.product(range(1, 30), ("before", "after")):
        here = tmp_path / f"{step}-{when}"
        here.mkdir()
        for name, key in keys.items():
            write_key(here / f"{name}.key", key)
        first = witness_of(here / "state", PrivateKeySigner(keys["witness"]), log)
        accepted(first, log, 0, 5)
        first.state.close()
        run = run_killed(here, step, when)
        again = witness_of(here / "state", PrivateKeySigner(keys["witness"]), log)
        size = size_of(again)
        answered = run.returncode == 0
        assert answered or run.returncode == -signal.SIGKILL, run.stderr
        assert size == 9 if answered else size in {5, 9}
        ends.add((answered, size))
        if size == 9:  # the answer may have been given: nothing else of this size is signed
            with pytest.raises(ForkShown):
                again.add_checkpoint(fork.request(5))
            accepted(again, log, 9)
        else:  # nothing was answered: either history may go on, and then only that one
            accepted(again, fork, 5)
            with pytest.raises(ForkShown):
                again.add_checkpoint(log.request(5))
        again.state.close()
        if answered:
            break
    assert ends == {(False, 5), (False, 9), (True, 9)}


def size_of(witness) -> int:
    latest = witness.state.latest(ORIGIN)
    return latest.size
