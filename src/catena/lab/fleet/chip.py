"""One software TPM with power, its PCRs those of a recorded boot, and its nodes' views of it.

A TPM stands for several nodes. Its endorsement hierarchy has as many primary keys as there are
values of a template's ``unique`` (TPM 2.0 Part 3, 24.1), so every node has an EK and an AK of its own,
which the TPM alone can use; the fleet's maker certifies the EK, as a vendor would. Nodes of one TPM
share what a TPM has once: PCRs, hence the boot, and the clock. EKs are P-256 (template L-2): a TPM
makes primary keys anew for each use, and RSA ones take it a second.

Only the SHA-256 bank is extended, as by firmware that does not know the others: those are what an
attacker with a TPM would rather have quoted.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tpm2_pytss.constants import TPMA_OBJECT
from tpm2_pytss.ESAPI import ESAPI
from tpm2_pytss.types import TPM2B_PUBLIC

from catena.errors import Unavailable
from catena.formats import ima, tcglog
from catena.formats.nodeapi import ActivateRequest, EnrollChallenge, EnrollRequest
from catena.formats.tcglog import NO_ACTION
from catena.ids import QUOTED_PCRS, HashAlg
from catena.lab.fleet.boots import RecordedBoot
from catena.lab.fleet.node import BootLogs, Quoted
from catena.lab.swtpm import Vendor, bench, manufacture
from catena.tpm.device import Tpm, connected
from catena.tpm.kinds import KeyKind, NodeKeys
from catena.tpm.loaded import primary
from catena.tpm.templates import ak_template
from catena.tpm.wire import unmarshal

_BANK = HashAlg.SHA256
_BANKS = "sha1,sha256,sha384"
_KIND = KeyKind.ECC_P256


class BootNotRepeated(Unavailable):
    """A TPM whose PCRs do not hold what the boot's logs replay to."""

    code = "boot-not-repeated"
    remedy = (
        "Leave this boot out of --logs, or use --tpm software: its PCR 0 may start from another "
        "locality than 0, which only firmware can use."
    )


@dataclass(frozen=True, slots=True)
class Chip:
    """One TPM with power; ``lock`` is held for one operation, and never for two chips'."""

    esys: ESAPI = field(repr=False)
    logs: BootLogs
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True)
class SharedTpm:
    """A chip as one of its nodes sees it: with an EK and an AK that no other node has."""

    chip: Chip
    tpm: Tpm
    ek_public: bytes
    ek_certificate: bytes
    ak_public: bytes

    def enrolment(self) -> EnrollRequest:
        """TRUST, enrolment step 1."""
        return EnrollRequest(
            ek_certificates=(self.ek_certificate,),
            ek_public=self.ek_public,
            ak_public=self.ak_public,
            name_hint="swtpm",
        )

    def activate(self, challenge: EnrollChallenge) -> ActivateRequest:
        """TPM2_ActivateCredential (enrolment step 5)."""
        with self.chip.lock:
            secret = self.tpm.activate_credential(
                challenge.credential_blob, challenge.encrypted_secret
            )
        return ActivateRequest(ticket=challenge.ticket, secret=secret)

    def quote(self, qualifying: bytes) -> Quoted:
        """TPM2_Quote of what an honest node quotes."""
        return self.quote_of(qualifying, _BANK, QUOTED_PCRS)

    def quote_of(self, qualifying: bytes, bank: HashAlg, pcrs: tuple[int, ...]) -> Quoted:
        """TPM2_Quote of any PCRs."""
        with self.chip.lock:
            made = self.tpm.quote_pcrs(qualifying, bank, pcrs)
        return Quoted(made.attest, made.signature, made.values)


@contextmanager
def powered(state: Path, vendor: Vendor, boot: RecordedBoot, log: Path) -> Iterator[Chip]:
    """Make a TPM, give it power and the boot's PCRs; it ends with the ``with``.

    Raises ``BootNotRepeated``, ``TpmFailed``, ``ToolFailed``.
    """
    manufacture(state, vendor, _BANKS)
    with bench(state, log) as tcti, connected(tcti) as esys:
        tpm = Tpm(esys)
        for pcr, digest in _extensions(boot):
            tpm.extend(pcr, {_BANK: digest})
        held = tpm.read_pcrs(_BANK, QUOTED_PCRS)
        differ = [pcr for pcr in QUOTED_PCRS if held[pcr] != boot.pcrs[pcr]]
        if differ:
            raise BootNotRepeated(
                "a TPM cannot repeat this boot", got=f"{boot.name}: PCRs {differ}"
            )
        yield Chip(esys, BootLogs.of(boot))


def _extensions(boot: RecordedBoot) -> Iterator[tuple[int, bytes]]:
    """What firmware and IMA extended into PCRs 0–15, in their order."""
    for event in tcglog.parse(boot.firmware).events:
        digest = event.digests.get(_BANK)
        if digest is not None and event.type != NO_ACTION and event.pcr in QUOTED_PCRS:
            yield event.pcr, digest
    for entry in ima.parse(boot.ima) if boot.ima else ():
        yield entry.pcr, ima.replay_digest(entry, _BANK)


def shared(chip: Chip, individual: bytes) -> tuple[Tpm, bytes, bytes]:
    """The TPM with the keys of one node, and its EK's and AK's TPMT_PUBLIC."""
    tpm = Tpm(chip.esys, NodeKeys(_KIND, _KIND, individual))
    with chip.lock:
        return tpm, tpm.ek_public(), tpm.ak_public()


def unrestricted_ak(chip: Chip, individual: bytes) -> bytes:
    """TPMT_PUBLIC of a key that signs anything: a TPM makes such ones, too."""
    template = unmarshal(TPM2B_PUBLIC, ak_template(_KIND, individual).marshal())
    template.publicArea.objectAttributes &= ~TPMA_OBJECT.RESTRICTED
    with chip.lock, primary(chip.esys, template) as (_, public):
        marshalled: bytes = public.publicArea.marshal()
        return marshalled
