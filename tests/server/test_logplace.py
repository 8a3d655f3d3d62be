"""Where a server's log lies, as its settings say."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime

import msgspec
import pytest

from catena.audit import checkpoint as checkpoints
from catena.keys.hierarchy import KeyName
from catena.keys.signer import ExposedKey, MissingKey, UnusableKey
from catena.server.bucket import BadBucket
from catena.server.config import BadConfig
from catena.server.folder import open_server
from catena.server.founding import Sources, init
from ceph import CREDENTIALS, REGION
from service.fixtures import make_server, put_secret


def now():
    return datetime.now(UTC)


def make(folder, keys, **places):
    """A server whose log lies elsewhere; its settings are those of one that has a folder."""
    model = make_server(folder.with_name(f"{folder.name}-model"), keys)
    model.opened.close()
    config = msgspec.structs.replace(model.opened.config, release_keys=(), **places)
    init(folder, Sources(keys=keys, config=config, now=now, random=os.urandom))
    return folder


def run(folder):
    return open_server(folder, now=now, random=os.urandom)


@pytest.fixture
def credentials(tmp_path):
    path = tmp_path / "s3.credentials"
    path.write_text(f"{CREDENTIALS.access_key}\n{CREDENTIALS.secret_key}\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("place", ["database", "bucket"])
def test_two_servers_write_to_one_log(*, request, tmp_path, keys, postgresql, credentials, place):
    places = {"database": postgresql.new_database(), "log": "database:"}
    if place == "bucket":
        places["log"] = request.getfixturevalue("ceph").new_bucket("servers")
        places["log_s3_credentials"] = str(credentials)
        places["log_s3_region"] = REGION
    first = run(make(tmp_path / "first", keys, **places))
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    second = run(tmp_path / "second")
    for number in range(3):
        put_secret(first.service, f"a{number}", "web")
        put_secret(second.service, f"b{number}", "web")
    assert second.log.size == 7
    first.close()
    second.close()
    again = run(tmp_path / "first")
    head = checkpoints.verify(again.log.checkpoint().encode(), keys.signer(KeyName.LOG).public_key)
    assert head.size == 7
    assert not (tmp_path / "first/log").exists()
    again.close()


def test_a_log_that_is_published_behind_is_whole_after_the_server_ends(tmp_path, keys):
    server = run(make(tmp_path / "server", keys, log_publish_ms=50))
    put_secret(server.service, "a", "web")
    server.close()
    head = (tmp_path / "server/log/checkpoint").read_text()
    assert head == server.log.checkpoint()
    assert head.splitlines()[1] == "2"


@pytest.mark.parametrize("log", ["postgresql://host/x", "database:other", "https://host/logs"])
def test_a_place_that_is_none_is_refused(tmp_path, keys, log):
    with pytest.raises(BadConfig, match="place"):
        make(tmp_path / "server", keys, log=log)
    assert not (tmp_path / "server").exists()


def test_object_storage_needs_a_usable_address_and_credentials(tmp_path, keys, credentials):
    places = {"log": "s3+https://127.0.0.1:1/logs"}
    with pytest.raises(BadBucket):
        make(tmp_path / "a", keys, log="s3+http://s3.example.org/logs")
    with pytest.raises(BadConfig, match="log_s3_credentials"):
        make(tmp_path / "b", keys, **places)
    places["log_s3_credentials"] = str(tmp_path / "none")
    with pytest.raises(MissingKey):
        make(tmp_path / "c", keys, **places)
    places["log_s3_credentials"] = str(credentials)
    credentials.chmod(0o644)
    with pytest.raises(ExposedKey):
        make(tmp_path / "d", keys, **places)
    credentials.chmod(0o600)
    credentials.write_text("only one line of secrets\n")
    with pytest.raises(UnusableKey) as caught:
        make(tmp_path / "e", keys, **places)
    assert "only one line" not in f"{caught.value!r} {caught.value}"
