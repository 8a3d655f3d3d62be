"""Questions about a log, answered from an index that is never believed."""

from __future__ import annotations

import json
import shutil
import sqlite3
from datetime import timedelta

import pytest
from audit_samples import NODE, NOON, ORIGIN

from catena.audit.entries import (
    Approval,
    ContainersRecorded,
    Denial,
    Enrolment,
    LoggedContainerEvent,
    LoggedReason,
    SecretReleased,
    Verdict,
)
from catena.audit.folder import LogFolder
from catena.audit.index import IndexUnusable, NotAnIndex
from catena.audit.leaf import seal_entry
from catena.audit.log import TransparencyLog
from catena.audit.search import IndexAltered, Query, UnloggedNode, search
from catena.audit.verify import EntryForged, RootMismatch, TileMissing
from catena.cli.main import run
from catena.errors import ExitCode

OTHER = "b" * 64
IMAGE = "sha256:" + "1" * 64
REFUSED = "sha256:" + "2" * 64
DIGEST = "d" * 64


def at(minutes: float):
    return NOON + timedelta(minutes=minutes)


def verdict(minutes, node=NODE, name="n1", verdict="trusted", **more):
    more.setdefault("state", verdict)
    return Verdict(
        at=at(minutes),
        actor=node,
        node_id=node,
        node_name=name,
        verdict=verdict,
        evidence_sha256=DIGEST,
        **more,
    )


def about(minutes, node=NODE, name="n1"):
    return {"at": at(minutes), "actor": node, "node_id": node, "node_name": name}


def story():
    """Two nodes: n1 boots two releases and runs a container, n2 fails."""
    events = (
        LoggedContainerEvent(record=0, kind="create", container="web", image=IMAGE),
        LoggedContainerEvent(record=1, kind="deny", container="bad", image=REFUSED, code="x"),
    )
    tampered = LoggedReason(code="unclaimed-event", message="what is this")
    return [
        Enrolment(
            **about(0, name=None), ak_sha256=DIGEST, ek_root="v", mode="approve", state="pending"
        ),
        Approval(**about(1), ak_sha256=DIGEST, role="web"),
        verdict(2, release="edge-1"),
        SecretReleased(**about(2), secret="db-password", version=1),
        verdict(3, OTHER, "n2", release="edge-1"),
        verdict(4, OTHER, "n2", "untrusted", reasons=(tampered,), reasons_total=1),
        verdict(30, release="edge-2"),
        ContainersRecorded(
            **about(30),
            evidence_sha256=DIGEST,
            record_sha256=DIGEST,
            record_size=9,
            first=0,
            last=1,
            started=1,
            refused=1,
            events=events,
        ),
        Denial(
            at=at(31),
            actor="server",
            request="attest",
            code="nonce-stale",
            message="late",
            node_id=OTHER,
            request_sha256=DIGEST,
        ),
    ]


@pytest.fixture
def told(log, signer):
    log.append([seal_entry(signer, entry) for entry in story()])
    return log


@pytest.fixture
def ask(told, folder, signer, tmp_path):
    def ask(**query):
        options = {name: query.pop(name) for name in ("rebuild", "origin") if name in query}
        return search(
            LogFolder(folder),
            signer.public_key,
            Query(**query),
            index=tmp_path / "index",
            **options,
        )

    return ask


def numbers(result):
    return [hit.index for hit in result.hits]


def names(result):
    return [node.name for node in result.nodes]


def test_who_ever_booted_a_release(ask):
    found = ask(what="release", values=("edge-1",))
    assert (numbers(found), names(found)) == ([2, 4], ["n1", "n2"])
    assert numbers(ask(what="release", values=("edge-2",))) == [6]
    assert numbers(ask(what="release", values=("edge",))) == []


def test_who_ran_an_image_and_not_who_was_refused_it(ask):
    assert numbers(ask(what="image", values=(IMAGE,))) == [7]
    assert numbers(ask(what="image", values=(REFUSED,))) == []


def test_who_held_a_secret(ask):
    found = ask(what="secret", values=("db-password",))
    assert (numbers(found), names(found)) == ([3], ["n1"])


def test_who_was_trusted_at_a_time(ask):
    assert numbers(ask(at=at(1))) == []
    assert names(ask(at=at(3))) == ["n1", "n2"]
    assert names(ask(at=at(5))) == ["n1"]  # n2 failed a minute before
    assert names(ask(at=at(15))) == []  # n1's verdict had expired
    assert names(ask(at=at(15), lifetime=timedelta(hours=1))) == ["n1"]
    assert numbers(ask(at=at(31))) == [6]


def test_who_failed_and_why(ask):
    found = ask(what="failed")
    assert [(hit.index, hit.found) for hit in found.hits] == [
        (5, ("unclaimed-event",)),
        (8, ("nonce-stale",)),
    ]
    assert numbers(ask(what="failed", values=("nonce-stale",))) == [8]


def test_filters(ask):
    assert numbers(ask(node="n2")) == [4, 5, 8]  # the denial only claims to be n2's
    assert numbers(ask(node="bbbb")) == [4, 5, 8]
    assert numbers(ask(node="n1", since=at(2), until=at(3))) == [2, 3]
    assert numbers(ask(what="failed", node="n1")) == []
    assert numbers(ask()) == list(range(9))
    for name in ("n3", "bbb", "n_", "%"):
        with pytest.raises(UnloggedNode):
            ask(node=name)


def test_the_index_grows_with_the_log(ask, told, signer):
    assert ask().index == "built"
    assert ask().index == "current"
    told.append([seal_entry(signer, verdict(32 + number)) for number in range(600)])
    found = ask(what="release", values=("edge-1",))
    assert (found.index, found.size, numbers(found)) == ("grown by 600 entries", 609, [2, 4])
    assert ask(rebuild=True).index == "rebuilt"
    assert numbers(ask(node="n1", since=at(632 - 1))) == [608]


def test_an_index_of_another_or_an_older_log_is_thrown_away(ask, told, folder, signer, tmp_path):
    ask()
    elsewhere = TransparencyLog.create(tmp_path / "elsewhere", "elsewhere.example/log", signer)
    elsewhere.append([seal_entry(signer, verdict(0))])
    asked = Query(what="release", values=("edge-1",))
    found = search(
        LogFolder(tmp_path / "elsewhere"), signer.public_key, asked, index=tmp_path / "index"
    )
    assert (found.index, numbers(found)) == ("rebuilt: the index is of another log", [])
    elsewhere.close()
    assert ask().index == "rebuilt: the index is of another log"


def test_an_index_of_a_log_that_was_rewritten_is_thrown_away(ask, told, folder, signer):
    """Same origin, same key, same size, another history: what was indexed does not lead there."""
    ask()
    told.close()
    shutil.rmtree(folder)
    forked = TransparencyLog.create(folder, ORIGIN, signer)
    forked.append([seal_entry(signer, verdict(number, release="evil-1")) for number in range(10)])
    found = ask(what="release", values=("edge-1",))
    assert found.index == "rebuilt: the log does not grow out of what the index covers"
    assert numbers(found) == []
    forked.close()
    shutil.rmtree(folder)
    shorter = TransparencyLog.create(folder, ORIGIN, signer)
    shorter.append([seal_entry(signer, verdict(1))])
    assert ask().index == "rebuilt: the index covers more than the log has"
    shorter.close()


def test_only_entries_that_hold_get_in(ask, told, signer, stranger, folder):
    ask()
    told.append([seal_entry(stranger, verdict(40, release="evil-1"))])
    with pytest.raises(EntryForged):
        ask(what="release", values=("evil-1",))
    with pytest.raises(EntryForged):
        ask(rebuild=True)


def test_a_log_that_does_not_lead_to_its_root_is_not_indexed(ask, folder, signer):
    bundle = folder / "tile/entries/000.p/9"
    first = seal_entry(signer, story()[0])
    other = seal_entry(signer, verdict(0))
    content = bundle.read_bytes()[2 + len(first) :]
    bundle.write_bytes(len(other).to_bytes(2, "big") + other + content)
    with pytest.raises(RootMismatch):
        ask()
    bundle.unlink()
    with pytest.raises(TileMissing):
        ask()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE facts SET value = 'edge-9' WHERE value = 'edge-1'",
        "UPDATE facts SET entry = 0 WHERE value = 'edge-2'",
    ],
)
def test_what_a_changed_index_claims_is_not_shown(ask, tmp_path, change):
    ask()
    with sqlite3.connect(tmp_path / "index") as rows:
        rows.execute(change)
    rows.close()
    with pytest.raises(IndexAltered):
        ask(what="release", values=("edge-9", "edge-2"))
    assert numbers(ask(what="release", values=("edge-1", "edge-2"), rebuild=True)) == [2, 4, 6]


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM entries WHERE id = 4",
        "UPDATE covered SET size = 8",
        "UPDATE covered SET edge = x''",
        "UPDATE covered SET edge = 'text'",
        "UPDATE covered SET root = x'00'",
        "UPDATE covered SET format = 0",
        "DELETE FROM covered",
    ],
)
def test_a_damaged_index_is_built_anew(ask, tmp_path, change):
    ask()
    with sqlite3.connect(tmp_path / "index") as rows:
        rows.execute(change)
    rows.close()
    found = ask(what="release", values=("edge-1",))
    assert found.index.startswith("rebuilt: ")
    assert numbers(found) == [2, 4]


def test_a_file_that_is_no_index_is_left_alone(ask, tmp_path):
    (tmp_path / "index").write_bytes(b"my diary")
    with pytest.raises(NotAnIndex):
        ask(rebuild=True)
    assert (tmp_path / "index").read_bytes() == b"my diary"
    (tmp_path / "index").unlink()
    sqlite3.connect(tmp_path / "index").execute("CREATE TABLE mine (a)").connection.close()
    with pytest.raises(NotAnIndex):
        ask()


def test_an_index_that_cannot_be_used_is_said_to_be(ask, tmp_path):
    ask()
    content = (tmp_path / "index").read_bytes()
    (tmp_path / "index").write_bytes(content[:100] + b"\xff" * (len(content) - 100))
    with pytest.raises(IndexUnusable):
        ask()
    (tmp_path / "index").unlink()
    (tmp_path / "index").mkdir()
    with pytest.raises(IndexUnusable):
        ask()


def test_the_command(*, told, folder, key, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    words = ["audit", "search", str(folder), "--key", key, "--index", str(tmp_path / "i")]
    assert run([*words, "--image", IMAGE.removeprefix("sha256:"), "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [hit["index"] for hit in document["hits"]] == [7]
    assert document["nodes"][0]["node"] == NODE
    assert run([*words, "--failed", "--entries"]) == 0
    out = capsys.readouterr().out
    assert "unclaimed-event" in out
    assert "2 entries about 1 nodes, in 9 entries of " + ORIGIN in out
    assert run([*words, "--trusted-at", "2026-03-01T13:03:00+01:00"]) == 0
    assert "2 entries about 2 nodes" in capsys.readouterr().out
    assert run([*words, "--secret", "a", "--release", "b"]) == 2
    assert run([*words, "--since", "yesterday"]) == 2
    assert run([*words, "--node", "n9"]) == 3
    assert run([*words, "--origin", "other.example/log"]) == 20


def test_a_log_behind_a_url_is_searched_like_a_folder(*, told, folder, url, key, tmp_path, answer):
    question = ("--key", key, "--release", "edge-1", "--index")
    code, local = answer("audit", "search", folder, *question, tmp_path / "local")
    assert (code, len(local["hits"])) == (0, 2)
    assert answer("audit", "search", url, *question, tmp_path / "remote") == (0, local)
    assert run(["audit", "search", url, "--key", key]) == ExitCode.USAGE


def test_the_index_lies_beside_the_log(told, folder, key):
    assert run(["audit", "search", str(folder), "--key", key]) == 0
    assert folder.with_name(f"{folder.name}.index").is_file()
    assert run(["audit", "verify", str(folder), "--key", key]) == 0
