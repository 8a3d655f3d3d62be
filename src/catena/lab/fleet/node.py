"""One simulated node: its TPM, the boot it repeats, and the evidence it sends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from catena.agent.identity import new_request
from catena.evidence import Evidence, LogEntry, qualifying_data
from catena.formats.nodeapi import ActivateRequest, EnrollChallenge, EnrollRequest
from catena.ids import HashAlg
from catena.lab.fleet.boots import RecordedBoot


@dataclass(frozen=True, slots=True)
class Quoted:
    """TPMS_ATTEST, TPMT_SIGNATURE, and the PCR values that go with them."""

    attest: bytes
    signature: bytes
    values: tuple[bytes, ...] = field(repr=False)


class NodeTpm(Protocol):
    """What a simulated node needs of a TPM. The calls may block."""

    def enrolment(self) -> EnrollRequest:
        """TRUST, enrolment step 1."""

    def activate(self, challenge: EnrollChallenge) -> ActivateRequest:
        """TPM2_ActivateCredential (enrolment step 5)."""

    def quote(self, qualifying: bytes) -> Quoted:
        """TPM2_Quote of PCRs 0–15 of the SHA-256 bank."""


@dataclass(frozen=True, slots=True)
class RequestKey:
    """A certificate request and the SubjectPublicKeyInfo of its key, in DER."""

    csr: bytes
    spki: bytes

    @classmethod
    def make(cls) -> RequestKey:
        """As the agent makes one, for a key that is forgotten at once."""
        request = new_request()
        return cls(request.csr, request.spki)


@dataclass(frozen=True, slots=True)
class BootLogs:
    """What all nodes with the same boot share."""

    boot: RecordedBoot
    manifest: tuple[LogEntry, ...]
    all_logs: dict[str, bytes] = field(repr=False)
    later_logs: dict[str, bytes] = field(repr=False)
    """Without the firmware's log, which travels once."""

    @classmethod
    def of(cls, boot: RecordedBoot) -> BootLogs:
        """Manifest and contents of a boot."""
        manifest = tuple(entry for entry, _ in boot.logs)
        contents = {entry.sha256: content for entry, content in boot.logs}
        later = {entry.sha256: contents[entry.sha256] for entry in manifest if entry.kind != "tcg2"}
        return cls(boot, manifest, contents, later)


@dataclass(slots=True)
class FleetNode:
    """A node of the fleet. Its request key is made once: the server cannot tell."""

    tpm: NodeTpm
    logs: BootLogs
    node_id: str = ""
    request: RequestKey = field(default_factory=RequestKey.make)
    attested: bool = False

    def qualifying(self, nonce: bytes) -> bytes:
        """What an honest quote binds."""
        return qualifying_data(nonce, self.request.spki, self.logs.manifest)

    def evidence(self, nonce: bytes, *, whole: bool = False) -> Evidence:
        """Honest evidence; ``whole`` with the boot's log."""
        return self.wrap(nonce, self.tpm.quote(self.qualifying(nonce)), whole=whole)

    def wrap(self, nonce: bytes, quoted: Quoted, *, whole: bool = False) -> Evidence:
        """Any quote as this node's evidence."""
        first = whole or not self.attested
        return Evidence(
            node_id=self.node_id,
            nonce=nonce,
            bank=HashAlg.SHA256.value,
            quote=quoted.attest,
            signature=quoted.signature,
            csr=self.request.csr,
            pcrs=quoted.values,
            manifest=self.logs.manifest,
            logs=self.logs.all_logs if first else self.logs.later_logs,
        )
