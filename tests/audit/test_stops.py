"""Writers of a log that are killed, or whose disk fails or is full, at every step of an append."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from audit_samples import ORIGIN
from places import copy, create

from catena.audit import checkpoint as checkpoints
from catena.audit.verify import verify_folder
from catena.keys.signer import KeyAlgorithm, generate_key, load_signer, write_key

HERE = Path(__file__).resolve().parent
MANNERS = {"killed-before": 0, "killed-behind": 1, "input-output-error": 2, "no-space": 3}


@pytest.fixture(scope="session")
def stops(tmp_path_factory):
    """The library that stops a process at a step, compiled here."""
    library = tmp_path_factory.mktemp("stops") / "stops.so"
    source = HERE / "stops.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "log.key"
    write_key(path, generate_key(KeyAlgorithm.ED25519))
    return path


def run_writer(stops, key, kind, where, manner, *sizes):
    arguments = [kind, str(where), key, str(MANNERS[manner]), *map(str, sizes)]
    environment = os.environ | {
        "LD_PRELOAD": str(stops),
        "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)]),
    }
    ran = subprocess.run(
        [sys.executable, HERE / "stopped_writer.py", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def check(kind, where, key, outcome, folder):
    signer = load_signer(key)
    summary = verify_folder(copy(kind, where, folder), signer.public_key, origin=ORIGIN)
    known = checkpoints.verify(outcome["checkpoint"].encode(), signer.public_key)
    assert (summary.size, summary.root) == (known.size, known.root.hex())


@pytest.mark.parametrize("manner", MANNERS)
def test_a_folder_loses_nothing_wherever_its_writer_stops(stops, key, folder, tmp_path, manner):
    create("folder", folder, load_signer(key))
    outcome = run_writer(stops, key, "folder", folder, manner, 3, 260)
    assert outcome["stopped"] >= 12
    verify_folder(folder, load_signer(key).public_key, origin=ORIGIN)
    check("folder", folder, key, outcome, tmp_path / "copy")


@pytest.mark.parametrize("manner", ["killed-before", "killed-behind"])
def test_a_database_loses_nothing_wherever_its_writer_stops(
    stops, key, postgresql, tmp_path, manner
):
    url = postgresql.new_database()
    create("database", url, load_signer(key))
    outcome = run_writer(stops, key, "database", url, manner, 3, 260)
    assert outcome["stopped"] >= 12
    check("database", url, key, outcome, tmp_path / "copy")


@pytest.mark.parametrize("manner", ["killed-before", "killed-behind"])
def test_a_bucket_loses_nothing_wherever_its_writer_stops(
    *, stops, key, postgresql, ceph, tmp_path, manner
):
    where = f"{postgresql.new_database()}|{ceph.new_bucket(f'stops-{manner}')}"
    create("bucket", where, load_signer(key))
    outcome = run_writer(stops, key, "bucket", where, manner, 260)
    assert outcome["stopped"] >= 12
    check("bucket", where, key, outcome, tmp_path / "copy")
