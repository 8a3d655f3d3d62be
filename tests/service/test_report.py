"""Reports about real nodes: they verify elsewhere, and nothing about them can be changed."""

from __future__ import annotations

import json
from datetime import timedelta

import msgspec
import pytest

from catena.audit import report as reports
from catena.audit.checkpoint import verify as verify_checkpoint
from catena.audit.evidence import EvidenceStore
from catena.audit.folder import LogFolder
from catena.audit.leaf import seal_entry
from catena.audit.leaves import Leaves
from catena.audit.report import (
    ForeignReport,
    MalformedReport,
    ReportAltered,
    ReportBody,
    ReportedEntry,
    verify_report,
    write_report,
)
from catena.audit.reporting import gather
from catena.audit.reportpage import render_page
from catena.audit.search import UnloggedNode
from catena.audit.verify import EntryForged
from catena.cli.main import run
from catena.errors import CatenaError, ExitCode, LogInconsistent
from catena.keys.hierarchy import KeyName
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key, public_pem, write_key
from catena.service.replay import replay_report
from served import served

LATER = timedelta(days=1)


@pytest.fixture(scope="module")
def auditor():
    return PrivateKeySigner(generate_key(KeyAlgorithm.ED25519))


@pytest.fixture
def attested(trusting, machine):
    trusting.admit(machine)
    assert machine.attest(trusting.call).verdict == "trusted"
    return trusting


@pytest.fixture
def log_key(attested):
    return attested.keys.public_key(KeyName.LOG)


@pytest.fixture
def body(attested, log_key) -> ReportBody:
    store = EvidenceStore(attested.folder / "evidence")
    at = attested.clock.time
    return gather(LogFolder(attested.folder / "log"), log_key, store, node="n1", at=at)


@pytest.fixture
def made(body, auditor) -> bytes:
    return write_report(body, auditor, body.at + LATER)


def test_a_report_verifies_and_its_verdict_comes_out_again(made, log_key, auditor):
    report = verify_report(made, log_key, signer=auditor.public_key, origin="acme.example/log")
    assert [entry.kind for entry in report.entries.values()] == [
        "reference", "reference", "enrolment", "reference", "approval", "verdict", "certificate",
    ]  # fmt: skip
    assert report.missing == ()
    (replayed,) = replay_report(report)
    assert (replayed.verdict, replayed.name, replayed.release) == ("trusted", "n1", "lab-1")


def test_a_report_about_the_fleet_and_about_earlier(attested, log_key, auditor):
    store = EvidenceStore(attested.folder / "evidence")
    earlier = attested.clock.time - timedelta(seconds=1)
    body = gather(LogFolder(attested.folder / "log"), log_key, store, node=None, at=earlier)
    report = verify_report(write_report(body, auditor, earlier), log_key)
    assert (report.scope, len(report.nodes)) == ("fleet", 1)
    (replayed,) = replay_report(report)
    assert replayed.verdict == "untrusted"
    with pytest.raises(UnloggedNode):
        gather(LogFolder(attested.folder / "log"), log_key, store, node="n2", at=earlier)
    with pytest.raises(UnloggedNode):
        gather(LogFolder(attested.folder / "log"), log_key, store, node="", at=earlier)


def test_no_bit_of_a_report_can_be_flipped(made, log_key):
    """Every bit of the first line, and bits all over the second."""
    first = made.index(b"\n")
    places = [*range(first + 2), *range(first + 2, len(made), len(made) // 300), len(made) - 1]
    for place in places:
        changed = bytearray(made)
        changed[place] ^= 1 << place % 8
        with pytest.raises(CatenaError):
            verify_report(bytes(changed), log_key)
    for cut in (0, 1, first, first + 1, len(made) - 1):
        with pytest.raises(MalformedReport):
            verify_report(made[:cut], log_key)
    with pytest.raises(MalformedReport):
        verify_report(made + b"\n", log_key)


def test_a_report_of_another_log_or_maker(made, auditor, log_key):
    stranger = PrivateKeySigner(generate_key(KeyAlgorithm.ED25519)).public_key
    with pytest.raises(ForeignReport):
        verify_report(made, stranger)
    with pytest.raises(ForeignReport):
        verify_report(made, log_key, signer=stranger)
    with pytest.raises(LogInconsistent):
        verify_report(made, log_key, origin="other.example/log")


def test_a_maker_does_not_choose_the_words_of_a_refusal(body, auditor, log_key):
    content = msgspec.json.encode(body).replace(b'"scope"', b'"' + b"x" * 5000 + b'"', 1)
    with pytest.raises(MalformedReport, match="unknown field") as refused:
        verify_report(reports._signed(content, auditor, body.at), log_key)
    assert len(str(refused.value)) < 300


def test_a_maker_cannot_make_things_up(body, auditor, log_key, attested):
    """Signed anew by its maker each time: what is wrong is found without the signature."""

    def refused(error, **changes):
        changed = msgspec.structs.replace(body, **changes)
        with pytest.raises(error):
            verify_report(write_report(changed, auditor, body.at), log_key)

    entries, contents = body.entries, body.contents
    some = next(iter(contents))
    moved = msgspec.structs.replace(entries[0], index=entries[0].index + 1)
    refused(LogInconsistent, entries=(moved, *entries[1:]))
    refused(ReportAltered, entries=(entries[1], entries[0], *entries[2:]))
    refused(ReportAltered, entries=(entries[0], *entries))
    swapped = msgspec.structs.replace(entries[0], leaf=entries[1].leaf)
    refused(LogInconsistent, entries=(swapped, *entries[1:]))
    refused(LogInconsistent, contents={**contents, some: contents[some] + b" "})
    refused(ReportAltered, contents={one: contents[one] for one in contents if one != some})
    refused(ReportAltered, missing=("0" * 64,))
    refused(ReportAltered, at=body.at - timedelta(hours=1))
    refused(ReportAltered, nodes=("0" * 64,))
    refused(LogInconsistent, checkpoint=body.checkpoint.replace("acme", "amce"))


def test_an_entry_that_the_log_did_not_sign(body, auditor, log_key, attested):
    """It is in the tree, as an entry of somebody who got hold of the disk, not of the key, may be."""
    verdict = next(one for one in attested.entries() if one.kind == "verdict")
    attested.opened.log.append([seal_entry(auditor, verdict)])
    place = LogFolder(attested.folder / "log")
    checkpoint = place.read_checkpoint()
    size = verify_checkpoint(checkpoint, log_key).size
    leaves = Leaves(place, size)
    entries = tuple(
        ReportedEntry(
            index=index,
            leaf=leaves.leaf(index),
            proof=tuple(one.hex() for one in leaves.proof(index)),
        )
        for index in (*(one.index for one in body.entries), size - 1)
    )
    forged = msgspec.structs.replace(body, checkpoint=checkpoint.decode(), entries=entries)
    with pytest.raises(EntryForged):
        verify_report(write_report(forged, auditor, body.at), log_key)
    honest = msgspec.structs.replace(forged, entries=entries[:-1])
    assert verify_report(write_report(honest, auditor, body.at), log_key).size == size


def test_missing_evidence_is_owned_up_to(attested, log_key, auditor, tmp_path):
    at = attested.clock.time
    body = gather(
        LogFolder(attested.folder / "log"), log_key, EvidenceStore(tmp_path), node="n1", at=at
    )
    report = verify_report(write_report(body, auditor, at), log_key)
    assert (report.contents, len(report.missing) >= 4) == ({}, True)
    assert replay_report(report) == ()


def test_the_page_holds_no_markup_of_anybody(made, log_key):
    report = verify_report(made, log_key)
    page = render_page(report)
    assert "lab-1" in page
    assert "<script" not in page
    (index, verdict), *_ = report.verdicts()
    evil = msgspec.structs.replace(verdict, release="<script>alert(1)</script>", node_name="<b>&")
    report.entries[index] = evil
    page = render_page(report)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;b&gt;&amp;" in page


def test_the_commands(attested, auditor, tmp_path, capsys, log_key):
    write_key(tmp_path / "auditor.key", generate_key(KeyAlgorithm.ED25519))
    out, page = tmp_path / "n1.report", tmp_path / "n1.html"
    key = str(attested.keys.path / "log.pub")
    words = ["audit", "report", "n1", "--at", attested.clock.time.isoformat(), "--key", key]
    words += ["--log", str(attested.folder / "log"), "--sign", str(tmp_path / "auditor.key")]
    assert run([*words, "--out", str(out), "--html", str(page)]) == 0
    assert "1 came out the same" in capsys.readouterr().out
    assert page.read_text().startswith("<!doctype html>")
    assert run(["audit", "verify", str(out), "--key", key, "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["scope"], found["nodes"], found["replayed"], found["missing"]) == (
        "node",
        1,
        1,
        0,
    )
    with served(attested.folder / "log") as url:
        remote = ["--log", url, "--out", str(tmp_path / "remote.report")]
        assert run([*words, *remote]) == ExitCode.USAGE  # which evidence?
        assert run([*words, *remote, "--evidence", str(attested.folder / "evidence")]) == 0
    assert run(["audit", "verify", str(tmp_path / "remote.report"), "--key", key]) == 0
    stranger = tmp_path / "stranger.pub"
    stranger.write_bytes(public_pem(auditor.public_key))
    assert run(["audit", "verify", str(out), "--key", key, "--signer", str(stranger)]) == 20
    assert run(["audit", "verify", str(out), "--key", str(stranger)]) == 20
    out.write_bytes(out.read_bytes().replace(b'"at"', b'"At"', 1))
    assert run(["audit", "verify", str(out), "--key", key]) == 20
    assert run([*words, "--out", str(tmp_path / "x"), "--fleet"]) == 2
