"""One machine through its whole life, with evidence of a real software TPM, as the audit log tells it."""

from __future__ import annotations

import dataclasses

import pytest
from click.testing import CliRunner

from catena.audit.entries import Approval, Denial, Enrolment, Transition, Verdict
from catena.cli.main import catena
from catena.formats import tcglog
from catena.ids import HashAlg
from catena.keys.hierarchy import KeyName
from catena.service.conclusion import RacedAttestation
from catena.service.staleness import Staleness
from catena.service.states import RetiredNode
from catena.service.views import (
    ApprovalRequest,
    DemandRequest,
    FarewellRequest,
    ReplacementRequest,
)
from catena.tpm.device import open_tpm
from service.fixtures import capture, listed, put_secret
from service.machine import Machine
from swtpm import needs_swtpm, software_tpm

pytestmark = [needs_swtpm, pytest.mark.tpm]


@pytest.fixture
def other_machine(tmp_path, tpm_ca, boot):
    """The same kind of machine with another TPM."""
    with software_tpm(tmp_path / "other-tpm", ca=tpm_ca) as tpm, open_tpm(tpm.tcti) as opened:
        machine = Machine(opened, boot)
        machine.measure()
        yield machine


def state(server, name: str) -> str:
    return server.service.nodes.show(name).state


def told(entry) -> str | None:
    """What an entry says of the node's state."""
    match entry:
        case Enrolment() | Verdict():
            return f"{entry.kind} {entry.state}"
        case Approval():
            return f"approval{' again' if entry.readmitted else ''}"
        case Transition():
            return f"{entry.before} → {entry.state}: {entry.reason}"
        case Denial():
            return f"denied {entry.code}"
    return None


def test_the_log_tells_a_whole_life(trusting, running_machine, other_machine):  # noqa: PLR0915 - a life is long
    server, machine, service = trusting, running_machine, trusting.service
    service.staleness.notice()  # the server begins to listen

    # pending, trusted
    machine.enrol(server.call)
    assert state(server, machine.node_id) == "pending"
    machine.attest(server.call)
    capture(service, machine.node_id)
    service.approval.approve(machine.node_id, ApprovalRequest(name="n1", role="web"), "admin")
    put_secret(service, "disk", "web")
    server.clock.pass_(1)
    first = machine.attest(server.call)
    assert (first.state, bool(first.certificate), len(first.secrets)) == ("trusted", True, 1)
    shown = service.nodes.show("n1")
    assert shown.state_since == shown.last_attested
    assert shown.due_at is not None

    # untrusted: the log is of another boot
    measured = machine.boot
    machine.boot = boot_with_another_measurement(measured)
    server.clock.pass_(30)
    assert machine.attest(server.call).state == "untrusted"

    # trusted evidence alone does not bring it back; a person does
    machine.boot = measured
    server.clock.pass_(30)
    again = machine.attest(server.call)
    assert (again.verdict, again.state, again.certificate) == ("trusted", "untrusted", None)
    service.approval.approve("n1", ApprovalRequest(), "admin")
    server.clock.pass_(30)
    assert machine.attest(server.call).state == "trusted"

    # stale: shown at once, recorded by the next round, and only once
    server.clock.pass_(600)
    assert state(server, "n1") == "stale"
    assert service.staleness.notice() == 1
    server.clock.pass_(600)
    assert service.staleness.notice() == 0
    assert server.node("n1").state == "stale"

    # trusted again by its word alone
    assert machine.attest(server.call).state == "trusted"

    # stale because it did not attest when it was told to
    asked = service.demands.demand(DemandRequest(node="n1", within=10), "admin")
    assert asked.nodes == 1
    assert service.demands.is_open(machine.node_id)
    server.clock.pass_(11)
    assert service.nodes.show("n1").state_reason == "demand-unanswered"
    assert service.staleness.notice() == 1
    assert machine.attest(server.call).state == "trusted"
    assert not service.demands.is_open(machine.node_id)

    # replaced: the new TPM has name and role, the old one is off the rolls and stays out
    other_machine.enrol(server.call)
    done = service.retirement.replace("n1", ReplacementRequest(by=other_machine.node_id), "admin")
    assert done.secrets == ("disk",)
    assert (done.node.name, done.node.role, done.node.state) == ("n1", "web", "pending")
    with pytest.raises(RetiredNode):
        machine.attest(server.call)
    with pytest.raises(RetiredNode):
        machine.enrol(server.call)
    server.clock.pass_(1)
    assert other_machine.attest(server.call).state == "trusted"
    assert [node.id for node in listed(service.nodes) if node.name == "n1"] == [
        other_machine.node_id
    ]

    # retired
    service.retirement.retire("n1", FarewellRequest(reason="sold"), "admin")
    with pytest.raises(RetiredNode):
        other_machine.attest(server.call)

    assert [
        line
        for entry in server.entries()
        if getattr(entry, "node_id", None) == machine.node_id and (line := told(entry))
    ] == [
        "enrolment pending",
        "verdict pending",
        "approval",
        "verdict trusted",
        "verdict untrusted",
        "verdict untrusted",
        "approval again",
        "verdict trusted",
        "trusted → stale: missed-intervals",
        "verdict trusted",
        "trusted → stale: demand-unanswered",
        "verdict trusted",
        f"trusted → retired: replaced by {other_machine.node_id}",
        "denied retired-node",
        "denied retired-node",
    ]
    assert [
        line
        for entry in server.entries()
        if getattr(entry, "node_id", None) == other_machine.node_id and (line := told(entry))
    ] == [
        "enrolment pending",
        "approval",
        "verdict trusted",
        "trusted → retired: sold",
        "denied retired-node",
    ]
    assert "trusted → stale: demand-unanswered" in tail(server)


def tail(server) -> str:
    """The log as `catena audit tail` prints it."""
    key = server.keys.path / f"{KeyName.LOG.value}.pub"
    folder = str(server.folder / "log")
    done = CliRunner().invoke(catena, ["audit", "tail", "--log", folder, "--key", str(key)])
    return done.output


def boot_with_another_measurement(boot):
    """The log of a boot that was another than the one which the TPM measured."""
    digest = tcglog.parse(boot.log).events[-1].digests[HashAlg.SHA256]
    return dataclasses.replace(boot, log=boot.log.replace(digest, bytes(32)))


def test_a_server_that_was_down_does_not_hold_the_silence_against_its_nodes(trusting, machine):
    trusting.admit(machine)
    machine.attest(trusting.call)
    trusting.clock.pass_(3600)
    trusting.reopen()
    assert trusting.service.staleness.notice() == 0  # it begins to listen
    assert state(trusting, "n1") == "stale"  # and still vouches for nobody
    trusting.clock.pass_(20)
    assert machine.attest(trusting.call).state == "trusted"
    trusting.clock.pass_(120)
    assert trusting.service.staleness.notice() == 0
    assert "transition" not in trusting.kinds()


def test_of_two_replicas_one_notices_a_silent_node(trusting, machine):
    trusting.admit(machine)
    replicas = [trusting.service.staleness, Staleness(trusting.service.setting)]
    assert [one.notice() for one in replicas] == [0, 0]
    machine.attest(trusting.call)
    trusting.clock.pass_(601)
    assert [one.notice() for one in replicas] == [1, 0]
    assert trusting.kinds().count("transition") == 1


def test_a_state_that_changes_during_an_attestation_wins(trusting, machine, monkeypatch):
    """Another replica retires the node after this one has judged: nothing is handed out."""
    trusting.admit(machine)
    journal = trusting.service.setting.journal
    append, done = journal.append, []

    def retire_first(*entries):
        if not done:
            done.append(True)
            with trusting.opened.database.transaction() as rows:
                assert rows.nodes.retire(rows.nodes.find("n1"), "sold", trusting.clock())
        return append(*entries)

    monkeypatch.setattr(journal, "append", retire_first)
    with pytest.raises(RacedAttestation):
        machine.attest(trusting.call)
    node = trusting.node(machine.node_id)
    assert (node.state, node.name, node.former_name) == ("retired", None, "n1")
    with trusting.opened.database.snapshot() as rows:
        assert not rows.certificates.valid(node.id, now=trusting.clock())
