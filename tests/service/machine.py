"""A machine for tests: a real software TPM that has measured a real boot, and its agent's part.

The agent's side of the protocol is written out here once more, so that these tests speak to the
service as any node would, and can misspeak.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from appraise.forged import Boot
from appraise.gatelog import Recording
from catena.evidence import Evidence, log_entry, qualifying_data
from catena.formats import ima, tcglog
from catena.formats.cel import tlv_records
from catena.formats.nodeapi import (
    ActivateRequest,
    AttestResult,
    EnrollChallenge,
    EnrollRequest,
    EnrollResult,
    NonceRequest,
    NonceResponse,
    SealedSecret,
)
from catena.formats.tcglog import EventType
from catena.ids import QUOTED_PCRS, HashAlg
from catena.tpm.device import Tpm

Call = Callable[[str, msgspec.Struct, type], msgspec.Struct]
"""``call(path, body, kind of answer)``: over HTTP, or straight into the service."""


@dataclass
class Machine:
    """One TPM with one boot in its PCRs."""

    tpm: Tpm
    boot: Boot
    bank: HashAlg = HashAlg.SHA256
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    node_id: str = ""

    def measure(self) -> None:
        """Extend the TPM with everything that the boot's logs say."""
        for event in tcglog.parse(self.boot.log).events:
            if event.type != EventType.EV_NO_ACTION:
                digests = {b: d for b, d in event.digests.items() if b in self.tpm.banks()}
                self.tpm.extend(event.pcr, digests)
        for entry in ima.parse(self.boot.ima or b""):
            banks = self.tpm.banks()
            self.tpm.extend(entry.pcr, {b: ima.replay_digest(entry, b) for b in banks})

    def record(self, recording: Recording) -> None:
        """Extend the TPM with what a gate recorded since the last time, and send it from now on."""
        for record, end in tlv_records(recording.data):
            if end > len(self.boot.containers or b""):
                digests = {b: d for b, d in record.digests.items() if b in self.tpm.banks()}
                self.tpm.extend(record.pcr, digests)
        self.boot = dataclasses.replace(self.boot, containers=recording.data)

    def enrolment(self, **changes) -> EnrollRequest:
        request = EnrollRequest(
            ek_certificates=self.tpm.ek_certificates(),
            ek_public=self.tpm.ek_public(),
            ak_public=self.tpm.ak_public(),
            name_hint="call-me-root",
        )
        return msgspec.structs.replace(request, **changes)

    def answer(self, challenge: EnrollChallenge) -> ActivateRequest:
        secret = self.tpm.activate_credential(challenge.credential_blob, challenge.encrypted_secret)
        return ActivateRequest(ticket=challenge.ticket, secret=secret)

    def enrol(self, call: Call) -> EnrollResult:
        challenge = call("/v1/enroll", self.enrolment(), EnrollChallenge)
        self.node_id = challenge.node_id
        return call("/v1/enroll/activate", self.answer(challenge), EnrollResult)

    def nonce(self, call: Call) -> bytes:
        return call("/v1/nonce", NonceRequest(node_id=self.node_id), NonceResponse).nonce

    def evidence(self, nonce: bytes, **changes) -> Evidence:
        """Honest evidence; ``changes`` replace fields after the quote was made."""
        logs = self.boot.logs
        manifest = tuple(log_entry(kind, content) for kind, content in logs)
        qualifying = qualifying_data(nonce, self.spki(), manifest)
        quote = self.tpm.quote_pcrs(qualifying, self.bank, QUOTED_PCRS)
        evidence = Evidence(
            node_id=self.node_id,
            nonce=nonce,
            bank=self.bank.value,
            quote=quote.attest,
            signature=quote.signature,
            csr=self.csr(),
            pcrs=quote.values,
            manifest=manifest,
            logs={one.sha256: content for one, (_, content) in zip(manifest, logs, strict=True)},
        )
        return msgspec.structs.replace(evidence, **changes)

    def attest(self, call: Call, **changes) -> AttestResult:
        return call("/v1/attest", self.evidence(self.nonce(call), **changes), AttestResult)

    def csr(self) -> bytes:
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)

    def spki(self) -> bytes:
        public = self.key.public_key()
        return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def open(self, sealed: SealedSecret) -> bytes:
        key = self.tpm.unseal(
            public=sealed.public,
            duplicate=sealed.duplicate,
            seed=sealed.seed,
            bank=HashAlg(sealed.bank),
            pcrs=sealed.pcrs,
        )
        return AESGCM(key).decrypt(sealed.nonce, sealed.ciphertext, sealed.associated_data())
