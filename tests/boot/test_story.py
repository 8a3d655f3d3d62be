"""The main job and its attacks, on real boots: what must be true of the demo's traces."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

pytestmark = pytest.mark.boot

STOPPED_BY = {
    "unsigned-image": ("gate", ("[image-unsigned]",)),
    "other-publisher": ("gate", ("[other-publisher]",)),
    "copied-signature": ("gate", ("[signed-for-another-repository]",)),
    "patched-layer": ("gate", ("[root-altered-layer]",)),
    "other-argv": ("gate", ("[launch-argv]",)),
    "gate-killed": ("wrapper", ("[gate-unreachable]",)),
    "record-edited": (
        "attestation",
        ("[container-record-altered]", "[container-record-unexplained]"),
    ),
    "unsigned-uki": ("firmware", ("Access Denied", "Security Violation")),
    "flipped-bit": ("kernel (dm-verity)", ("is corrupted",)),
    "unreleased-uki": ("attestation", ("digest differs",)),
    "secure-boot-off": ("attestation", ("SecureBoot",)),
    "moved-disk": ("enrolment and TPM", ("sealed-elsewhere",)),
}


def entries(story):
    answer = story.catena("audit", "verify", story.log, "--entries")
    assert answer.status == 0, answer.document
    return answer.document["entries"]


def test_the_story_ends_well(story):
    assert story.summary["node"] == "node-1"
    assert story.summary["secret_opened"] is True
    assert story.summary["log_entries"] > 10
    assert [told["attack"] for told in story.summary["attacks"]] == list(STOPPED_BY)


@pytest.mark.parametrize("attack", STOPPED_BY)
def test_attack_ends_where_it_must(story, attack):
    told = next(told for told in story.summary["attacks"] if told["attack"] == attack)
    place, words = STOPPED_BY[attack]
    assert told["stopped_by"] == place
    assert any(word in told["seen"] for word in words), told["seen"]


def test_the_story_is_told_a_line_a_step(story):
    lines = [line for line in story.told.splitlines() if line.startswith(("✓", "✗"))]
    assert len(lines) > 15
    assert all(line.startswith("✓") for line in lines)


def test_log_verifies_offline_and_counts_its_entries(story):
    answer = story.catena("audit", "verify", story.log)
    assert answer.status == 0
    assert answer.document["size"] == story.summary["log_entries"]
    assert answer.document["root"] == story.summary["log_root"]


def test_one_changed_byte_anywhere_in_the_log_is_found(story, tmp_path):
    """Every file of the log, one byte in the middle of each."""
    key = story.home / "keys/log.pub"
    files = sorted(path for path in story.log.rglob("*") if path.is_file())
    changed = [path for path in files if path.name != "lock" and path.stat().st_size]
    assert any("tile" in path.parts for path in changed)
    for number, path in enumerate(changed):
        copy = tmp_path / str(number)
        shutil.copytree(story.log, copy)
        target = copy / path.relative_to(story.log)
        content = bytearray(target.read_bytes())
        content[len(content) // 2] ^= 1
        target.write_bytes(content)
        answer = story.catena("audit", "verify", copy, "--key", key)
        assert answer.status == 20, (path, answer.document)
        assert answer.document["error"]["remedy"]


def test_every_grant_follows_a_trusted_verdict_of_the_same_node(story):
    """Certificates and secrets are entries behind a verdict `trusted`, and only there."""
    trusted = {}
    grants = 0
    for entry in entries(story):
        if entry["kind"] == "verdict":
            trusted[entry["node"]] = entry["summary"].startswith("trusted")
        if entry["kind"] in {"certificate", "secret-release"}:
            grants += 1
            assert trusted[entry["node"]], entry
    assert grants >= 4


def test_log_tells_each_start_and_each_refusal_once(story):
    told = [entry["summary"] for entry in entries(story) if entry["kind"] == "containers"]
    started = sum(int(text.split(": ")[1].split()[0]) for text in told)
    assert started == 3  # by runc, by containerd, and by runc behind the gate that came back
    for attack, (place, (seen, *_)) in STOPPED_BY.items():
        refusals = [text for text in told if f"{attack}-" in text]
        assert len(refusals) == (place == "gate"), attack
        assert all(f": {seen.strip('[]')}" in text for text in refusals)


def test_attacks_that_could_ask_left_their_denial_in_the_log(story):
    summaries = [entry["summary"] for entry in entries(story)]
    assert any("unclaimed-event" in text or "release" in text for text in summaries)
    assert any("unknown-node" in text for text in summaries)
    untrusted = [text for text in summaries if text.startswith("untrusted")]
    assert len(untrusted) >= 3, summaries


def test_secret_is_nowhere_in_clear(story):
    """Neither in the database, nor in a log, a console, a machine's disk or TPM state."""
    value = (story.home / "secret-for-comparison").read_bytes()
    assert len(value) >= 16
    leaks = [
        path
        for path in story.home.rglob("*")
        if path.is_file() and path.name != "secret-for-comparison" and _holds(path, value)
    ]
    assert leaks == []


def test_admin_token_is_kept_only_as_its_hash(story):
    token = (story.home / "server/admin.token").read_text().strip().encode()
    files = [path for path in (story.home / "server").rglob("*") if path.is_file()]
    assert [path.name for path in files if _holds(path, token)] == ["admin.token"]


def test_database_is_whole_after_the_machines_were_cut_off(story):
    with sqlite3.connect(story.home / "server/catena.db") as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    database.close()


def _holds(path: Path, value: bytes) -> bool:
    """Whether a file holds the value; read in pieces that overlap."""
    overlap = len(value) - 1
    with path.open("rb") as file:
        tail = b""
        while chunk := file.read(1 << 22):
            if value in tail + chunk:
                return True
            tail = chunk[-overlap:]
    return False
