"""Container records on the way: proven, logged before anything takes effect, told, simulated."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appraise.forged import keyset_of, release_of
from appraise.gatelog import IMAGE, POLICY, Recording, container_policy
from catena.appraise.policy import default_policy_text
from catena.audit.entries import ContainersRecorded, LoggedContainerEvent
from catena.audit.leaf import open_entry, seal_entry
from catena.audit.log import LogUnwritable
from catena.formats.containerpolicy import CONTAINER_POLICY_TYPE, Publisher
from catena.formats.nodeapi import AttestResult
from catena.formats.references import KEYSET_TYPE, RELEASE_TYPE
from catena.keys.envelope import UntrustedSigner
from catena.keys.hierarchy import KeyName
from catena.service import containers
from catena.service.references import ReferenceTaken
from catena.service.views import ApprovalRequest, SimulationRequest
from changed import replace
from service.fixtures import PASSWORD, START, make_server, put_secret, signed
from swtpm import needs_swtpm

EDGE = default_policy_text() + (
    "\n[edge] web nodes run only what acme published\n"
    '  role != "web" || container_publishers.all(p, p == "acme")\n'
)


def accept(server, policy=POLICY):
    document = signed(server.keys, CONTAINER_POLICY_TYPE, policy)
    return server.service.references.accept(document, "admin")


@pytest.fixture
def admitted(trusting, running_machine):
    accept(trusting)
    trusting.admit(running_machine)
    return trusting


def attest(server, machine) -> AttestResult:
    server.clock.pass_(1)
    return machine.attest(server.call)


def recorded(server):
    return [entry for entry in server.entries() if entry.kind == "containers"]


def explained(server):
    return server.service.nodes.explain("n1").containers


@needs_swtpm
@pytest.mark.tpm
class TestOnATpm:
    def test_every_record_is_logged_once_behind_its_verdict(self, admitted, running_machine):
        recording = Recording().begun().create().deny()
        running_machine.record(recording)
        assert attest(admitted, running_machine).state == "trusted"
        assert admitted.kinds()[-3:] == ["verdict", "containers", "certificate"]
        (entry,) = recorded(admitted)
        assert (entry.first, entry.last, entry.started, entry.refused) == (0, 3, 1, 1)
        assert [one.kind for one in entry.events] == ["gate-start", "policy", "create", "deny"]
        refusal = entry.events[-1]
        assert (refusal.container, refusal.code, refusal.image) == ("evil", "image-unsigned", IMAGE)
        assert "evil: image-unsigned" in entry.summary()
        attest(admitted, running_machine)
        assert recorded(admitted) == [entry]
        running_machine.record(recording.exec().exit())
        attest(admitted, running_machine)
        first, second = recorded(admitted)
        assert (first, second.first, second.last) == (entry, 4, 5)

    def test_a_restarted_server_logs_nothing_twice(self, admitted, running_machine):
        running_machine.record(Recording().begun().create())
        attest(admitted, running_machine)
        admitted.reopen()
        attest(admitted, running_machine)
        assert len(recorded(admitted)) == 1

    def test_what_one_attestation_may_not_log_follows_with_the_next(
        self, admitted, running_machine, monkeypatch
    ):
        monkeypatch.setattr(containers, "MAX_LOGGED", 3)
        running_machine.record(Recording().begun().create().exec().deny())
        attest(admitted, running_machine)
        attest(admitted, running_machine)
        attest(admitted, running_machine)
        assert [(one.first, one.last) for one in recorded(admitted)] == [(0, 2), (3, 4)]

    def test_containers_are_told_under_the_boot(self, admitted, running_machine):
        assert (attest(admitted, running_machine).state, explained(admitted)) == ("trusted", None)
        running_machine.record(Recording().begun().create().exec().deny().exit())
        attest(admitted, running_machine)
        told = explained(admitted)
        assert (told.started, told.executed, told.refused, told.unverified) == (1, 1, 1, 0)
        assert (told.policy, told.gate_restarts, told.omitted) == ("acme-containers@1", 0, 0)
        claims = [(event.kind, event.claimed_by) for event in told.events]
        by_policy = "container-policy:acme-containers@1"
        assert claims == [
            ("gate-start", "rule:container-gate"),
            ("policy", by_policy),
            ("create", by_policy),
            ("exec", by_policy),
            ("deny", by_policy),
            ("exit", "rule:container-gate"),
        ]
        create = told.events[2]
        assert (create.container, create.image, create.publisher) == ("web-1", IMAGE, "acme")
        assert (create.signature, create.what) == ("cosign-legacy", "/bin/server")
        assert "image-unsigned" in told.events[4].what

    def test_an_unverified_container_makes_the_node_untrusted_and_is_told(
        self, admitted, running_machine
    ):
        running_machine.record(Recording().begun().create().create("x", publisher="guest"))
        result = attest(admitted, running_machine)
        assert (result.state, result.certificate) == ("untrusted", None)
        assert [one.code for one in result.reasons] == ["container-unverified", "policy:containers"]
        assert "acme" in result.reasons[0].message
        *_, good, bad = explained(admitted).events
        assert (good.why, bad.claimed_by) == (None, None)
        assert "lets acme publish" in bad.why
        assert recorded(admitted)[-1].started == 2

    def test_a_record_that_was_edited_makes_the_node_untrusted(self, admitted, running_machine):
        recording = Recording().begun().create(publisher="guest")
        running_machine.record(recording)
        edited = Recording().begun().create()
        running_machine.boot = replace(running_machine.boot, containers=edited.data)
        result = attest(admitted, running_machine)
        assert (result.state, result.reasons[0].code) == (
            "untrusted",
            "container-record-unexplained",
        )
        assert admitted.kinds()[-1] == "verdict"
        assert explained(admitted) is None

    def test_a_record_that_is_gone_makes_the_node_untrusted(self, admitted, running_machine):
        running_machine.record(Recording().begun())
        attest(admitted, running_machine)
        running_machine.boot = replace(running_machine.boot, containers=None)
        assert attest(admitted, running_machine).reasons[0].code == "pcr-unexplained"

    def test_records_of_which_the_log_cannot_tell_have_no_effect(self, admitted, running_machine):
        attest(admitted, running_machine)
        running_machine.record(Recording().begun().create(publisher="stranger"))
        (admitted.folder / "log/checkpoint.new").unlink(missing_ok=True)
        (admitted.folder / "log/checkpoint.new").mkdir()
        with pytest.raises(LogUnwritable):
            attest(admitted, running_machine)
        assert admitted.node("n1").state == "trusted"
        (admitted.folder / "log/checkpoint.new").rmdir()
        assert attest(admitted, running_machine).state == "untrusted"
        # Once when the log could not publish it, and once when it had an effect.
        assert len(recorded(admitted)) == 2

    def test_a_policy_imported_later_accounts_for_what_ran(self, trusting, running_machine):
        trusting.admit(running_machine)
        running_machine.record(Recording().begun().create())
        result = attest(trusting, running_machine)
        assert "container-policy-unknown" in [one.code for one in result.reasons]
        assert explained(trusting).unverified == 1
        accept(trusting)
        trusting.service.approval.approve("n1", ApprovalRequest(), "admin")
        assert attest(trusting, running_machine).state == "trusted"
        assert explained(trusting).unverified == 0
        assert len(recorded(trusting)) == 1

    def test_secrets_are_not_sealed_to_what_containers_extend(self, admitted, running_machine):
        put_secret(admitted.service, "db", "web")
        (sealed,) = attest(admitted, running_machine).secrets
        running_machine.record(Recording().begun().create())
        assert running_machine.open(sealed) == PASSWORD

    def test_secrets_are_not_sealed_to_another_pcr_of_the_containers_either(
        self, tmp_path, keys, booted_tpm, boot, machine
    ):
        roots = tuple(f"software={path}" for path in booted_tpm.root_ca_pem_paths)
        server = make_server(tmp_path / "server", keys, roots, container_pcr=14)
        server.import_references(boot)
        put_secret(server.service, "db", "web")
        server.admit(machine)
        (sealed,) = attest(server, machine).secrets
        assert not {10, 14, 15} & set(sealed.pcrs)
        assert machine.open(sealed) == PASSWORD
        server.opened.close()

    def test_a_record_in_another_pcr_is_judged_if_the_server_says_so(
        self, tmp_path, keys, booted_tpm, boot, running_machine
    ):
        roots = tuple(f"software={path}" for path in booted_tpm.root_ca_pem_paths)
        server = make_server(tmp_path / "server", keys, roots, container_pcr=14)
        server.import_references(boot)
        accept(server)
        server.admit(running_machine)
        running_machine.record(Recording(pcr=14).begun().create())
        assert attest(server, running_machine).state == "trusted"
        assert explained(server).started == 1
        server.opened.close()

    def test_a_record_in_another_pcr_makes_the_node_untrusted_if_not(
        self, admitted, running_machine
    ):
        running_machine.record(Recording(pcr=14).begun().create(publisher="guest"))
        assert attest(admitted, running_machine).reasons[0].code == "pcr-unexplained"

    def test_simulation_judges_containers_again(self, admitted, running_machine):
        guest = {"publisher": "guest", "repository": "docker.io/guest/tool"}
        running_machine.record(Recording().begun().create(**guest))
        assert attest(admitted, running_machine).state == "trusted"
        simulate = admitted.service.simulation.run
        assert simulate(SimulationRequest()).changed == 0
        (node,) = simulate(SimulationRequest(policy=EDGE)).nodes
        assert [one.code for one in node.reasons] == ["policy:edge"]
        found = simulate(SimulationRequest(without=("acme-containers",)))
        assert "container-policy-unknown" in [one.code for one in found.nodes[0].reasons]
        added = signed(admitted.keys, CONTAINER_POLICY_TYPE, container_policy(2))
        assert simulate(SimulationRequest(references=(added,))).changed == 0


# Container policies as references ----------------------------------------------------------


def test_a_signed_container_policy_becomes_a_reference(server):
    view = accept(server)
    assert (view.kind, view.name, view.version) == ("container-policy", "acme-containers", "1")
    active = server.service.references.active().container_policies
    assert [one.label for one in active.values()] == ["acme-containers@1"]
    shown = server.service.references.show("acme-containers@1")
    assert shown.document["scopes"][0]["repository"] == "registry.acme.example/*"
    assert server.kinds()[-1] == "reference"


def test_a_published_container_policy_never_changes(server):
    accept(server)
    with pytest.raises(ReferenceTaken):
        accept(server, container_policy(publishers=(*POLICY.publishers, Publisher(name="eve"))))
    accept(server, container_policy(2))
    assert len(server.service.references.active().container_policies) == 2


def test_a_container_policy_of_another_key_is_refused(server):
    forged = signed(server.keys, CONTAINER_POLICY_TYPE, POLICY, KeyName.LOG)
    with pytest.raises(UntrustedSigner):
        server.service.references.accept(forged, "admin")


def test_the_containers_pcr_is_the_servers_setting(tmp_path, keys, boot):
    server = make_server(tmp_path / "server", keys, container_pcr=14)
    for kind, document in ((KEYSET_TYPE, keyset_of(boot)), (RELEASE_TYPE, release_of(boot))):
        server.service.references.accept(signed(keys, kind, document), "admin")
    assert server.service.references.active().container_pcr == 14
    server.opened.close()


# What fits into an entry -------------------------------------------------------------------

CONTAINERS = ContainersRecorded(
    at=START,
    actor="n" * 253,
    node_id="ab" * 32,
    node_name="n" * 253,
    evidence_sha256="cd" * 32,
    record_sha256="ef" * 32,
    record_size=16 * 1024 * 1024,
    first=0,
    last=99_999,
    started=100_000,
    refused=100_000,
    events=(),
)
WORDS = st.text(max_size=200)
EVENTS = st.builds(
    LoggedContainerEvent,
    record=st.integers(0, 100_000),
    kind=st.just("create"),
    container=WORDS,
    image=WORDS,
    repository=WORDS,
    publisher=WORDS,
    code=WORDS,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(EVENTS, min_size=1, max_size=8), times=st.integers(1, 60))
def test_every_parcel_fits_into_an_entry(keys, events, times):

    signer = keys.signer(KeyName.LOG)
    parcels = list(containers._parcels(events * times))
    assert [one for parcel in parcels for one in parcel] == events * times
    for parcel in parcels:
        entry = msgspec.structs.replace(CONTAINERS, events=parcel)
        assert open_entry(seal_entry(signer, entry), signer.public_key) == entry


def test_the_longest_words_fit_into_an_entry(keys):
    word = "\U0001f600" * 500
    event = LoggedContainerEvent(
        record=1, kind="deny", container=word, image='"' * 500, repository="\\" * 500, code=word
    )

    for parcel in containers._parcels([event] * 200):
        seal_entry(keys.signer(KeyName.LOG), msgspec.structs.replace(CONTAINERS, events=parcel))
