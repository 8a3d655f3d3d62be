"""A log written here, read by others: a second reader from the specs, and Go's own packages."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import independent_reader
import pytest
from audit_samples import ORIGIN, tree_of
from independent_reader import Wrong, read_log, root_from_path, tree_hash

from catena.audit import checkpoint as checkpoints
from catena.audit import cosigned, merkle
from catena.audit.log import TransparencyLog
from catena.formats import note
from catena.formats.note import Note
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key, public_pem

READER = Path(independent_reader.__file__)
GO_READER = Path(__file__).with_name("go_reader.go")
SIZES = (1, 2, 255, 256, 257, 600)
WITNESSES = {name: PrivateKeySigner(generate_key(KeyAlgorithm.ED25519)) for name in ("w1", "w2")}
KEYS = [cosigned.cosigner_key(name, one.public_key).encode() for name, one in WITNESSES.items()]


@pytest.fixture(scope="module")
def written(tmp_path_factory, signer, sealed):
    """A log as it stood at each size, its receipts, and a cosigned checkpoint beside it."""
    place = tmp_path_factory.mktemp("written")
    log = TransparencyLog.create(place / "growing", ORIGIN, signer)
    receipts = []
    for size in SIZES:
        receipts += log.append(sealed(size)[log.size :])
        site = place / str(size)
        shutil.copytree(place / "growing", site / "log")
        signed = note.parse(log.checkpoint().encode())
        lines = [
            cosigned.cosign(one, name, signed.text, 1_700_000_000)
            for name, one in WITNESSES.items()
        ]
        cosigned_note = Note(signed.text, (*signed.signatures, *lines)).encode()
        (site / "checkpoint.cosigned").write_text(cosigned_note)
        (site / "log.pub").write_bytes(public_pem(signer.public_key))
    log.close()
    return place, receipts


def read(site: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-I", str(READER), str(site / "log"), str(site / "log.pub")]
    return subprocess.run([*command, *options], capture_output=True, text=True, check=False)


def test_it_shares_no_code_with_what_it_reads():
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(READER.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
        )
    }
    assert imported - set(sys.stdlib_module_names) == {"cryptography"}


@pytest.mark.parametrize("size", SIZES)
def test_a_log_written_here_holds_for_a_second_reader(written, size):
    run = read(written[0] / str(size), "--witness", KEYS[0], "--witness", KEYS[1], "--quorum", "2")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert (found["origin"], found["size"], found["cosigned_by"]) == (ORIGIN, size, ["w1", "w2"])
    assert len(found["kinds"]) == min(size, 4)


def test_every_receipt_holds_for_a_second_reader(written, signer):
    for index, receipt in enumerate(written[1]):
        _, size, root = independent_reader.read_checkpoint(
            receipt.checkpoint.encode(), signer.public_key.public_bytes_raw()
        )
        leaf = hashlib.sha256(b"\x00" + receipt.extra).digest()
        assert root_from_path(index, size, leaf, list(receipt.hashes)) == root


def test_both_trees_are_one(written):
    leaves = [merkle.leaf_hash(f"{number}".encode()) for number in range(70)]
    for size in range(70):
        assert merkle.Frontier().extend(leaves[:size]).root() == tree_hash(leaves[:size])


def test_the_second_reader_notices_what_is_changed(written, signer, tmp_path):
    """It must be able to say no: one bit of each file, at a place of its own."""
    public = signer.public_key.public_bytes_raw()
    order = random.Random(5)
    site = tmp_path / "site"
    shutil.copytree(written[0] / "257", site)
    names = [
        name
        for name in tree_of(site / "log")
        if name.startswith(("tile/", "checkpoint")) and ".p/" not in name.replace(".p/1", "")
    ]
    assert len(names) >= 4
    read_log(site / "log", public)
    for name in names:
        path = site / "log" / name
        content = path.read_bytes()
        for _ in range(4):
            changed = bytearray(content)
            changed[order.randrange(len(changed))] ^= 1 << order.randrange(7)
            path.write_bytes(changed)
            with pytest.raises((Wrong, OSError, ValueError, KeyError)):
                read_log(site / "log", public)
        path.write_bytes(content)
    read_log(site / "log", public)


def test_the_second_reader_demands_its_quorum(written, signer):
    place = written[0]
    other = cosigned.cosigner_key("w3", signer.public_key).encode()
    run = read(place / "2", "--witness", KEYS[0], "--witness", other, "--quorum", "2")
    assert (run.returncode, run.stderr) == (1, "wrong: 1 witnesses cosigned, and 2 must have\n")
    forked = ("--witness", KEYS[0], "--cosigned", str(place / "256/checkpoint.cosigned"))
    assert "does not contain" in read(place / "2", *forked).stderr


# Go -----------------------------------------------------------------------------------------

GO_PATH = Path("/usr/share/gocode")
"""Where Debian puts the sources of Go packages."""
needs_go = pytest.mark.skipif(
    not shutil.which("go") or not (GO_PATH / "src/golang.org/x/mod/sumdb/tlog").is_dir(),
    reason="golang-go or golang-golang-x-mod-dev is not installed",
)


@pytest.fixture(scope="module")
def go_reader(tmp_path_factory):
    place = tmp_path_factory.mktemp("go")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(place),
        "GOPATH": str(GO_PATH),
        "GOCACHE": str(place / "cache"),
        "GO111MODULE": "off",
        "CGO_ENABLED": "0",
    }
    command = ["go", "build", "-o", str(place / "go_reader"), str(GO_READER)]
    built = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return place / "go_reader"


def go_read(go_reader: Path, site: Path, key: str, cosigned_path: Path, *witnesses: str):
    command = [go_reader, site / "log", key, cosigned_path, *witnesses]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@needs_go
def test_a_log_written_here_holds_for_gos_packages(written, signer, go_reader):
    place, _ = written
    key = checkpoints.verifier_key(ORIGIN, signer.public_key).encode()
    for older, size in ((1, 1), (1, 2), (2, 255), (255, 256), (256, 257), (257, 600), (1, 600)):
        head = place / str(older) / "checkpoint.cosigned"
        run = go_read(go_reader, place / str(size), key, head, *KEYS)
        assert run.stdout == f"{size} {ORIGIN} w1 w2\n", run.stderr


@needs_go
def test_gos_packages_notice_what_is_changed(written, signer, go_reader, tmp_path):
    key = checkpoints.verifier_key(ORIGIN, signer.public_key).encode()
    head = written[0] / "256/checkpoint.cosigned"
    site = tmp_path / "site"
    shutil.copytree(written[0] / "600", site)
    for name in ("checkpoint", "tile/0/001", "tile/1/000.p/2", "tile/entries/002.p/88"):
        path = site / "log" / name
        content = path.read_bytes()
        path.write_bytes(content[:20] + bytes([content[20] ^ 1]) + content[21:])
        assert go_read(go_reader, site, key, head, *KEYS).returncode == 1, name
        path.write_bytes(content)
    assert go_read(go_reader, site, key, head, *KEYS).returncode == 0
    other = written[0] / "257/checkpoint.cosigned"
    assert go_read(go_reader, written[0] / "256", key, other, *KEYS).returncode != 0
