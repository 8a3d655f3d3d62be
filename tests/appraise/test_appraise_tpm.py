"""The same judgement over a real TPM's keys, certificates and quotes."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from forged import CSR, NONCE_KEY, NOW, POLICY, SHA256, spki

from catena.appraise.appraisal import appraise
from catena.appraise.attestation_key import check_attestation_key
from catena.appraise.endorsement import EndorsementKind, TrustRoot, TrustRoots, endorse
from catena.appraise.endorsement_refusal import ExpiredEkCertificate, UntrustedEkIssuer
from catena.appraise.nonce import make_nonce
from catena.appraise.quote import ForeignSigner, ResetCountRollback
from catena.appraise.replayed import NeverExtendedPcrs
from catena.appraise.verdict import KnownNode
from catena.evidence import Evidence, log_entry, qualifying_data
from catena.formats import ima, tcglog
from catena.formats.tcglog import EventType
from catena.formats.tpm2 import parse_attest, parse_public
from catena.ids import QUOTED_PCRS, NodeId
from changed import replace
from swtpm import needs_swtpm, software_tpm

pytest.importorskip("tpm2_pytss", reason="driving a TPM needs the agent extra")
from catena.tpm.device import open_tpm

pytestmark = [pytest.mark.tpm, needs_swtpm]


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    with software_tpm(tmp_path_factory.mktemp("appraise")) as tpm:
        yield tpm


@pytest.fixture
def opened(machine):
    with open_tpm(machine.tcti) as tpm:
        yield tpm


@pytest.fixture(scope="module")
def roots(machine) -> TrustRoots:
    return TrustRoots(
        roots=tuple(
            TrustRoot(path.name, EndorsementKind.SOFTWARE, _der(path.read_text()))
            for path in machine.root_ca_pem_paths
        )
    )


def _der(pem: str) -> bytes:
    body = re.search(r"-----BEGIN CERTIFICATE-----(.*?)-----END", pem, re.DOTALL)
    return base64.b64decode(body[1])


def evidence_of(tpm, boot) -> tuple[Evidence, KnownNode]:
    node = NodeId(hashlib.sha256(tpm.ek_public()).hexdigest())
    nonce = make_nonce(NONCE_KEY, node, NOW, b"r" * 16)
    contents = {"tcg2": boot.log, "ima": boot.ima}
    manifest = tuple(log_entry(kind, content) for kind, content in contents.items())
    quote = tpm.quote_pcrs(qualifying_data(nonce, spki(), manifest), SHA256, QUOTED_PCRS)
    evidence = Evidence(
        node_id=node,
        nonce=nonce,
        bank="sha256",
        quote=quote.attest,
        signature=quote.signature,
        csr=CSR,
        pcrs=quote.values,
        manifest=manifest,
        logs={log_entry(kind, content).sha256: content for kind, content in contents.items()},
    )
    return evidence, KnownNode(id=node, ak_public=tpm.ak_public(), clock=None)


def judged(evidence, node, references):
    return appraise(
        evidence,
        logs=evidence.logs,
        node=node,
        nonce_key=NONCE_KEY,
        references=references,
        policy=POLICY,
        now=NOW,
    )


def replay_into(tpm, boot) -> None:
    """Bring a TPM into the state that a boot left its own in."""
    for event in tcglog.parse(boot.log).events:
        if event.type != EventType.EV_NO_ACTION:
            tpm.extend(event.pcr, {SHA256: event.digests[SHA256]})
    for entry in ima.parse(boot.ima):
        tpm.extend(entry.pcr, {SHA256: ima.replay_digest(entry, SHA256)})


def test_a_real_tpm_is_endorsed_by_its_own_ca_and_no_other(opened, roots):
    now, certificates = datetime.now(UTC), opened.ek_certificates()
    ek = parse_public(opened.ek_public())
    assert endorse(certificates, ek, roots, now).kind is EndorsementKind.SOFTWARE
    with pytest.raises(UntrustedEkIssuer):
        endorse(certificates, ek, TrustRoots(), now)
    with pytest.raises(ExpiredEkCertificate):
        endorse(certificates, ek, roots, now - timedelta(days=365))


def test_a_real_attestation_key_is_accepted(opened):
    check_attestation_key(parse_public(opened.ak_public()))


def test_a_real_quote_over_a_real_boot_is_trusted_until_the_tpm_is_reset(machine, boot, references):
    machine.power_cycle()
    with open_tpm(machine.tcti) as tpm:
        blank, node = evidence_of(tpm, boot)
        replay_into(tpm, boot)
        evidence, _ = evidence_of(tpm, boot)
    with pytest.raises(NeverExtendedPcrs):
        judged(blank, node, references)
    appraisal = judged(evidence, node, references)
    assert appraisal.verdict == "trusted"
    assert appraisal.pcr_values == dict(enumerate(boot.values))

    machine.power_cycle()
    with open_tpm(machine.tcti) as tpm:
        later, _ = evidence_of(tpm, boot)
    with pytest.raises(NeverExtendedPcrs):
        judged(later, node, references)
    resets = parse_attest(later.quote).clock.reset_count
    assert resets == appraisal.clock.reset_count + 1
    aware = replace(node, clock=replace(appraisal.clock, reset_count=resets))
    with pytest.raises(ResetCountRollback):
        judged(evidence, aware, references)


def test_another_tpms_quote_is_not_this_nodes(machine, tmp_path, boot, references):
    with open_tpm(machine.tcti) as tpm:
        evidence, node = evidence_of(tpm, boot)
    another = software_tpm(tmp_path / "other", certificates=False)
    with another as other, open_tpm(other.tcti) as tpm:
        foreign, _ = evidence_of(tpm, boot)
    moved = msgspec.structs.replace(
        evidence, quote=foreign.quote, signature=foreign.signature, pcrs=foreign.pcrs
    )
    with pytest.raises(ForeignSigner):
        judged(moved, node, references)
