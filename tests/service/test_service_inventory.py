from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
from cryptography import x509

from catena.appraise.policy import default_policy_text
from catena.audit.entries import InventoryChanged
from catena.audit.evidence import EvidenceStore
from catena.audit.folder import LogFolder
from catena.formats.inventory import Machine, encode
from catena.formats.policies import PolicyDocument
from catena.keys.documents import seal_document
from catena.keys.hierarchy import KeyName
from catena.service.inventory import (
    AlreadyArrived,
    EmptyInventory,
    InventoryConflict,
    ListedNameTaken,
    ListedTwice,
    NotExpected,
    NotListed,
)
from catena.service.pages import ExpectedRequest
from catena.service.replay import find_verdict, replay
from catena.service.views import FarewellRequest, InventoryRequest
from service.fixtures import make_server
from service.test_approval import enrolled
from swtpm import needs_swtpm

EK, OTHER = "ab" * 32, "cd" * 32
WEB = Machine(name="web-1", role="web", site="berlin", channel="stable", ek_sha256=EK)


def expect(server, *machines: Machine, dry_run: bool = False):
    request = InventoryRequest(machines=machines, dry_run=dry_run)
    return server.service.inventory.expect(request, "admin")


def listed(server, **options) -> list[str]:
    request = ExpectedRequest(**options)
    return [one.name for one in server.service.inventory.page(request).items]


def test_expected_machines_are_logged_before_they_are_listed(server):
    done = expect(server, WEB)
    assert (done.added, done.unchanged) == (1, 0)
    assert listed(server) == ["web-1"]
    entry = server.entries()[-1]
    assert isinstance(entry, InventoryChanged)
    assert entry.list_sha256 == hashlib.sha256(encode((WEB,))).hexdigest()
    assert server.service.setting.evidence.read(entry.list_sha256) == encode((WEB,))


def test_a_dry_run_changes_nothing(server):
    before = server.kinds()
    assert expect(server, WEB, dry_run=True).added == 1
    assert listed(server) == []
    assert server.kinds() == before


def test_the_same_list_once_more_changes_nothing(server):
    expect(server, WEB)
    before = server.kinds()
    assert expect(server, WEB).unchanged == 1
    assert server.kinds() == before


@pytest.mark.parametrize(
    "other",
    [
        Machine(name="web-1", role="db", ek_sha256=OTHER),
        Machine(name="web-2", role="web", ek_sha256=EK),
        Machine(name="taken", role="web", ek_sha256=OTHER),
    ],
    ids=["name", "TPM", "node"],
)
def test_of_a_list_that_contradicts_another_nothing_is_imported(server, other):
    enrolled(server, "ee" * 32, name="taken", role="web", approved_at=server.clock())
    expect(server, WEB)
    with pytest.raises(InventoryConflict) as caught:
        expect(server, Machine(name="new", role="web", ek_sha256="12" * 32), other)
    assert other.name in str(caught.value)
    assert listed(server) == ["web-1"]


def test_a_list_that_contradicts_itself_is_refused(server):
    with pytest.raises(InventoryConflict):
        expect(server, WEB, Machine(name="web-1", role="web", ek_sha256=OTHER))
    with pytest.raises(EmptyInventory):
        expect(server)


def test_a_machine_can_be_taken_off_the_list(server):
    expect(server, WEB)
    server.service.inventory.unlist("web-1", "admin")
    assert listed(server) == []
    assert server.entries()[-1].action == "unlisted"
    with pytest.raises(NotListed):
        server.service.inventory.unlist("web-1", "admin")


def test_the_list_comes_in_pages(server):
    expect(
        server, *(Machine(name=f"n{n}", role="web", ek_sha256=f"{n:02x}" * 32) for n in range(5))
    )
    page = server.service.inventory.page(ExpectedRequest(limit=2))
    assert [one.name for one in page.items] == ["n0", "n1"]
    assert listed(server, limit=9, cursor=page.cursor) == ["n2", "n3", "n4"]


@needs_swtpm
@pytest.mark.tpm
class TestMode:
    @pytest.fixture
    def closed(self, tmp_path, keys, booted_tpm, boot):
        """A server in the mode `inventory`."""
        roots = tuple(f"software={path}" for path in booted_tpm.root_ca_pem_paths)
        server = make_server(tmp_path / "closed", keys, roots, mode="inventory")
        server.import_references(boot)
        yield server
        server.opened.close()

    def node_id(self, machine) -> str:
        return hashlib.sha256(machine.tpm.ek_public()).hexdigest()

    def by_certificate(self, machine, **changes) -> Machine:
        leaf = x509.load_der_x509_certificate(machine.tpm.ek_certificates()[0])
        values = {
            "name": "web-1",
            "role": "web",
            "ek_issuer": leaf.issuer.rfc4514_string(),
            "ek_serial": f"{leaf.serial_number:x}",
        }
        return Machine(**{**values, **changes})

    def test_nobody_else_is_admitted(self, closed, machine):
        expect(closed, WEB)
        with pytest.raises(NotExpected):
            machine.enrol(closed.call)
        assert closed.node(self.node_id(machine)) is None
        assert (closed.entries()[-1].kind, closed.entries()[-1].code) == ("denial", "not-expected")

    @pytest.mark.parametrize("by", ["digest", "certificate"])
    def test_a_listed_machine_has_name_and_role_from_the_list(self, closed, machine, by):
        line = self.by_certificate(machine, site="berlin", channel="stable")
        if by == "digest":
            line = Machine(
                name="web-1",
                role="web",
                site="berlin",
                channel="stable",
                ek_sha256=self.node_id(machine),
            )
        expect(closed, line)
        result = machine.enrol(closed.call)
        assert (result.name, result.state) == ("web-1", "pending")
        node = closed.service.nodes.show("web-1")
        assert (node.role, node.site, node.channel, node.mode) == (
            "web",
            "berlin",
            "stable",
            "inventory",
        )
        assert [entry.kind for entry in closed.entries()[-2:]] == ["enrolment", "approval"]
        assert closed.entries()[-1].actor == "server"
        assert listed(closed) == []
        assert listed(closed, all=True) == ["web-1"]
        machine.enrol(closed.call)  # at the next boot nothing is new

    def test_a_machine_on_two_lines_is_not_admitted(self, closed, machine):
        expect(closed, self.by_certificate(machine))
        expect(closed, Machine(name="web-2", role="web", ek_sha256=self.node_id(machine)))
        with pytest.raises(ListedTwice):
            machine.enrol(closed.call)

    def test_a_second_tpm_with_the_same_certificate_number_is_not_admitted(self, closed, machine):
        expect(closed, self.by_certificate(machine))
        with closed.opened.database.transaction() as rows:
            assert rows.expected.arrived("web-1", "ee" * 32)
        with pytest.raises(AlreadyArrived):
            machine.enrol(closed.call)

    def test_a_name_that_a_node_has_is_not_given_again(self, closed, machine):
        expect(closed, self.by_certificate(machine))
        enrolled(closed, "ee" * 32, name="web-1", role="web", approved_at=closed.clock())
        with pytest.raises(ListedNameTaken):
            machine.enrol(closed.call)
        closed.service.retirement.retire("web-1", FarewellRequest(reason="old"), "admin")
        assert machine.enrol(closed.call).name == "web-1"

    def test_policies_see_site_and_channel_and_the_verdict_can_be_reached_again(
        self, closed, machine
    ):
        text = (
            default_policy_text()
            + "\n[berlin] stands in Berlin\n  site == 'berlin' && channel == 'stable'\n"
        )
        document = PolicyDocument(name="where", version=1, text=text)
        signer = closed.keys.signer(KeyName.RELEASE)
        closed.service.policies.apply(seal_document(document, (), signer), "admin")
        expect(closed, self.by_certificate(machine, site="berlin", channel="beta"))
        machine.enrol(closed.call)
        machine.attest(closed.call)
        assert "policy:berlin" in self.codes(closed)
        with closed.opened.database.transaction() as rows:
            rows.nodes.place(machine.node_id, "berlin", "stable")
        closed.clock.pass_(1)
        machine.attest(closed.call)
        assert "policy:berlin" not in self.codes(closed)
        facts = closed.service.nodes.explain("web-1").facts
        assert (facts["site"], facts["channel"]) == ("berlin", "stable")
        log, key = LogFolder(closed.folder / "log"), closed.keys.public_key(KeyName.LOG)
        for seconds in (0, 1):
            at = closed.clock.time - timedelta(seconds=seconds)
            again = replay(
                find_verdict(log, key, "web-1", at), EvidenceStore(closed.folder / "evidence")
            )
            assert ("policy:berlin" in {one.code for one in again.reasons}) == bool(seconds)

    def codes(self, server) -> set[str]:
        return {reason.code for reason in server.service.nodes.show("web-1").reasons}
