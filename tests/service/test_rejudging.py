"""Known nodes are judged again when what vouches for their TPMs changes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from catena.service import rejudging
from catena.service.keys import note_keys
from catena.service.rejudging import LATE, LEASE, ROUND, RoundLost
from catena.service.states import NotVouchedFor
from catena.service.views import ApprovalRequest, FarewellRequest, ReplacementRequest
from catena.store import schema
from service.endorsed import fleet, hash_of, vendor, vouched, vouched_twice
from service.fixtures import Server, listed, make_server
from service.revocable import prepare, revoke
from service.vendor import Authority, request
from swtpm import needs_swtpm

pytestmark = [needs_swtpm, pytest.mark.tpm]
__all__ = ["vendor", "vouched", "vouched_twice"]


def judged(server: Server) -> list:
    return [entry for entry in server.entries() if entry.kind == "node-endorsement"]


def withdraw(server: Server, authority: Authority) -> int:
    """How many nodes changed when an authority was withdrawn."""
    endorsements = server.service.endorsements
    (name,) = (one.sha256 for one in listed(endorsements) if one.subject == text_of(authority))
    endorsements.withdraw(name, "alice")
    return server.service.rejudging.judge()


def text_of(authority: Authority) -> str:
    return authority.certificate.subject.rfc4514_string()


# A real TPM ----------------------------------------------------------------------------------


def test_a_node_whose_root_is_withdrawn_loses_everything_log_first(vouched, machine, vendor):
    server = vouched
    assert server.service.nodes.show("n1").endorsement == "good"
    (endorsement,) = listed(server.service.endorsements)
    server.service.endorsements.withdraw(endorsement.sha256, "alice")
    assert server.service.rejudging.judge() == 1

    told = server.service.nodes.show("n1")
    assert (told.state, told.state_reason) == ("untrusted", "ek-issuer-untrusted")
    assert (told.endorsement, told.certificate_expires) == ("ek-issuer-untrusted", None)
    assert [one.name for one in server.service.secrets.rotation()] == ["db-password"]
    changed, entry, lost = server.entries()[-3:]
    assert (changed.kind, changed.active) == ("endorsement", False)
    assert (entry.code, entry.before, entry.state, entry.actor) == (
        "ek-issuer-untrusted",
        "trusted",
        "untrusted",
        "server",
    )
    assert (lost.kind, len(lost.certificates), lost.secrets) == (
        "revocation",
        1,
        ("db-password version 1",),
    )


def test_it_gets_nothing_by_attesting_nor_by_approval_until_somebody_vouches_for_it(
    vouched, machine, vendor
):
    server = vouched
    (endorsement,) = listed(server.service.endorsements)
    server.service.endorsements.withdraw(endorsement.sha256, "alice")
    server.service.rejudging.judge()
    for _ in range(2):
        server.clock.pass_(1)
        result = machine.attest(server.call)
        assert (result.verdict, result.state) == ("trusted", "untrusted")
        assert (result.certificate, result.secrets) == (None, ())
        assert result.reasons[-1].code == "ek-issuer-untrusted"
    with pytest.raises(NotVouchedFor):
        server.service.approval.approve("n1", ApprovalRequest(), "alice")

    server.service.endorsements.accept(request(vendor.issuer.der, vouches="software"), "alice")
    assert server.service.rejudging.judge() == 1
    told = server.service.nodes.show("n1")
    assert (told.endorsement, told.state) == ("good", "untrusted")
    assert told.state_reason == "awaiting-readmission"
    server.clock.pass_(1)
    assert machine.attest(server.call).reasons[-1].code == "awaiting-readmission"
    server.service.approval.approve("n1", ApprovalRequest(), "alice")
    server.clock.pass_(1)
    assert machine.attest(server.call).state == "trusted"
    assert [one.code for one in judged(server)] == ["ek-issuer-untrusted", ""]


def test_the_vendors_list_takes_trust_from_the_tpm_that_it_names_and_from_no_other(
    vouched, machine, vendor
):
    endorsements = vouched.service.endorsements
    endorsements.accept(request(vendor.issuer.crl(vendor.serial + 1)), "alice")
    assert vouched.service.rejudging.judge() == 0
    assert vouched.service.nodes.show("n1").state == "trusted"
    assert judged(vouched) == []
    endorsements.accept(request(vendor.issuer.crl(vendor.serial, days=1)), "alice")
    assert vouched.service.rejudging.judge() == 1
    assert vouched.service.nodes.show("n1").state_reason == "ek-certificate-revoked"


def test_a_list_that_nobody_renewed_takes_nothing_from_a_known_node(vouched, machine, vendor):
    """Time alone says nothing against a TPM; a revocation by a list that is stale by now does."""
    endorsements = vouched.service.endorsements
    foreign = vendor.serial + 1
    endorsements.accept(request(vendor.issuer.crl(foreign)), "alice")
    vouched.clock.pass_(30 * 24 * 3600)
    endorsements.accept(request(vendor.issuer.crl(foreign, days=1)), "alice")
    assert vouched.service.rejudging.judge() == 0
    assert vouched.service.nodes.show("n1").endorsement == "good"
    endorsements.accept(request(vendor.issuer.crl(vendor.serial, days=2)), "alice")
    assert vouched.service.rejudging.judge() == 1
    assert vouched.service.nodes.show("n1").endorsement == "ek-certificate-revoked"


def test_a_node_of_before_is_unknown_until_it_enrols_again(vouched, machine, vendor):
    with vouched.opened.database.transaction() as rows:
        node = rows.nodes.get(machine.node_id)
        rows.ek_certificates.place_under(node.id, frozenset())
        forget(rows, node)
    assert vouched.service.nodes.show("n1").endorsement == "unknown"
    assert vouched.service.rejudging.progress().unknown == 1
    assert vouched.service.nodes.show("n1").state == "trusted"
    machine.enrol(vouched.call)
    assert vouched.service.nodes.show("n1").endorsement == "good"
    assert vouched.service.rejudging.progress().unknown == 0
    assert judged(vouched)[-1].code == ""
    before = vouched.kinds()
    machine.enrol(vouched.call)
    assert vouched.kinds() == before
    (endorsement,) = listed(vouched.service.endorsements)
    vouched.service.endorsements.withdraw(endorsement.sha256, "alice")
    assert vouched.service.rejudging.judge() == 1


def forget(rows, node) -> None:
    """As a catena before schema 13 left it."""
    rows.nodes.endorse(node.id, None)
    table = schema.ek_certificates
    rows.nodes._connection.execute(table.delete().where(table.c.node_id == node.id))


def test_a_root_that_left_server_toml_is_noticed_at_the_start(trusting, machine):
    server = prepare(trusting, machine)
    note_keys(server.service.setting)
    server.service.rejudging.judge()
    assert server.service.nodes.show("n1").state == "trusted"
    rewrite(server, "ek_roots")
    note_keys(server.service.setting)
    assert server.service.rejudging.judge() == 1
    assert server.service.nodes.show("n1").state_reason == "ek-issuer-untrusted"


def rewrite(server: Server, without: str) -> None:
    """Start again with a setting taken out of server.toml."""
    path = server.folder / "server.toml"
    kept = [line for line in path.read_text().splitlines() if not line.startswith(f"{without} ")]
    path.write_text("\n".join(kept) + "\n")
    server.reopen()


def test_a_pin_that_left_server_toml_is_noticed_at_the_start(tmp_path, keys, boot, machine):
    ek = hash_of(machine.enrolment().ek_public)
    server = make_server(tmp_path / "pinning", keys, pinned_eks=(ek,))
    server.import_references(boot)
    prepare(server, machine)
    note_keys(server.service.setting)
    rewrite(server, "pinned_eks")
    note_keys(server.service.setting)
    assert server.service.rejudging.judge() == 1
    assert server.service.nodes.show("n1").endorsement == "ek-issuer-untrusted"
    server.opened.close()


# Fleets --------------------------------------------------------------------------------------


@pytest.fixture
def acme(server) -> Authority:
    authority = Authority("Acme TPM Root CA")
    server.service.endorsements.accept(request(authority.der), "alice")
    server.service.rejudging.judge()
    return authority


def test_only_nodes_below_the_changed_authority_are_looked_at(server, acme, monkeypatch):
    other = Authority("Other TPM Root CA", serial=200)
    server.service.endorsements.accept(request(other.der), "alice")
    ours, others = fleet(server, acme, 3), fleet(server, other, 3)
    server.service.rejudging.judge()
    looked_at = watched(monkeypatch)
    assert [endorsements_below(server, one) for one in (acme, other)] == [3, 3]
    assert withdraw(server, acme) == 3
    assert sorted(looked_at) == ours
    with server.opened.database.snapshot() as rows:
        assert {rows.nodes.get(one).state for one in ours} == {"untrusted"}
        assert {rows.nodes.get(one).state for one in others} == {"trusted"}


def endorsements_below(server: Server, authority: Authority) -> int:
    name = hash_of(authority.der)
    return server.service.endorsements.show(name).nodes


def watched(monkeypatch) -> list[str]:
    looked_at, judge = [], rejudging._outcome

    def note(kept, roots):
        looked_at.append(kept.node_id)
        return judge(kept, roots)

    monkeypatch.setattr(rejudging, "_outcome", note)
    return looked_at


def test_an_intermediate_that_a_root_revokes_takes_those_below_it(server, acme):
    middle = Authority("Acme TPM EK CA 1", above=acme, serial=300)
    server.service.endorsements.accept(request(middle.der), "alice")
    below = fleet(server, middle, 2)
    beside = fleet(server, acme, 1)
    server.service.endorsements.accept(request(acme.crl(middle.serial)), "alice")
    assert server.service.rejudging.judge() == 2
    with server.opened.database.snapshot() as rows:
        assert {rows.nodes.get(one).endorsement for one in below} == {"ek-certificate-revoked"}
        assert rows.nodes.get(beside[0]).endorsement == ""


def test_another_way_up_keeps_trust_and_is_remembered(server, acme):
    """An intermediate is certified by a second root; then the first goes, then the second."""
    middle = Authority("Acme TPM EK CA 1", above=acme, serial=300)
    second = Authority("Second Root", serial=400)
    again = Authority(middle.name, above=second, key=middle.key, serial=301)
    server.service.endorsements.accept(request(middle.der), "alice")
    fleet(server, middle, 2)
    server.service.endorsements.accept(request(second.der, again.der), "alice")
    assert server.service.rejudging.judge() == 0
    assert withdraw(server, acme) == 0
    assert withdraw(server, second) == 2


def test_a_large_fleet_is_judged_in_pages_and_a_stopped_one_goes_on_where_it_was(
    server, acme, monkeypatch
):
    monkeypatch.setattr(rejudging, "BATCH", 4)
    ids = fleet(server, acme, 10)
    effect, pages = server.service.setting.journal.effect, []

    def stop_at_the_second():
        pages.append(1)
        if len(pages) == 2:
            raise OSError("power lost")
        return effect()

    (name,) = (one.sha256 for one in listed(server.service.endorsements))
    server.service.endorsements.withdraw(name, "alice")
    with monkeypatch.context() as patch:
        patch.setattr(server.service.setting.journal, "effect", stop_at_the_second)
        with pytest.raises(OSError, match="power lost"):
            server.service.rejudging.judge()
    (authority,) = server.service.rejudging.progress().open
    assert (authority.name, authority.judged, authority.nodes) == ("CN=Acme TPM Root CA", 4, 10)
    assert server.service.rejudging.judge() == 0, "the round is another's until its time is over"
    server.clock.pass_(LEASE.total_seconds())
    assert server.service.rejudging.judge() == 6
    with server.opened.database.snapshot() as rows:
        assert {rows.nodes.get(one).state for one in ids} == {"untrusted"}
    told = [entry.node_id for entry in judged(server)]
    # The second page was logged before the power was lost: a decision without effect, then again.
    assert sorted(told) == sorted([*ids, *ids[4:8]])


def test_a_change_while_nodes_are_judged_begins_anew(server, acme, monkeypatch):
    monkeypatch.setattr(rejudging, "BATCH", 4)
    fleet(server, acme, 6)
    settle, changes = rejudging.Rejudging._settled, []

    def changed_meanwhile(self, outcomes, go_on):
        if not changes:
            changes.append(1)
            server.service.endorsements.accept(request(acme.der), "alice")
        return settle(self, outcomes, go_on)

    monkeypatch.setattr(rejudging.Rejudging, "_settled", changed_meanwhile)
    assert withdraw(server, acme) == 8, "four lost trust by what was read before, then all are good"
    with server.opened.database.snapshot() as rows:
        assert {node.endorsement for node in rows.nodes.list()} == {""}


def test_who_enrolled_while_the_authority_was_withdrawn_is_found_later(server, acme):
    endorsements = server.service.endorsements
    (name,) = (one.sha256 for one in listed(endorsements))
    before = fleet(server, acme, 1)
    server.clock.pass_(1)
    roots = endorsements.roots()
    endorsements.withdraw(name, "alice")
    assert server.service.rejudging.judge() == 1
    with pytest.MonkeyPatch.context() as patch:
        # Another replica judged by what it had read before.
        patch.setattr(endorsements, "roots", lambda: roots)
        late = fleet(server, acme, 1, first=2)
    assert server.service.rejudging.judge() == 0
    assert server.service.rejudging.progress().open[0].is_second
    server.clock.pass_(LATE.total_seconds())
    assert server.service.rejudging.judge() == 1
    assert [entry.node_id for entry in judged(server)] == [*before, *late]
    assert server.service.rejudging.progress().open == ()


@pytest.mark.parametrize("state", ["stale", "untrusted", "pending"])
def test_an_approved_node_of_any_state_becomes_untrusted(server, acme, state):
    (one,) = fleet(server, acme, 1, state=state, readmitted=state == "untrusted")
    withdraw(server, acme)
    with server.opened.database.snapshot() as rows:
        node = rows.nodes.get(one)
    assert (node.state, node.state_reason, node.readmitted) == (
        "untrusted",
        "ek-issuer-untrusted",
        False,
    )


def test_what_a_person_revoked_keeps_that_reason(vouched):
    revoke(vouched)
    (endorsement,) = listed(vouched.service.endorsements)
    vouched.service.endorsements.withdraw(endorsement.sha256, "alice")
    assert vouched.service.rejudging.judge() == 1
    shown = vouched.service.nodes.show("n1")
    assert (shown.state_reason, shown.endorsement) == ("node-revoked", "ek-issuer-untrusted")


def test_a_node_that_waits_cannot_be_approved_nor_take_anothers_place(server, acme):
    old = Authority("Other TPM Root CA", serial=200)
    server.service.endorsements.accept(request(old.der), "alice")
    fleet(server, old, 1)
    (waiting,) = fleet(server, acme, 1, state="pending", approved_at=None, name=None, role=None)
    withdraw(server, acme)
    shown = server.service.nodes.show(waiting)
    assert (shown.state, shown.endorsement) == ("pending", "ek-issuer-untrusted")
    with pytest.raises(NotVouchedFor):
        server.service.approval.approve(waiting, ApprovalRequest(name="a", role="web"), "alice")
    with pytest.raises(NotVouchedFor):
        server.service.retirement.replace("row-200-1", ReplacementRequest(by=waiting), "alice")


def test_a_retired_node_stays_retired_and_does_not_come_back(server, acme):
    (one,) = fleet(server, acme, 1)
    server.service.retirement.retire(one, FarewellRequest(reason="sold"), "alice")
    withdraw(server, acme)
    shown = server.service.nodes.show(one)
    assert (shown.state, shown.state_reason) == ("retired", "sold")
    with pytest.raises(NotVouchedFor):
        server.service.approval.approve(one, ApprovalRequest(name="a", role="web"), "alice")


# Replicas ------------------------------------------------------------------------------------


def test_an_attestation_at_another_replica_meanwhile_is_taken_back_too(vouched_twice, machine):
    first, second = vouched_twice
    (endorsement,) = listed(first.service.endorsements)
    first.service.endorsements.withdraw(endorsement.sha256, "alice")
    raced = []

    def attest_elsewhere() -> None:
        if not raced:
            raced.append(1)
            assert machine.attest(second.call).state == "trusted"

    first.clock.pass_(1)
    first.service.setting.journal.on_append(attest_elsewhere)
    assert first.service.rejudging.judge() == 1
    shown = second.service.nodes.show("n1")
    assert (shown.state, shown.certificate_expires) == ("untrusted", None)


def test_replicas_that_judge_at_once_judge_each_node_once(vouched_twice, monkeypatch):
    monkeypatch.setattr(rejudging, "BATCH", 4)
    first, second = vouched_twice
    acme = Authority("Acme TPM Root CA")
    first.service.endorsements.accept(request(acme.der), "alice")
    ids = fleet(first, acme, 12)
    (name,) = (one.sha256 for one in listed(first.service.endorsements) if "acme" in one.name)
    first.service.endorsements.withdraw(name, "alice")
    looked_at = watched(monkeypatch)
    with ThreadPoolExecutor(2) as threads:
        rounds = [threads.submit(one.service.rejudging.judge) for one in (first, second)]
        assert sum(one.result() for one in rounds) == 12
    assert sorted(one for one in looked_at if one in ids) == ids
    with second.opened.database.snapshot() as rows:
        assert {rows.nodes.get(one).state for one in ids} == {"untrusted"}


def test_a_replica_that_was_overtaken_has_no_effect(server, acme, monkeypatch):
    (one,) = fleet(server, acme, 1)
    judge = rejudging._outcome

    def overtaken(kept, roots):
        server.clock.pass_(LEASE.total_seconds())
        now = server.clock()
        with server.opened.database.transaction() as rows:
            assert rows.rounds.take(ROUND, now, not_after=now - LEASE)
        return judge(kept, roots)

    with monkeypatch.context() as patch:
        patch.setattr(rejudging, "_outcome", overtaken)
        with pytest.raises(RoundLost):
            withdraw(server, acme)
    with server.opened.database.snapshot() as rows:
        assert rows.nodes.get(one).state == "trusted"
    server.clock.pass_(LEASE.total_seconds())
    assert server.service.rejudging.judge() == 1
