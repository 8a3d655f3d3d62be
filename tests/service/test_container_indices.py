"""Records in NV indices on the whole way: gates' recorders and the agent over a real TPM, a real server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from tpm2_pytss.constants import TPMA_NV
from tpm2_pytss.types import TPM2B_NV_PUBLIC, TPMS_NV_PUBLIC

import small_indices
from appraise.gatelog import BOOT_ID, IMAGE, POLICY, REPOSITORY, launch
from catena.agent.attestation import Attester
from catena.agent.client import LogsMissing
from catena.agent.gate.register import space_of
from catena.audit.entries import ContainersRecorded
from catena.containers.record.recorder import Recorder
from catena.evidence import Evidence, IndexCertificate
from catena.formats.containerlog import Create, Deny, PolicyInForce
from catena.formats.containerpolicy import policy_digest
from catena.formats.nodeapi import AttestResult, NonceRequest, NonceResponse
from catena.ids import HashAlg, NodeId
from catena.service import attestation
from catena.service.views import SimulationRequest
from catena.tpm.device import connected, open_tpm
from catena.tpm.nvindex import open_nv
from catena.tpm.wire import unmarshal
from service.fixtures import PASSWORD, Server, make_server, put_secret
from service.machine import Machine
from service.test_container_evidence import EDGE, accept
from small_indices import ONE, TWO
from swtpm import SoftwareTpm, needs_swtpm, software_tpm

pytestmark = [pytest.mark.tpm, needs_swtpm]

INDICES = (ONE, TWO)


@dataclass
class Client:
    """The agent's client without HTTP; ``bend`` changes evidence on its way."""

    server: Server
    bend: dict

    def nonce(self, node: NodeId) -> bytes:
        return self.server.call("/v1/nonce", NonceRequest(node_id=node), NonceResponse).nonce

    def attest(self, evidence: Evidence) -> AttestResult:
        evidence = msgspec.structs.replace(evidence, **self.bend)
        try:
            return self.server.call("/v1/attest", evidence, AttestResult)
        except attestation.LogsMissing as error:
            raise LogsMissing(error.missing) from error


@dataclass
class Node:
    """A machine with two tenants, each of which can have a gate. One program at a time has the TPM."""

    tpm: SoftwareTpm
    boot: object
    server: Server
    folder: Path
    boot_id: str = BOOT_ID
    attester: Attester | None = None

    def record(self, index: int) -> Path:
        return self.folder / f"{index:x}/containers.cel"

    @contextmanager
    def gate(self, index: int) -> Iterator[Recorder]:
        """A gate's recorder, after ``gate-start`` and its policy."""
        small_indices.seal(self.tpm.tcti)
        with open_nv(self.tpm.tcti, space_of(index, small_indices.PCR)) as register:
            recorder = Recorder(
                self.record(index), register, self.server.clock, nv_index=index, boot=self.boot_id
            )
            recorder.recover()
            recorder.append(recorder.gate_start("test"))
            at = self.server.clock()
            digest = policy_digest(POLICY)
            recorder.append(
                PolicyInForce(at=at, policy=digest, name=POLICY.name, version=POLICY.version)
            )
            yield recorder
            recorder.close()

    def run(self, index: int, container: str = "web-1", publisher: str = "acme") -> None:
        with self.gate(index) as recorder:
            recorder.append(
                Create(
                    at=self.server.clock(),
                    container=container,
                    image=IMAGE,
                    repository=REPOSITORY,
                    publisher=publisher,
                    signature="cosign-legacy",
                    root="cd" * 32,
                    policy=policy_digest(POLICY),
                    launch=launch(),
                )
            )

    def deny(self, index: int) -> None:
        with self.gate(index) as recorder:
            recorder.append(
                Deny(
                    at=self.server.clock(),
                    container="evil",
                    verb="create",
                    code="image-unsigned",
                    message="nobody signed this image",
                    policy=policy_digest(POLICY),
                )
            )

    def measure(self) -> None:
        with open_tpm(self.tpm.tcti) as tpm:
            Machine(tpm, self.boot).measure()

    def admit(self) -> None:
        with open_tpm(self.tpm.tcti) as tpm:
            machine = Machine(tpm, self.boot)
            self.server.admit(machine)
        for name, content in (("boot.log", self.boot.log), ("ima.log", self.boot.ima)):
            (self.folder / name).write_bytes(content)
        self.attester = Attester(
            node_id=NodeId(machine.node_id),
            bank=HashAlg.SHA256,
            event_log=self.folder / "boot.log",
            ima_log=self.folder / "ima.log",
            authorities=self.server.service.setting.authorities.believed(self.server.clock()),
            now=self.server.clock,
            container_records={index: self.record(index) for index in INDICES},
        )

    def attest(self, **bend) -> AttestResult:
        self.server.clock.pass_(1)
        client = Client(self.server, bend)
        with open_tpm(self.tpm.tcti) as tpm:
            return self.attester.attest(tpm, client).result

    def reasons(self, **bend) -> list[str]:
        return [one.code for one in self.attest(**bend).reasons]


@pytest.fixture
def expecting(tmp_path, keys, boot, booted_tpm) -> Iterator[Server]:
    """A server that expects two tenants on every node."""
    roots = tuple(f"software={path}" for path in booted_tpm.root_ca_pem_paths)
    server = make_server(tmp_path / "server", keys, roots, container_indices=INDICES)
    server.import_references(boot)
    accept(server)
    yield server
    server.opened.close()


@pytest.fixture
def node(tmp_path, tpm_ca, boot, expecting) -> Iterator[Node]:
    with software_tpm(tmp_path / "own-tpm", ca=tpm_ca) as tpm:
        node = Node(tpm, boot, expecting, tmp_path)
        node.measure()
        node.admit()
        yield node


def explained(node: Node):
    return node.server.service.nodes.explain("n1")


def logged(node: Node) -> list[ContainersRecorded]:
    return [entry for entry in node.server.entries() if entry.kind == "containers"]


def undefine(node: Node, index: int = ONE) -> None:
    """What whoever has the owner authorisation can do."""
    with connected(node.tpm.tcti) as esys:
        esys.nv_undefine_space(esys.tr_from_tpmpublic(index))


def test_two_tenants_on_one_node(node):
    node.run(ONE)
    node.run(TWO, "db-1")
    node.deny(TWO)
    result = node.attest()
    assert (result.state, result.reasons) == ("trusted", ())
    told = explained(node)
    assert told.containers is None
    assert [(one.nv_index, one.started, one.refused) for one in told.tenants] == [
        ("0x01800f00", 1, 0),
        ("0x01800f01", 1, 1),
    ]
    assert [one.gate_restarts for one in told.tenants] == [0, 1]
    assert told.tenants[1].events[2].container == "db-1"
    assert told.facts["containers_started"] == 2
    first, second = logged(node)
    assert (first.nv_index, first.started, second.nv_index, second.refused) == (ONE, 1, TWO, 1)
    assert second.summary().startswith("containers 0 to 5 of NV index 0x01800f01: 1 started")


def test_only_news_are_logged(node):
    node.run(ONE)
    node.attest()
    node.attest()
    node.server.reopen()
    node.attest()
    node.run(TWO)
    node.attest()
    assert [(one.nv_index, one.first, one.last) for one in logged(node)] == [
        (ONE, 0, 2),
        (TWO, 0, 2),
    ]


def test_before_any_gate_there_are_no_containers(node):
    assert node.attest().state == "trusted"
    assert explained(node).tenants == ()


def test_a_tenant_without_a_gate_has_an_index_all_the_same(node):
    node.run(ONE)
    assert node.attest().state == "trusted"
    assert [one.nv_index for one in explained(node).tenants] == ["0x01800f00"]


def test_one_tenants_container_makes_the_node_untrusted(node):
    node.run(ONE)
    node.run(TWO, publisher="guest")
    assert node.reasons() == ["container-unverified", "policy:containers"]
    assert [one.unverified for one in explained(node).tenants] == [0, 1]


def test_a_new_boot_begins_new_records(node):
    node.run(ONE)
    node.run(TWO)
    assert node.attest().state == "trusted"
    node.tpm.power_cycle()
    node.boot_id = "22222222-2222-3333-4444-555555555555"
    node.measure()
    assert node.attest().state == "trusted"
    assert explained(node).tenants == ()  # the old records wait; no gate has started
    node.run(TWO, "db-2")
    node.deny(ONE)
    result = node.attest()
    assert (result.state, result.reasons) == ("trusted", ())
    assert [(one.started, one.refused) for one in explained(node).tenants] == [(0, 1), (1, 0)]


def test_secrets_are_still_released_and_open(node):
    put_secret(node.server.service, "db", "web")
    node.run(ONE)
    (sealed,) = node.attest().secrets
    node.run(ONE)
    with open_tpm(node.tpm.tcti) as tpm:
        assert Machine(tpm, node.boot).open(sealed) == PASSWORD


def test_simulation_judges_every_tenant_again(node):
    node.run(ONE)
    node.run(TWO)
    assert node.attest().state == "trusted"
    simulate = node.server.service.simulation.run
    assert simulate(SimulationRequest()).changed == 0
    assert simulate(SimulationRequest(policy=EDGE)).changed == 0
    found = simulate(SimulationRequest(without=("acme-containers",))).nodes[0].reasons
    assert [one.code for one in found].count("container-policy-unknown") == 2


# Attacks -----------------------------------------------------------------------------------


def test_an_index_that_was_removed_makes_the_node_untrusted(node):
    node.run(ONE, publisher="guest")
    undefine(node)
    assert node.reasons() == ["container-index-uncertified"]


def test_an_index_that_was_removed_and_put_back_makes_the_node_untrusted(node):
    node.run(ONE, publisher="guest")
    undefine(node)
    with connected(node.tpm.tcti) as esys:
        nvindex_defined(esys, ONE)
    node.record(ONE).unlink()
    assert node.reasons() == ["container-index-uncertified"]


def test_an_index_with_other_attributes_makes_the_node_untrusted(node):
    node.run(ONE, publisher="guest")
    undefine(node)
    with connected(node.tpm.tcti) as esys:
        handle = nvindex_defined(esys, ONE, policy=False)
        esys.nv_extend(handle, small_indices.FIRST.opening, auth_handle=handle)
    node.record(ONE).unlink()
    assert node.reasons() == ["container-index-altered"]


def test_a_record_that_was_edited_makes_the_node_untrusted(node):
    node.run(ONE, "web-1")
    record = node.record(ONE)
    record.write_bytes(record.read_bytes().replace(b"web-1", b"web-2"))
    assert node.reasons() == ["container-record-altered"]


def test_a_record_that_is_gone_makes_the_node_untrusted(node):
    node.run(ONE)
    node.record(ONE).unlink()
    assert node.reasons() == ["container-index-unrecorded"]


def test_a_tenant_that_the_agent_does_not_name_makes_the_node_untrusted(node):
    node.run(ONE)
    node.run(TWO, publisher="guest")
    node.attester.container_records = {ONE: node.record(ONE)}
    assert node.reasons() == ["container-index-uncertified"]
    node.attester.container_records = {None: node.folder / "none"}
    assert node.reasons() == ["container-index-uncertified"]


def test_the_certificate_of_an_earlier_round_makes_the_node_untrusted(node):
    node.run(ONE)
    with open_tpm(node.tpm.tcti) as tpm:
        machine = Machine(tpm, node.boot)
        old = [certificate(tpm, index, machine.spki()[:32]) for index in INDICES]
    node.run(ONE, "evil", publisher="guest")
    assert node.reasons(indices=tuple(old)) == ["container-index-unbound"]


def test_certificates_that_are_left_out_make_the_node_untrusted(node):
    node.run(ONE)
    assert node.reasons(indices=msgspec.UNSET) == ["container-index-uncertified"]


def test_a_record_in_the_pcr_instead_makes_the_node_untrusted(node):
    with open_tpm(node.tpm.tcti) as tpm:
        tpm.extend(15, {bank: bank.digest(b"hidden") for bank in tpm.banks()})
    assert node.reasons() == ["container-seal-unexplained"]


def test_a_server_that_expects_a_pcr_refuses_indices(tmp_path, keys, tpm_ca, boot, booted_tpm):
    roots = tuple(f"software={path}" for path in booted_tpm.root_ca_pem_paths)
    server = make_server(tmp_path / "plain", keys, roots)
    server.import_references(boot)
    accept(server)
    with software_tpm(tmp_path / "own-tpm", ca=tpm_ca) as tpm:
        node = Node(tpm, boot, server, tmp_path)
        node.measure()
        node.admit()
        node.run(ONE)
        assert node.reasons() == ["pcr-unexplained"]
    server.opened.close()


def nvindex_defined(esys, index: int, *, policy: bool = True):
    """The index once more, as it was, or open to everybody."""
    public = unmarshal(TPMS_NV_PUBLIC, space_of(index, small_indices.PCR).public)
    if not policy:
        public.attributes |= TPMA_NV.AUTHWRITE
        public.authPolicy = b""
    return esys.nv_define_space(b"", TPM2B_NV_PUBLIC(nvPublic=public))


def certificate(tpm, index: int, qualifying: bytes) -> IndexCertificate:
    attest, signature = tpm.certify_nv(index, qualifying)
    return IndexCertificate(nv_index=index, attest=attest, signature=signature)
