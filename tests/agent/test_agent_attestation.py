from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from stand_in import Refused, StandIn

import small_indices
from catena.agent.attestation import Attester, UnsteadyLog
from catena.agent.client import LogsMissing, RequestRefused, TrustClient, UnknownNode
from catena.agent.enrolment import enrol, node_id
from catena.agent.identity import MismatchedCertificate, new_request
from catena.agent.logs import MissingBootLog
from catena.formats.tpm2 import parse_attest
from catena.ids import HashAlg
from catena.tpm.device import Tpm, open_tpm
from swtpm import needs_swtpm

pytestmark = [pytest.mark.tpm, needs_swtpm]


@pytest.fixture
def client(service: StandIn, ca_file) -> Iterator[TrustClient]:
    with TrustClient(service.url, ca_file) as client:
        yield client


@pytest.fixture
def attester(tpm: Tpm, client: TrustClient, config, cluster_ca) -> Attester:
    enrol(tpm, client)
    return Attester(
        node_id=node_id(tpm.ek_public()),
        bank=HashAlg.SHA256,
        event_log=config.event_log,
        ima_log=config.ima_log,
        container_records=config.container_records,
        authorities=(cluster_ca.certificate,),
        now=lambda: datetime.now(UTC),
    )


def test_admitted_node_holds_a_certificate_for_the_key_it_quoted(
    tpm: Tpm, client, attester: Attester, service: StandIn
):
    # The stand-in checks signature, qualifying data and PCR digest.
    round_ = attester.attest(tpm, client)
    assert round_.result.verdict == "trusted"
    assert round_.identity is not None
    assert round_.identity.certificate.startswith(b"-----BEGIN CERTIFICATE")


def test_every_round_has_its_own_nonce_key_and_quote(
    tpm: Tpm, client, attester: Attester, service: StandIn
):
    attester.attest(tpm, client)
    attester.attest(tpm, client)
    first, second = service.evidence
    assert first.nonce != second.nonce
    assert first.csr != second.csr
    assert first.quote != second.quote


def test_log_travels_once(tpm: Tpm, client, attester: Attester, service: StandIn):
    attester.attest(tpm, client)
    attester.attest(tpm, client)
    first, second = service.evidence
    assert first.manifest == second.manifest
    assert list(first.logs.values()) == [b"firmware event log"]
    assert second.logs == {}


def test_server_that_lost_the_logs_gets_them_again_under_a_fresh_nonce(
    tpm: Tpm, client, attester: Attester, service: StandIn
):
    attester.attest(tpm, client)
    service.logs.clear()
    service.requests.clear()
    assert attester.attest(tpm, client).identity is not None
    assert service.requests == ["/v1/nonce", "/v1/attest"] * 2
    assert service.evidence[-1].logs


def test_server_that_never_has_the_logs_is_not_asked_for_ever(
    tpm: Tpm, client, attester: Attester, service: StandIn
):
    def forget() -> None:
        raise Refused(409, "logs-missing", missing_logs=("12" * 32,))

    service.before_attest = forget
    service.requests.clear()
    with pytest.raises(LogsMissing):
        attester.attest(tpm, client)
    assert service.requests == ["/v1/nonce", "/v1/attest"] * 2


def test_log_counts_as_sent_only_when_the_server_answered(
    tpm: Tpm, client, attester: Attester, service: StandIn
):
    service.faults = [Refused(503, "unavailable")]
    with pytest.raises(Exception, match="cannot answer"):
        attester.attest(tpm, client)
    attester.attest(tpm, client)
    assert service.evidence[-1].logs


def test_ima_log_is_sent_beside_the_boot_log(
    tpm: Tpm, client, attester: Attester, service: StandIn
):
    attester.ima_log.write_bytes(b"measurements")
    attester.attest(tpm, client)
    assert [entry.kind for entry in service.evidence[-1].manifest] == ["tcg2", "ima"]


def test_container_record_is_sent_beside_the_other_logs(
    tpm: Tpm, client, attester: Attester, service: StandIn
):
    attester.container_records[None].write_bytes(b"records")
    attester.ima_log.write_bytes(b"measurements")
    attester.attest(tpm, client)
    assert [entry.kind for entry in service.evidence[-1].manifest] == ["tcg2", "ima", "containers"]
    assert b"records" in service.evidence[-1].logs.values()


def test_container_record_sent_reaches_at_least_to_the_quote(
    tpm: Tpm, client, attester: Attester, service: StandIn
):
    attester.attest(GrowingTpm(tpm, attester.container_records[None], 2), client)
    assert b"entryentry" in service.evidence[-1].logs.values()


class GrowingTpm:
    """A machine one of whose logs grows during each of the first quotes."""

    def __init__(self, tpm: Tpm, log: Path, times: int) -> None:
        self._tpm, self._log, self._times = tpm, log, times

    def quote_pcrs(self, *arguments):
        quote = self._tpm.quote_pcrs(*arguments)
        if self._times:
            self._times -= 1
            with self._log.open("ab") as stream:
                stream.write(b"entry")
        return quote


@pytest.mark.parametrize("before", [b"", b"entry"])
def test_log_sent_reaches_at_least_to_the_quote(
    tpm: Tpm, client, attester: Attester, service: StandIn, before: bytes
):
    attester.ima_log.write_bytes(before)
    attester.attest(GrowingTpm(tpm, attester.ima_log, 2), client)
    assert before + b"entryentry" in service.evidence[-1].logs.values()


def test_log_that_appears_during_the_quote_is_sent(
    tpm: Tpm, client, attester: Attester, service: StandIn
):
    attester.attest(GrowingTpm(tpm, attester.ima_log, 1), client)
    assert b"entry" in service.evidence[-1].logs.values()


class SleepingTpm:
    """A TPM that slept, by its own account, between the first quote and the first certificate."""

    def __init__(self, tpm: Tpm) -> None:
        self._tpm, self.certified = tpm, 0

    def __getattr__(self, name: str):
        return getattr(self._tpm, name)

    def certify_nv(self, index: int, qualifying: bytes):
        attest, signature = self._tpm.certify_nv(index, qualifying)
        self.certified += 1
        if self.certified == 1:
            clock = parse_attest(attest).clock
            session = clock.reset_count.to_bytes(4, "big") + clock.restart_count.to_bytes(4, "big")
            woken = clock.reset_count.to_bytes(4, "big") + b"\0\0\0\xff"
            attest = attest.replace(session, woken)
        return attest, signature


def test_what_indices_hold_is_certified_for_the_same_exchange(machine, config, cluster_ca):
    small_indices.seal(machine.tcti)
    record = config.container_record
    record.write_bytes(b"records")
    attester = Attester(
        node_id="ab" * 32,
        bank=HashAlg.SHA256,
        event_log=config.event_log,
        ima_log=config.ima_log,
        container_records={small_indices.ONE: record, small_indices.TWO: record},
        authorities=(cluster_ca.certificate,),
        now=lambda: datetime.now(UTC),
    )
    with open_tpm(machine.tcti) as tpm:
        sleeping = SleepingTpm(tpm)
        evidence = attester._evidence(sleeping, b"n" * 56, new_request())
    assert sleeping.certified == 4  # both, twice
    assert [one.nv_index for one in evidence.indices] == [small_indices.ONE, small_indices.TWO]
    named = [(one.kind, one.nv_index) for one in evidence.manifest]
    assert named[1:] == [("containers", small_indices.ONE), ("containers", small_indices.TWO)]
    quote = parse_attest(evidence.quote)
    for one in evidence.indices:
        certificate = parse_attest(one.attest)
        assert certificate.extra_data == quote.extra_data
        assert certificate.clock.restart_count == quote.clock.restart_count
        assert certificate.clock.clock >= quote.clock.clock


def test_evidence_without_indices_is_as_it_always_was(tpm: Tpm, attester):
    evidence = attester._evidence(tpm, b"n" * 56, new_request())
    wire = msgspec.json.encode(evidence)
    assert b"indices" not in wire
    assert b"nv_index" not in wire


def test_log_that_never_rests_ends_the_round(tpm: Tpm, client, attester: Attester):
    with pytest.raises(UnsteadyLog):
        attester.attest(GrowingTpm(tpm, attester.ima_log, 1000), client)


def test_node_without_a_boot_log_cannot_attest(tpm: Tpm, client, attester: Attester):
    attester.event_log.unlink()
    with pytest.raises(MissingBootLog):
        attester.attest(tpm, client)


def test_untrusted_node_gets_reasons_and_no_identity(
    tpm: Tpm, client, attester: Attester, service: StandIn
):
    service.verdict = "untrusted"
    round_ = attester.attest(tpm, client)
    assert (round_.result.verdict, round_.identity) == ("untrusted", None)


def test_certificate_for_another_key_is_refused(
    tpm: Tpm, client, attester: Attester, service: StandIn, monkeypatch
):
    honest = service.attest
    foreign = service.ca.node_certificate(new_request().key.public_key())
    monkeypatch.setattr(
        service,
        "attest",
        lambda evidence: msgspec.structs.replace(honest(evidence), certificate=foreign),
    )
    with pytest.raises(MismatchedCertificate):
        attester.attest(tpm, client)


def test_forgotten_node_is_told_so(tpm: Tpm, client, attester: Attester, service: StandIn):
    service.enrolled.clear()
    with pytest.raises(UnknownNode):
        attester.attest(tpm, client)


def test_stale_nonce_is_a_refusal_of_this_round(
    tpm: Tpm, client, attester: Attester, service: StandIn
):
    service.before_attest = service.nonces.clear
    with pytest.raises(RequestRefused) as caught:
        attester.attest(tpm, client)
    assert caught.value.server_code == "stale-nonce"
