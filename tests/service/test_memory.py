"""Examined boots are remembered within bounds, and never instead of looking."""

from __future__ import annotations

import msgspec
import pytest

from appraise.forged import Exchange, judge, references_of
from catena.ids import HashAlg
from catena.service.attestation import LogsMissing
from catena.service.memory import Memory, Remembered
from catena.service.references import REFRESH
from changed import replace


@pytest.fixture(scope="session")
def examined(boot):
    return judge(Exchange(boot).evidence(), references_of(boot)).boot


def with_ima(examined, number: int):
    """The same firmware log beside another IMA log."""
    boot, ima = examined.manifest
    other = msgspec.structs.replace(ima, sha256=f"{number:064x}")
    return replace(examined, manifest=(boot, other))


def test_the_boot_with_the_same_logs_comes_first(examined):
    memory = Memory()
    assert memory.recall(examined.manifest) is None
    boots = [with_ima(examined, number) for number in range(3)]
    for boot in boots:
        memory.keep(Remembered(boot, b"[]"))
    for boot in boots:
        assert memory.recall(boot.manifest).boot is boot
    unknown = with_ima(examined, 9)
    assert memory.recall(unknown.manifest).boot is boots[-1]
    assert memory.recall(unknown.manifest[1:]) is None


def test_what_was_not_asked_for_longest_is_forgotten(examined):
    size = Remembered(examined, b"").size
    memory = Memory(capacity=3 * size)
    boots = [with_ima(examined, number) for number in range(4)]
    for boot in boots[:3]:
        memory.keep(Remembered(boot, b"[]"))
    memory.recall(boots[0].manifest)
    memory.keep(Remembered(boots[3], b"[]"))
    kept = [memory.recall(boot.manifest).boot is boot for boot in boots]
    assert kept == [True, False, True, True]
    memory.keep(Remembered(boots[3], b"[1]"))
    assert memory.recall(boots[3].manifest).events == b"[1]"
    assert memory.recall(boots[0].manifest).boot is boots[0]


def test_a_boot_larger_than_everything_is_not_kept(examined):
    memory = Memory(capacity=1)
    memory.keep(Remembered(examined, b"[]"))
    assert memory.recall(examined.manifest) is None


def stored(server, machine):
    with server.opened.database.snapshot() as rows:
        return rows.appraisals.recent(machine.node_id, limit=10)


@pytest.fixture
def admitted(trusting, machine):
    trusting.admit(machine)
    machine.attest(trusting.call)
    trusting.clock.pass_(1)
    return trusting


def test_a_repeated_attestation_is_stored_like_the_first(admitted, machine):
    machine.attest(admitted.call)
    admitted.reopen()
    machine.attest(admitted.call)
    first, second, third = stored(admitted, machine)[:3]
    assert first.events == second.events == third.events != b"[]"
    assert first.facts == second.facts == third.facts
    assert first.verdict == second.verdict == third.verdict == "trusted"


def without_boot_log(machine, server):
    evidence = machine.evidence(machine.nonce(server.call))
    boot_log = evidence.manifest[0].sha256
    logs = {name: log for name, log in evidence.logs.items() if name != boot_log}
    return msgspec.structs.replace(evidence, logs=logs)


def test_a_boot_log_travels_once_also_after_a_restart(admitted, machine):
    for _ in range(2):
        evidence = without_boot_log(machine, admitted)
        assert admitted.service.attestation.attest(evidence).state == "trusted"
        admitted.reopen()


def test_a_known_boot_in_another_bank_is_judged_by_its_log(admitted, machine):
    machine.bank = HashAlg.SHA384
    evidence = without_boot_log(machine, admitted)
    result = admitted.service.attestation.attest(evidence)
    assert "log-missing" not in {reason.code for reason in result.reasons}


def test_a_log_that_only_another_node_sent_is_still_asked_for(trusting, machine, boot):
    """What is remembered may be of a boot whose log never reached the database."""
    machine.enrol(trusting.call)
    found = judge(Exchange(boot).evidence(), trusting.service.references.active()).boot
    trusting.service.attestation._memory.keep(Remembered(found, b"[]"))
    with pytest.raises(LogsMissing):
        trusting.service.attestation.attest(without_boot_log(machine, trusting))


def test_references_that_changed_are_asked_at_once(admitted, machine):
    with admitted.opened.database.transaction() as rows:
        release = next(row for row in rows.references.list() if row.kind == "release")
        rows.references.set_active(release.sha256, active=False)
    admitted.clock.pass_(REFRESH.total_seconds() + 1)
    assert "no-release" in {reason.code for reason in machine.attest(admitted.call).reasons}


def test_references_that_did_not_change_stay_the_same_object(trusting):
    before = trusting.service.references.active()
    trusting.clock.pass_(REFRESH.total_seconds() + 1)
    assert trusting.service.references.active() is before
