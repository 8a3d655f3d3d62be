"""The log: durable, single-writer, never rewound, never forked, whole after any crash."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from audit_samples import ORIGIN, tree_of

from catena.audit import checkpoint as checkpoints
from catena.audit.checkpoint import BadOrigin, CheckpointForged, UnusableLogKey
from catena.audit.folder import LogExists, LogInUse, LogMissing
from catena.audit.log import BadEntry, LogUnwritable, TransparencyLog
from catena.audit.merkle import ProofMismatch
from catena.audit.past import LogDamaged, LogForked, LogRewound
from catena.audit.receipt import verify_proof
from catena.audit.verify import verify_folder
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key, write_key

STEPS = [1, 3, 250, 1, 1, 2, 300, 5]


def test_every_receipt_proves_its_entry(log, signer, sealed):
    leaves = sealed(sum(STEPS))
    for step in STEPS:
        batch = leaves[log.size : log.size + step]
        receipts = log.append(batch)
        for receipt, leaf in zip(receipts, batch, strict=True):
            text = receipt.encode().encode()
            proven = verify_proof(text, signer.public_key, origin=ORIGIN, leaf=leaf)
            assert proven.checkpoint.size == log.size
        assert [receipt.index for receipt in receipts] == list(range(log.size - step, log.size))
        assert receipts[0].checkpoint == log.checkpoint()


def test_a_receipt_for_another_entry_is_refused(log, signer, sealed):
    leaves = sealed(4)
    receipt = log.append(leaves)[1]
    with pytest.raises(ProofMismatch, match="another root"):
        verify_proof(receipt.encode().encode(), signer.public_key, leaf=leaves[2])


def test_a_reopened_log_continues_where_it_was(folder, signer, sealed):
    leaves = sealed(sum(STEPS))
    for step in STEPS:
        opener = TransparencyLog.open if folder.exists() else None
        log = opener(folder, signer) if opener else TransparencyLog.create(folder, ORIGIN, signer)
        log.append(leaves[log.size : log.size + step])
        log.close()
    at_once = TransparencyLog.create(folder.with_name("at-once"), ORIGIN, signer)
    at_once.append(leaves)
    log = TransparencyLog.open(folder, signer)
    assert (log.checkpoint(), log.origin) == (at_once.checkpoint(), ORIGIN)
    log.close()
    at_once.close()
    verify_folder(folder, signer.public_key, origin=ORIGIN)


def test_full_tiles_replace_their_partial_ones(log, folder, sealed):
    leaves = sealed(260)
    for start in range(0, 250, 50):
        log.append(leaves[start : start + 50])
    assert (folder / "tile/0/000.p/50").exists()
    log.append(leaves[250:])
    assert not (folder / "tile/0/000.p").exists()
    assert sorted(name for name in tree_of(folder) if name.startswith("tile/entries")) == [
        "tile/entries/000",
        "tile/entries/001.p/4",
    ]


def test_threads_append_one_after_the_other(log, signer, sealed, folder):
    leaves = sealed(40)
    threads = [
        threading.Thread(target=lambda part=part: [log.append([leaf]) for leaf in part])
        for part in (leaves[:20], leaves[20:])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verify_folder(folder, signer.public_key).size == 40


def wait_together(log, batches):
    """Let threads queue up behind a busy log, then serve them; outcomes by batch."""
    outcomes = {}

    def append(number):
        try:
            outcomes[number] = log.append(batches[number])
        except LogUnwritable as error:
            outcomes[number] = error

    threads = [threading.Thread(target=append, args=(number,)) for number in range(len(batches))]
    with log._lock:
        for number, thread in enumerate(threads, 1):
            thread.start()
            while len(log._queue) < number:
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    return outcomes


def test_threads_that_wait_share_one_commit(log, folder, signer, sealed):
    leaves = sealed(10)
    outcomes = wait_together(log, [leaves[:1], leaves[1:4], leaves[4:10]])
    assert {receipt.checkpoint for one in outcomes.values() for receipt in one} == {
        log.checkpoint()
    }
    indices = [[receipt.index for receipt in outcomes[number]] for number in range(3)]
    assert indices == [[0], [1, 2, 3], [4, 5, 6, 7, 8, 9]]
    for number, part in enumerate((leaves[:1], leaves[1:4], leaves[4:10])):
        for receipt, leaf in zip(outcomes[number], part, strict=True):
            verify_proof(receipt.encode().encode(), signer.public_key, leaf=leaf)
    assert verify_folder(folder, signer.public_key).size == 10


def test_a_group_larger_than_a_batch_is_committed_in_parts(log, sealed):
    outcomes = wait_together(log, [[b"x"] * 1000, [b"y"] * 24, [b"z"] * 1000])
    assert [len(outcomes[number]) for number in range(3)] == [1000, 24, 1000]
    assert outcomes[0][0].checkpoint == outcomes[1][0].checkpoint != log.checkpoint()
    assert outcomes[2][0].checkpoint == log.checkpoint()


def test_a_failing_disk_refuses_everybody_who_waited(log, sealed, monkeypatch):
    with failing(monkeypatch, 1):
        outcomes = wait_together(log, [[leaf] for leaf in sealed(3)])
    assert all(isinstance(outcome, LogUnwritable) for outcome in outcomes.values())
    assert log.size == 0
    assert [receipt.index for receipt in log.append(sealed(3))] == [0, 1, 2]


@pytest.mark.parametrize("entries", [[], [b""], [b"x" * 65536], [b"x"] * 1025])
def test_entries_that_do_not_fit_are_refused(log, entries):
    with pytest.raises(BadEntry):
        log.append(entries)
    assert log.size == 0


def test_a_log_is_never_started_over(folder, log, signer):
    with pytest.raises(LogExists):
        TransparencyLog.create(folder, ORIGIN, signer)


def test_a_folder_with_other_files_does_not_become_a_log(tmp_path, signer):
    (tmp_path / "letter").write_text("hello")
    with pytest.raises(LogExists):
        TransparencyLog.create(tmp_path, ORIGIN, signer)
    assert sorted(tree_of(tmp_path)) == ["letter"]


def test_a_missing_log_is_not_opened(tmp_path, signer):
    with pytest.raises(LogMissing):
        TransparencyLog.open(tmp_path, signer)


def test_a_log_needs_an_ed25519_key_and_a_usable_origin(folder, signer):
    with pytest.raises(UnusableLogKey):
        TransparencyLog.create(
            folder, ORIGIN, PrivateKeySigner(generate_key(KeyAlgorithm.ECDSA_P256))
        )
    with pytest.raises(BadOrigin):
        TransparencyLog.create(folder, "two words", signer)
    assert not folder.exists()


def test_a_log_of_another_key_is_not_opened(folder, log, stranger):
    log.close()
    with pytest.raises(CheckpointForged):
        TransparencyLog.open(folder, stranger)


def test_a_second_writer_is_refused_until_the_first_is_gone(folder, log, signer, sealed):
    with pytest.raises(LogInUse):
        TransparencyLog.open(folder, signer)
    log.close()
    log.close()
    with pytest.raises(LogUnwritable, match="closed"):
        log.append(sealed(1))
    second = TransparencyLog.open(folder, signer)
    second.append(sealed(1))
    second.close()


def test_a_second_process_is_refused(folder, log, signer, tmp_path):
    # The lock must hold between processes, not only between objects of this one.
    program = (
        "import fcntl, os, sys\n"
        "lock = os.open(sys.argv[1], os.O_RDWR)\n"
        "fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, folder / "lock"], capture_output=True, check=False
    )
    assert b"BlockingIOError" in result.stderr


def test_failing_to_open_gives_the_lock_back(folder, log, signer, stranger):
    log.close()
    for _ in range(2):
        with pytest.raises(CheckpointForged):
            TransparencyLog.open(folder, stranger)
    TransparencyLog.open(folder, signer).close()


# --- rewinding and forking ---


def test_a_log_older_than_a_remembered_checkpoint_is_refused(folder, log, signer, sealed):
    leaves = sealed(6)
    log.append(leaves[:3])
    log.close()
    shutil.copytree(folder, folder.with_name("backup"))
    log = TransparencyLog.open(folder, signer)
    log.append(leaves[3:])
    newest = log.checkpoint()
    log.close()
    with pytest.raises(LogRewound):
        TransparencyLog.open(folder.with_name("backup"), signer, remembered=newest)
    TransparencyLog.open(folder, signer, remembered=newest).close()


@pytest.mark.parametrize("size", [1, 255, 256, 257, 300])
def test_a_log_with_another_past_is_refused(folder, log, signer, sealed, size):
    log.append(sealed(300))
    log.close()
    other = TransparencyLog.create(folder.with_name("other"), ORIGIN, signer)
    other.append([b"a different start", *sealed(size)[1:]])
    with pytest.raises(LogForked):
        TransparencyLog.open(folder, signer, remembered=other.checkpoint())
    other.close()


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 300])
def test_a_log_that_grew_from_the_remembered_checkpoint_is_opened(
    folder, log, signer, sealed, size
):
    leaves = sealed(300)
    if size:
        log.append(leaves[:size])
    then = log.checkpoint()
    if size < 300:
        log.append(leaves[size:])
    log.close()
    TransparencyLog.open(folder, signer, remembered=then).close()


def test_a_remembered_checkpoint_of_another_key_is_refused(folder, log, signer, stranger):
    log.close()
    foreign = checkpoints.sign(stranger, ORIGIN, 0, bytes(32))
    with pytest.raises(CheckpointForged):
        TransparencyLog.open(folder, signer, remembered=foreign)


# --- damage ---


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"),
    ],
    ids=["missing", "truncated", "changed"],
)
def test_damaged_entries_are_noticed_when_the_log_is_opened(folder, log, signer, sealed, damage):
    log.append(sealed(5))
    log.close()
    damage(folder / "tile/entries/000.p/5")
    with pytest.raises(LogDamaged):
        TransparencyLog.open(folder, signer)


def test_a_foreign_checkpoint_slipped_in_between_stops_the_log(log, folder, signer, sealed):
    log.append(sealed(1))
    (folder / "checkpoint").write_text(checkpoints.sign(signer, ORIGIN, 9, bytes(32)))
    for _ in range(2):
        with pytest.raises(LogForked):
            log.append(sealed(2)[1:])


def test_a_checkpoint_that_vanished_in_between_stops_the_log(log, folder, sealed):
    log.append(sealed(1))
    (folder / "checkpoint").unlink()
    for _ in range(2):
        with pytest.raises(LogForked):
            log.append(sealed(2)[1:])


# --- disks that fail ---


STEPS_OF_WRITING = [(os, "pwrite"), (os, "fdatasync"), (os, "fsync"), (os, "write")]
STEPS_OF_WRITING += [(os, "rename"), (os, "unlink"), (os, "mkdir")]


@contextlib.contextmanager
def failing(monkeypatch, call, steps=STEPS_OF_WRITING):
    """Let the ``call``-th step of writing fail as a broken disk would."""
    calls = 0

    def breaking(real):
        def broken(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == call:
                raise OSError(5, "Input/output error")
            return real(*arguments, **options)

        return broken

    with monkeypatch.context() as patch:
        for module, name in steps:
            patch.setattr(module, name, breaking(getattr(module, name)))
        yield


SYNC = [(os, "fdatasync")]


@pytest.mark.parametrize("boundary", [4, 255], ids=["partial", "full-tile"])
@pytest.mark.parametrize("call", range(1, 16))
def test_a_failing_step_loses_nothing_and_signs_no_size_twice(
    *, folder, log, signer, sealed, monkeypatch, boundary, call
):
    leaves = sealed(boundary + 4)
    log.append(leaves[:boundary])
    kept = boundary
    with failing(monkeypatch, call), contextlib.suppress(LogUnwritable):
        log.append(leaves[boundary : boundary + 2])
        kept = boundary + 2
    seen = {}
    for leaf in leaves[boundary + 2 :]:
        remember(folder, signer, seen)
        log.append([leaf])
        remember(folder, signer, seen)
    assert log.size in {boundary + 2, boundary + 4}
    assert log.size >= kept + 2
    log.close()
    TransparencyLog.open(folder, signer, remembered=log.checkpoint()).close()
    verify_folder(folder, signer.public_key)


def published(folder, signer):
    return checkpoints.verify((folder / "checkpoint").read_bytes(), signer.public_key)


def remember(folder, signer, seen):
    """No size may ever be seen with two roots."""
    head = published(folder, signer)
    assert seen.setdefault(head.size, head.root) == head.root


def test_entries_that_may_be_on_disk_stay_in_the_log_though_they_were_refused(
    log, folder, signer, sealed, monkeypatch
):
    leaves = sealed(3)
    log.append(leaves[:1])
    with failing(monkeypatch, 1, SYNC), pytest.raises(LogUnwritable):
        log.append([leaves[1]])
    assert log.size == 1
    receipt = log.append([leaves[2]])[0]
    assert (receipt.index, log.size) == (2, 3)
    assert verify_folder(folder, signer.public_key).size == 3


def test_a_disk_that_keeps_failing_refuses_every_append(log, folder, signer, sealed, monkeypatch):
    leaves = sealed(3)
    log.append(leaves[:1])
    for call in range(1, 4):
        with failing(monkeypatch, 1, SYNC), pytest.raises(LogUnwritable):
            log.append([leaves[1]])
        assert (log.size, call) == (1, call)
    log.append([leaves[2]])
    assert verify_folder(folder, signer.public_key).size == log.size == 3


def test_a_full_disk_refuses_entries_and_takes_them_again_when_there_is_room(
    tmp_path, signer, sealed
):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        check_full_disk(disk, signer, sealed(200))
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def check_full_disk(disk, signer, leaves):
    log = TransparencyLog.create(disk / "log", ORIGIN, signer)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(500_000))
    refused, number, kept = None, 0, 0
    while refused is None:
        try:
            kept = log.append([leaves[number % len(leaves)]])[0].index + 1
            number += 1
        except LogUnwritable as error:
            refused = error
    assert refused.got == "No space left on device"
    assert published(disk / "log", signer).size == kept > 0
    for _ in range(3):
        with pytest.raises(LogUnwritable):
            log.append(leaves[:1])
    assert kept <= log.size <= kept + 1  # what is in the log although it was refused
    assert published(disk / "log", signer).size == kept
    ballast.unlink()
    assert log.append(leaves[:20])[0].index in {kept, kept + 1}
    log.close()
    assert verify_folder(disk / "log", signer.public_key).size == log.size


def test_a_file_size_limit_refuses_entries(log, folder, signer, sealed):
    leaves = sealed(40)
    log.append(leaves[:2])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(LogUnwritable):
            log.append(leaves[2:])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    log.append(leaves[2:4])
    assert verify_folder(folder, signer.public_key).size == log.size


def test_a_folder_that_is_gone_refuses_entries(log, folder, sealed):
    log.append(sealed(1))
    folder.rename(folder.with_name("elsewhere"))
    for _ in range(3):
        with pytest.raises((LogUnwritable, LogForked)):
            log.append(sealed(2)[1:])
    assert log.size <= 2  # the first refused ones may be in it: they were on disk


# --- crashes ---


class Crash(BaseException):
    """Power loss at one point of an append."""


def file_of(descriptor):
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


@contextlib.contextmanager
def crashing(monkeypatch, folder, call):
    """Stop at the ``call``-th step of writing; what was not synchronised is torn afterwards."""
    calls, torn = 0, {}

    def stopping(name, real):
        def step(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == call:
                raise Crash
            result = real(*arguments, **options)
            if name in ("write", "pwrite"):
                torn[file_of(arguments[0])] = None
            elif name in ("fsync", "fdatasync"):
                torn.pop(file_of(arguments[0]), None)
            return result

        return step

    with monkeypatch.context() as patch:
        for module, name in STEPS_OF_WRITING:
            patch.setattr(module, name, stopping(name, getattr(module, name)))
        yield
    for path in torn:
        if not path.endswith(("write-ahead", ".new")) and Path(path).is_file():
            os.truncate(path, Path(path).stat().st_size // 2)


@pytest.mark.parametrize("call", range(1, 12))
def test_other_entries_may_follow_a_failed_append_in_other_steps(
    *, folder, log, signer, sealed, monkeypatch, call
):
    # A leftover tile must not survive under a name that a later tree passes over.
    leaves = sealed(20)
    log.append(leaves[:4])
    with failing(monkeypatch, call), contextlib.suppress(LogUnwritable):
        log.append(leaves[4:7])
    log.append(leaves[10:12])
    log.append(leaves[12:16])
    log.close()
    verify_folder(folder, signer.public_key)


@pytest.mark.parametrize("boundary", [4, 255], ids=["partial", "full-tile"])
@pytest.mark.parametrize("call", range(1, 16))
def test_a_crash_at_any_point_loses_nothing_that_was_acknowledged(
    *, folder, log, signer, sealed, monkeypatch, boundary, call
):
    leaves = sealed(boundary + 6)
    log.append(leaves[:boundary])
    acknowledged, checkpoint = log.size, log.checkpoint()
    with crashing(monkeypatch, folder, call), contextlib.suppress(Crash):
        log.append(leaves[boundary : boundary + 3])
        acknowledged, checkpoint = log.size, log.checkpoint()
    log._sequencer._release()  # as the kernel does for a dead process
    log = TransparencyLog.open(folder, signer, remembered=checkpoint)
    assert log.size >= acknowledged
    # Other entries than those that were lost take their place and their files' names.
    log.append(leaves[boundary + 3 :])
    log.close()
    assert verify_folder(folder, signer.public_key).size == log.size


def test_what_a_crash_left_is_set_aside_and_kept(folder, log, signer, sealed):
    log.append(sealed(2))
    log.close()
    (folder / "tile/entries/000.p/3").write_bytes(b"torn")
    (folder / "checkpoint.new").write_bytes(b"torn")
    log = TransparencyLog.open(folder, signer)
    assert (folder / "uncommitted/2-tile-entries-000.p-3").read_bytes() == b"torn"
    assert not (folder / "checkpoint.new").exists()
    log.append(sealed(3)[2:])
    log.close()
    assert verify_folder(folder, signer.public_key).set_aside == 1


APPENDER = """
import json, sys
from pathlib import Path
from catena.audit.log import TransparencyLog
from catena.keys.signer import load_signer
folder, key = map(Path, sys.argv[1:])
log = TransparencyLog.create(folder, "log.example.org/fleet", load_signer(key))
while True:
    log.append([b"entry %d" % (log.size + n) for n in range(3)])
    print(json.dumps({"size": log.size, "checkpoint": log.checkpoint()}), flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_acknowledged(folder, tmp_path):
    private = generate_key(KeyAlgorithm.ED25519)
    write_key(tmp_path / "log.key", private)
    writer = subprocess.Popen(
        [sys.executable, "-c", APPENDER, folder, tmp_path / "log.key"], stdout=subprocess.PIPE
    )
    lines = [json.loads(writer.stdout.readline()) for _ in range(90)]
    writer.kill()
    lines += [json.loads(line) for line in writer.stdout if line.endswith(b"\n")]
    writer.stdout.close()
    writer.wait()
    log = TransparencyLog.open(
        folder, PrivateKeySigner(private), remembered=lines[-1]["checkpoint"]
    )
    assert log.size >= lines[-1]["size"] >= 270
    log.close()
