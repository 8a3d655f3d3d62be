"""Several nodes' evidence decided at once: each by itself, and all of them durable together."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from appraise.forged import CORPUS
from catena.appraise.quote import ForgedQuote, ReplayedQuote
from catena.audit.evidence import EvidenceStore
from catena.audit.log import LogUnwritable
from catena.audit.receipt import verify_proof
from catena.evidence import Evidence
from catena.formats.dsse import Statement
from catena.formats.nodeapi import AttestResult, NonceRequest, NonceResponse
from catena.keys.envelope import seal
from catena.keys.hierarchy import KeyName
from catena.lab.fleet.boots import recorded_boots
from catena.lab.fleet.node import BootLogs, FleetNode
from catena.lab.fleet.softtpm import SoftwareMaker, SoftwareTpm, endorsement_keys, utc_now
from catena.service.conclusion import RacedAttestation
from catena.service.nodes import UnknownNode
from catena.store.errors import DatabaseGone
from catena.store.nodes import Clock
from recorded import record_boots
from service.fixtures import Server, make_server

pytestmark = pytest.mark.skipif(
    not (CORPUS / "boots").is_dir(), reason="the corpus of real boots is not here"
)
COUNT = 5


@pytest.fixture(scope="module")
def boots(tmp_path_factory):
    return recorded_boots(record_boots(tmp_path_factory.mktemp("boots")))


@pytest.fixture(scope="module")
def maker():
    return SoftwareMaker.make(utc_now())


@pytest.fixture(scope="module")
def endorsement():
    return list(itertools.islice(endorsement_keys(), COUNT))


def fleet_server(folder, keys, boots, maker, **settings) -> Server:
    root = folder / "maker.pem"
    root.write_bytes(maker.certificate.public_bytes(Encoding.PEM))
    server = make_server(folder / "server", keys, (f"software={root}",), mode="open", **settings)
    for kind, predicate in dict.fromkeys(one for boot in boots for one in boot.documents()):
        statement = Statement(subject=(), predicate_type=kind, predicate=msgspec.Raw(predicate))
        envelope = seal(keys.signer(KeyName.RELEASE), statement).encode()
        server.service.references.accept(envelope, "admin")
    return server


def joined(server, boots, maker, endorsement) -> list[FleetNode]:
    """Nodes that attested once."""
    nodes = []
    for number, ek in enumerate(endorsement):
        boot = boots[number % len(boots)]
        tpm = SoftwareTpm(ek, maker.endorse(ek.public_key(), utc_now()), boot.pcrs)
        node = FleetNode(tpm, BootLogs.of(boot))
        challenge = server.service.enrolment.begin(tpm.enrolment())
        node.node_id = challenge.node_id
        server.service.enrolment.finish(tpm.activate(challenge))
        nodes.append(node)
    for result in together(server, evidence_of(server, nodes)):
        assert result.verdict == "trusted", result
    for node in nodes:
        node.attested = True
    server.clock.pass_(1)
    return nodes


def evidence_of(server, nodes) -> list[Evidence]:
    requests = [NonceRequest(node_id=node.node_id) for node in nodes]
    nonces = server.service.attestation.nonces(requests)
    return [node.evidence(one.nonce) for node, one in zip(nodes, nonces, strict=True)]


def together(server, evidence) -> tuple[AttestResult | Exception, ...]:
    return server.service.attestation.attest_all(evidence)


@pytest.fixture
def server(tmp_path, keys, boots, maker):
    made = fleet_server(tmp_path, keys, boots, maker)
    yield made
    made.opened.close()


@pytest.fixture
def nodes(server, boots, maker, endorsement):
    return joined(server, boots, maker, endorsement)


def rows_of(server, nodes):
    with server.opened.database.snapshot() as rows:
        return [rows.nodes.get(node.node_id) for node in nodes]


def certificates(server, node) -> int:
    with server.opened.database.snapshot() as rows:
        return len(rows.certificates.valid(node.node_id, now=server.clock()))


def trusted(outcomes) -> list[bool]:
    return [isinstance(one, AttestResult) and one.certificate is not None for one in outcomes]


def test_each_gets_its_own_certificate_receipts_and_entries(server, nodes):
    before = len(server.entries())
    results = together(server, evidence_of(server, nodes))
    assert trusted(results) == [True] * COUNT
    key = server.service.setting.journal.public_key
    entries = server.entries()
    for node, result in zip(nodes, results, strict=True):
        proven = [verify_proof(one.encode(), key) for one in result.receipts]
        assert [one.entry.kind for one in proven] == ["verdict", "certificate"]
        assert {one.entry.node_id for one in proven} == {node.node_id}
        assert all(entries[one.index] == one.entry for one in proven)
    assert len(entries) == before + 2 * COUNT
    assert len({result.certificate for result in results}) == COUNT
    assert all(row.last_attested == server.clock() for row in rows_of(server, nodes))


def test_the_evidence_of_each_is_there_before_its_entry(server, nodes):
    evidence = evidence_of(server, nodes)
    kept = []
    append = server.service.setting.journal.append

    def look(leaves):
        store = EvidenceStore(server.folder / "evidence")
        kept.extend(store.read(one) for one in digests)
        return append(leaves)

    from catena.service.conclusion import evidence_digest

    digests = [evidence_digest(one) for one in evidence]
    server.service.setting.journal.append = look
    assert all(trusted(together(server, evidence)))
    assert len(kept) == COUNT


def test_the_refused_one_of_several_is_refused_alone(server, nodes):
    evidence = evidence_of(server, nodes)
    before = rows_of(server, nodes)
    evidence[2] = msgspec.structs.replace(evidence[2], signature=evidence[1].signature)
    outcomes = together(server, evidence)
    assert trusted(outcomes) == [True, True, False, True, True]
    assert isinstance(outcomes[2], ForgedQuote)
    assert rows_of(server, nodes)[2] == before[2]
    assert sum(one.kind == "denial" for one in server.entries()) == 1


def test_an_unknown_node_among_known_ones_is_refused_alone(server, nodes):
    stranger = "ab" * 32
    requests = [NonceRequest(node_id=one) for one in (nodes[0].node_id, stranger)]
    answers = server.service.attestation.nonces(requests)
    assert isinstance(answers[0], NonceResponse)
    assert isinstance(answers[1], UnknownNode)
    evidence = evidence_of(server, nodes[:2])
    evidence[0] = msgspec.structs.replace(evidence[0], node_id=stranger)
    outcomes = together(server, evidence)
    assert isinstance(outcomes[0], UnknownNode)
    assert trusted(outcomes) == [False, True]


def test_a_defect_that_one_node_meets_is_its_own(server, nodes, monkeypatch):
    attestation = server.service.attestation
    judge = attestation._judge

    def defective(node, *arguments):
        if node.id == nodes[1].node_id:
            raise ZeroDivisionError
        return judge(node, *arguments)

    monkeypatch.setattr(attestation, "_judge", defective)
    outcomes = together(server, evidence_of(server, nodes))
    assert trusted(outcomes) == [True, False, True, True, True]
    assert isinstance(outcomes[1], ZeroDivisionError)


def test_two_of_one_node_are_decided_one_after_the_other(server, nodes):
    first, second = evidence_of(server, [nodes[0], nodes[0]])
    results = together(server, [first, second])
    assert trusted(results) == [True, True]
    server.clock.pass_(1)
    [once] = evidence_of(server, [nodes[0]])
    outcomes = together(server, [once, once])
    assert trusted(outcomes) == [True, False]
    assert isinstance(outcomes[1], ReplayedQuote)


def test_a_race_lost_by_one_is_lost_by_no_other(server, nodes):
    """Another replica concludes about one of them between our judgement and its effect."""
    journal, append = server.service.setting.journal, server.service.setting.journal.append

    def race(leaves):
        recorded = append(leaves)
        with server.opened.database.transaction() as rows:
            row = rows.nodes.get(nodes[3].node_id)
            rows.nodes.advance_clock(row, Clock(row.reset_count, 0, 2**40))
        return recorded

    journal.append = race
    had = [certificates(server, node) for node in nodes]
    outcomes = together(server, evidence_of(server, nodes))
    assert trusted(outcomes) == [True, True, True, False, True]
    assert isinstance(outcomes[3], RacedAttestation)
    assert [certificates(server, node) for node in nodes] == [
        count + (number != 3) for number, count in enumerate(had)
    ]


@pytest.mark.parametrize("failing", ["append", "effect"])
def test_what_cannot_be_written_is_refused_to_everybody(server, nodes, monkeypatch, failing):
    error = {"append": LogUnwritable("no room"), "effect": DatabaseGone("gone")}[failing]

    def fail(*_):
        raise error

    before = rows_of(server, nodes)
    monkeypatch.setattr(server.service.setting.journal, failing, fail)
    outcomes = together(server, evidence_of(server, nodes))
    assert outcomes == (error,) * COUNT
    assert rows_of(server, nodes) == before
    monkeypatch.undo()
    assert all(trusted(together(server, evidence_of(server, nodes))))


def test_groups_that_share_nodes_do_not_wait_for_each_other_for_ever(server, nodes):
    groups = [nodes, nodes[::-1], nodes[2:] + nodes[:2]]
    done = []

    def attest(group):
        done.append(together(server, evidence_of(server, group)))

    threads = [threading.Thread(target=attest, args=(group,), daemon=True) for group in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(done) == len(groups)


def test_nothing_is_nothing(server):
    assert together(server, []) == ()
    assert server.service.attestation.nonces([]) == ()


def test_several_nodes_attest_on_postgresql_with_the_log_in_it(
    *, tmp_path, keys, boots, maker, endorsement, postgresql
):
    server = fleet_server(
        tmp_path, keys, boots, maker, database=postgresql.new_database(), log="database:"
    )
    nodes = joined(server, boots, maker, endorsement)
    evidence = evidence_of(server, nodes)
    evidence[0] = msgspec.structs.replace(evidence[0], signature=evidence[1].signature)
    assert trusted(together(server, evidence)) == [False, True, True, True, True]
    test_a_race_lost_by_one_is_lost_by_no_other(server, nodes)
    server.opened.close()


def test_a_refusal_keeps_no_evidence_in_memory(server, nodes):
    """Without the collector of circles: whoever sends bad evidence all day must not fill memory."""
    evidence = evidence_of(server, nodes)
    evidence[2] = msgspec.structs.replace(evidence[2], signature=evidence[1].signature)
    gc.collect()
    gc.disable()
    try:
        outcomes = together(server, evidence)
        refusal = weakref.ref(outcomes[2])
        assert isinstance(refusal(), ForgedQuote)
        del outcomes
        assert refusal() is None
    finally:
        gc.enable()
