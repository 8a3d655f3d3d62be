"""Several servers that write to one log at once, while one is killed and the database restarts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from audit_samples import ORIGIN
from places import OpenLog, copy, create

from catena.audit import checkpoint as checkpoints
from catena.audit import merkle, tiles
from catena.audit.database import DatabaseSequencer, DatabaseStorage
from catena.audit.folder import LogExists, LogMissing
from catena.audit.log import LogUnwritable, TransparencyLog
from catena.audit.past import LogForked
from catena.audit.storage import Batch, CheckpointMoved, TileConflict
from catena.audit.tiles import Tile
from catena.audit.verify import verify_folder
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key, load_signer, write_key
from catena.store.database import Database
from postgres import PostgreSQL

HERE = Path(__file__).resolve().parent


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "log.key"
    write_key(path, generate_key(KeyAlgorithm.ED25519))
    return path


class Replica:
    """A server in a process of its own, and what it acknowledged."""

    def __init__(self, kind, where, key, name):
        self._arguments = [kind, str(where), str(key), str(name)]
        self.lines = []
        self.start()

    def start(self):
        path = os.pathsep.join([str(HERE), *filter(None, sys.path)])
        self._process = subprocess.Popen(
            [sys.executable, HERE / "replica.py", *self._arguments],
            env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )

    def acknowledge(self, count):
        """Wait for that many more lines of acknowledged appends."""
        while count:
            line = json.loads(self._process.stdout.readline())
            self.lines.append(line)
            count -= "indices" in line

    def kill(self):
        self._process.send_signal(signal.SIGKILL)
        rest = self._process.stdout.read()
        self.lines += [json.loads(line) for line in rest.splitlines(True) if line.endswith("\n")]
        self._process.stdout.close()
        self._process.wait()

    @property
    def acknowledged(self):
        return [line for line in self.lines if "indices" in line]


def check(kind, where, key, replicas, folder):
    """All that was acknowledged is there, and no size was signed with two roots."""
    signer = load_signer(key)
    with OpenLog(kind, where, signer) as log:
        size = log.size
    copy(kind, where, folder)
    assert verify_folder(folder, signer.public_key, origin=ORIGIN).size == size
    leaves = {}
    for index in range(-(-size // 256)):
        tile = Tile(None, index, tiles.width_at(None, index, size))
        entries = tiles.parse_bundle((folder / tile.path).read_bytes(), tile.width)
        for number, entry in enumerate(entries, index * 256):
            leaves[number] = merkle.leaf_hash(entry).hex()
    roots = {}
    for line in [line for replica in replicas for line in replica.acknowledged]:
        head = checkpoints.verify(line["checkpoint"].encode(), signer.public_key)
        assert roots.setdefault(head.size, head.root) == head.root
        for index, leaf in zip(line["indices"], line["leaves"], strict=True):
            assert leaves[index] == leaf
    return size


@pytest.mark.parametrize("kind", ["database", "bucket"])
def test_two_servers_write_at_once_while_one_is_killed_again_and_again(
    request, postgresql, key, tmp_path, kind
):
    where = postgresql.new_database()
    if kind == "bucket":
        where = f"{where}|{request.getfixturevalue('ceph').new_bucket('replicas')}"
    create(kind, where, load_signer(key))
    steady, killed = Replica(kind, where, key, 1), Replica(kind, where, key, 2)
    try:
        for _ in range(5):
            killed.acknowledge(6)
            steady.acknowledge(6)
            killed.kill()
            steady.acknowledge(3)
            killed.start()
    finally:
        killed.kill()
        steady.kill()
    size = check(kind, where, key, (steady, killed), tmp_path / "copy")
    acknowledged = len(steady.acknowledged) + len(killed.acknowledged)
    assert acknowledged >= 75
    assert size >= 2 * acknowledged
    # On a busy machine a turn may end before the storage has answered: refused, and nothing lost.
    refused = [line["refused"] for line in steady.lines if "refused" in line]
    assert set(refused) <= {"log-unwritable"}
    assert len(refused) < len(steady.acknowledged) // 4


def test_a_database_that_restarts_is_ridden_out(key, tmp_path, own_postgresql):
    url = own_postgresql.new_database()
    create("database", url, load_signer(key))
    replicas = Replica("database", url, key, 1), Replica("database", url, key, 2)
    try:
        for _ in range(2):
            for replica in replicas:
                replica.acknowledge(10)
            own_postgresql.control("stop", "-m", "immediate")
            own_postgresql.start()
        for replica in replicas:
            replica.acknowledge(10)
    finally:
        for replica in replicas:
            replica.kill()
    check("database", url, key, replicas, tmp_path / "copy")
    refused = {line["refused"] for one in replicas for line in one.lines if "refused" in line}
    assert refused <= {"log-unwritable", "log-unreadable", "database-gone"}


@pytest.fixture
def own_postgresql():
    server = PostgreSQL()
    yield server
    server.close()


# --- one after the other, on either database ---


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'catena.db'}"
    return request.getfixturevalue("postgresql").new_database()


@pytest.fixture
def database(url):
    opened = Database.create(url)
    yield opened
    opened.close()


def open_log(database, signer, **options):
    return TransparencyLog.open_at(
        DatabaseSequencer(database, ORIGIN), DatabaseStorage(database, ORIGIN), signer, **options
    )


def create_log(database, signer):
    return TransparencyLog.create_at(
        DatabaseSequencer(database, ORIGIN), DatabaseStorage(database, ORIGIN), ORIGIN, signer
    )


def test_servers_take_turns_and_know_each_others_entries(database, signer, sealed, tmp_path):
    first = create_log(database, signer)
    second = open_log(database, signer)
    leaves = sealed(700)
    done = 0
    for number, step in enumerate([1, 2, 250, 5, 1, 1, 300, 140]):
        log = (first, second)[number % 2]
        receipts = log.append(leaves[done : done + step])
        assert [receipt.index for receipt in receipts] == list(range(done, done + step))
        done += step
    first.close()
    with pytest.raises(LogUnwritable, match="closed"):
        first.append(leaves[:1])
    second.close()
    database_url = str(database._engine.url.render_as_string(hide_password=False))
    folder = copy("database", database_url, tmp_path / "copy")
    assert verify_folder(folder, signer.public_key, origin=ORIGIN).size == done == 700


def test_a_server_that_published_nothing_is_helped_by_the_next(database, signer, sealed):
    first = create_log(database, signer)
    first.publish_behind(3600)
    first.append(sealed(3))
    storage = DatabaseStorage(database, ORIGIN)
    assert b"\n0\n" in storage.read("checkpoint", 1000)
    second = open_log(database, signer, remembered=first.checkpoint())
    assert (second.size, b"\n3\n" in storage.read("checkpoint", 1000)) == (3, True)
    second.append(sealed(4)[3:])
    first._publisher.stop()  # late, and overtaken
    first.publish()
    assert b"\n4\n" in storage.read("checkpoint", 1000)
    second.close()


def test_a_log_is_founded_once(database, signer):
    create_log(database, signer).close()
    with pytest.raises(LogExists):
        create_log(database, signer)


def test_a_log_that_is_not_there_is_not_opened(database, signer):
    with pytest.raises(LogMissing):
        open_log(database, signer)


def test_a_founding_that_was_cut_short_is_completed(database, signer, sealed):
    text = checkpoints.sign(signer, ORIGIN, 0, merkle.EMPTY_ROOT)
    DatabaseSequencer(database, ORIGIN).found(text)
    log = open_log(database, signer)
    assert log.append(sealed(1))[0].index == 0
    log.close()


def test_a_turn_whose_state_moved_commits_nothing(database, signer, sealed):
    log = create_log(database, signer)
    log.append(sealed(1))
    sequencer = DatabaseSequencer(database, ORIGIN)
    with sequencer.turn() as turn:
        stale = turn._state
    log.append(sealed(2)[1:])
    with pytest.raises(LogUnwritable, match="moved"):
        commit_from(sequencer, stale, Batch(7, 1, b"\x00\x01x", log.checkpoint()))
    assert log.append(sealed(3)[2:])[0].index == 2
    log.close()


def commit_from(sequencer, state, batch):
    with sequencer.turn() as turn:
        turn._state = state
        turn.commit(batch)


def test_a_full_tile_with_other_content_is_refused(database, signer):
    storage = DatabaseStorage(database, ORIGIN)
    storage.put([(Tile(0, 0), bytes(8192))])
    storage.put([(Tile(0, 0), bytes(8192))])
    with pytest.raises(TileConflict):
        storage.put([(Tile(0, 0), bytes(8191) + b"!")])
    assert storage.read("tile/0/000", 8192) == bytes(8192)


def test_a_checkpoint_is_compared_before_it_is_swapped(database):
    storage = DatabaseStorage(database, ORIGIN)
    storage.swap_checkpoint(None, b"one")
    for old in (None, b"two"):
        with pytest.raises(CheckpointMoved):
            storage.swap_checkpoint(old, b"three")
    storage.swap_checkpoint(b"one", b"two")
    assert storage.read("checkpoint", 100) == b"two"


def test_a_published_checkpoint_that_the_log_never_had_stops_it(database, signer, sealed):
    log = create_log(database, signer)
    log.append(sealed(1))
    storage = DatabaseStorage(database, ORIGIN)
    foreign = checkpoints.sign(signer, ORIGIN, 9, bytes(32)).encode()
    storage.swap_checkpoint(log.checkpoint().encode(), foreign)
    log.append(sealed(2)[1:])  # another server may have published it
    with pytest.raises(LogForked):
        log.append(sealed(3)[2:])
    log.close()


def test_a_gone_database_refuses_entries(tmp_path, signer, sealed):
    database = Database.create(f"sqlite:///{tmp_path / 'catena.db'}")
    log = create_log(database, signer)
    log.append(sealed(1))
    with database.transaction() as rows:
        rows.log_states._connection.exec_driver_sql("DROP TABLE log_batches")
    with pytest.raises(LogUnwritable):
        log.append(sealed(2)[1:])
    log.close()
    database.close()


def test_another_key_is_refused(database, signer):
    create_log(database, signer).close()
    stranger = PrivateKeySigner(generate_key(KeyAlgorithm.ED25519))
    with pytest.raises(checkpoints.CheckpointForged):
        open_log(database, stranger)
