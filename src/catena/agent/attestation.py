"""Attestation from the node's side (TRUST, "Attestation"): one round, start to end.

1. Ask for a nonce.
2. Make a fresh key and CSR in memory.
3. Bind nonce, key and log manifest into 32 bytes of qualifying data.
4. Quote PCRs 0–15 of one bank, and certify the NV indices that hold container records, if any;
   send quote, certificates, signatures, CSR and the logs the server lacks.

(Steps 5 and 6 are the server's.)

7. Keep the certificate only if it is for the key of step 2 and from a cluster CA that counts; the answer may name its successors.

The manifest is fixed before the quote, yet IMA may extend PCR 10 in between, and the container
gates theirs. All write an entry before they extend, so a log that reads the same after the quote and
the certificates as before them covers their values; otherwise step 3 is done again with the longer log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec
from cryptography import x509

from catena.agent import trust
from catena.agent.client import LogsMissing, TrustClient
from catena.agent.identity import Identity, KeyRequest, accept_certificate, new_request
from catena.agent.logs import Log, read_boot_log, read_container_record, read_ima_log
from catena.containers.record import DEFAULT_RECORD
from catena.errors import Unavailable
from catena.evidence import Evidence, IndexCertificate, qualifying_data
from catena.formats.nodeapi import AttestResult
from catena.formats.tpm2 import parse_attest
from catena.ids import QUOTED_PCRS, HashAlg, NodeId
from catena.tpm.device import PcrQuote, Tpm

_STEADY_ATTEMPTS = 10


class UnsteadyLog(Unavailable):
    """A log that grows at run time grew during every quote."""

    code = "unsteady-log"
    remedy = "Something measures files or starts containers all the time; it is tried again."


@dataclass(frozen=True, slots=True)
class Round:
    """The server's answer and, when it admitted the node, the identity it gave."""

    result: AttestResult
    identity: Identity | None


@dataclass(slots=True)
class Attester:
    """What stays the same from round to round, and which logs have been sent in this boot."""

    node_id: NodeId
    bank: HashAlg
    event_log: Path
    ima_log: Path
    authorities: tuple[x509.Certificate, ...]
    now: Callable[[], datetime]
    container_records: Mapping[int | None, Path] = field(
        default_factory=lambda: {None: DEFAULT_RECORD}
    )
    audiences: tuple[str, ...] = ()
    sent: set[str] = field(default_factory=set)

    def attest(self, tpm: Tpm, client: TrustClient) -> Round:
        """One round; logs that the server turns out to lack are sent in a second attempt."""
        try:
            return self._attempt(tpm, client)
        except LogsMissing:
            # The server may have been restored from a copy: offer everything once more, under
            # a fresh nonce. A second answer of this kind is an error.
            self.sent.clear()
            return self._attempt(tpm, client)

    def _attempt(self, tpm: Tpm, client: TrustClient) -> Round:
        nonce = client.nonce(self.node_id)  # 1.
        request = new_request()  # 2.
        evidence = self._evidence(tpm, nonce, request)  # 3. and 4.
        result = client.attest(evidence)
        self.sent.update(entry.sha256 for entry in evidence.manifest)
        if result.bundle is not msgspec.UNSET:
            # The server that said so is vouched for by one that counted until now.
            self.authorities = trust.parse(result.bundle.encode())
        if result.certificate is None:
            return Round(result=result, identity=None)
        identity = accept_certificate(  # 7.
            request, result.certificate, self.authorities, now=self.now()
        )
        return Round(result=result, identity=identity)

    def _evidence(self, tpm: Tpm, nonce: bytes, request: KeyRequest) -> Evidence:
        quote, indices, logs = self._quote(tpm, nonce, request)
        return Evidence(
            node_id=self.node_id,
            nonce=nonce,
            bank=self.bank.value,
            quote=quote.attest,
            signature=quote.signature,
            csr=request.csr,
            pcrs=quote.values,
            manifest=tuple(log.entry for log in logs),
            logs={
                log.entry.sha256: log.content for log in logs if log.entry.sha256 not in self.sent
            },
            indices=indices or msgspec.UNSET,
            audiences=self.audiences or msgspec.UNSET,
        )

    def _quote(
        self, tpm: Tpm, nonce: bytes, request: KeyRequest
    ) -> tuple[PcrQuote, tuple[IndexCertificate, ...], tuple[Log, ...]]:
        """A quote, certificates, and logs that reach at least to them, never less."""
        boot, running = read_boot_log(self.event_log), self._growing()
        for _ in range(_STEADY_ATTEMPTS):
            logs = (boot, *running)
            manifest = tuple(log.entry for log in logs)
            qualifying = qualifying_data(nonce, request.spki, manifest)
            quote = tpm.quote_pcrs(qualifying, self.bank, QUOTED_PCRS)
            indices = self._certified(tpm, qualifying)
            seen, running = running, self._growing()
            if running == seen and _of_one_session(quote, indices):
                return quote, indices, logs
        raise UnsteadyLog("a log grew during every quote", got=f"{_STEADY_ATTEMPTS} attempts")

    def _growing(self) -> tuple[Log, ...]:
        """The logs that grow while the machine runs, as they are now."""
        records = (
            read_container_record(path, index) for index, path in self.container_records.items()
        )
        found = (read_ima_log(self.ima_log), *records)
        return tuple(log for log in found if log is not None)

    def _certified(self, tpm: Tpm, qualifying: bytes) -> tuple[IndexCertificate, ...]:
        """What the NV indices hold. One that no gate has opened in this boot holds nothing."""
        found = []
        for index in self.container_records:
            certified = None if index is None else tpm.certify_nv(index, qualifying)
            if index is not None and certified is not None:
                attest, signature = certified
                found.append(IndexCertificate(nv_index=index, attest=attest, signature=signature))
        return tuple(found)


def _of_one_session(quote: PcrQuote, indices: tuple[IndexCertificate, ...]) -> bool:
    """Whether the machine did not sleep between quote and certificates."""
    clocks = [parse_attest(one).clock for one in (quote.attest, *(one.attest for one in indices))]
    return len({(clock.reset_count, clock.restart_count) for clock in clocks}) == 1
