"""Every quoted PCR is what the logs replay to (TRUST, attestation step 5f, second half).

Firmware's log explains PCRs 0–15, IMA's explains PCR 10, and the gate's record its own
(``recorded``). Logs that grow at run time may run
ahead of the quote: the prefix that replays to the quoted value is *proven* and appraised, the
rest waits for the next round.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from catena.appraise.logs import Logs
from catena.appraise.refusal import AttestationRefusal
from catena.ids import QUOTED_PCRS, HashAlg
from catena.measure.ima_replay import ImaState, UnreachedImaValue, at_boot, reach
from catena.measure.replay import IMA_PCR, Replay

FIRMWARE_RANGE = range(8)


class NeverExtendedPcrs(AttestationRefusal):
    """PCRs 0–7 are all zero: firmware measures nothing into this bank."""

    code = "bank-never-extended"
    remedy = "Quote the bank that firmware extends, or switch measured boot on."
    step = "f"


class UnexplainedPcr(AttestationRefusal):
    """The log does not replay to the quoted PCRs: events are missing, added or altered."""

    code = "pcr-unexplained"
    step = "f"


class UnexplainedImaPcr(UnexplainedPcr):
    """No prefix of the IMA log replays to the quoted PCR 10.

    Linux extends a padded SHA-1 digest into a bank whose hash IMA could not load when it
    started (often SHA-384). Such a value is refused too: SHA-1 is all that it would prove.
    """

    code = "ima-pcr-unexplained"
    remedy = "If the quoted bank is not sha256, let the agent quote sha256; else inspect the node."


@dataclass(frozen=True, slots=True)
class ProvenIma:
    """How far IMA's log is proven: its first ``size`` bytes, which led to ``state``.

    ``sha256`` is theirs. A later log that begins with the same bytes leads through the same state,
    so it is replayed from there.
    """

    state: ImaState
    size: int
    sha256: bytes

    @property
    def entries(self) -> int:
        """How many entries are proven."""
        return self.state.entries

    def begins(self, log: bytes) -> bool:
        """Whether ``log`` starts with the proven bytes."""
        return len(log) >= self.size and _sha256(memoryview(log)[: self.size]) == self.sha256


def unproven(bank: HashAlg) -> ProvenIma:
    """Where every log begins."""
    return ProvenIma(at_boot(bank), 0, _sha256(b""))


def check_extended(values: tuple[bytes, ...]) -> None:
    """Step 5f: an all-zero bank proves nothing and would match an empty log."""
    if not any(any(values[pcr]) for pcr in FIRMWARE_RANGE):
        raise NeverExtendedPcrs("PCRs 0 to 7 of the quoted bank were never extended")


def check_replay(
    values: tuple[bytes, ...],
    logs: Logs,
    boot: Replay,
    known: ProvenIma,
    recorded: int | None = None,
) -> ProvenIma:
    """Step 5f: each value equals its log's replay, or its reset state if no log extends it.

    ``boot`` is the firmware log's replay. The PCR ``recorded`` is explained elsewhere (``recorded``,
    ``indices``). Returns how far IMA's log is proven, which ``known`` makes cheaper and changes in
    no other way: it is what an earlier quote of this boot proved.
    """
    ima_covers = logs.has_ima and IMA_PCR not in boot.extended
    wrong = [
        pcr
        for pcr in QUOTED_PCRS
        if values[pcr] != boot.pcrs[pcr] and not (pcr == IMA_PCR and ima_covers) and pcr != recorded
    ]
    if wrong:
        raise UnexplainedPcr(
            f"the firmware log does not replay to PCR {', '.join(map(str, wrong))}",
            expected=boot.pcrs[wrong[0]].hex(),
            got=values[wrong[0]].hex(),
        )
    if not ima_covers:
        return unproven(known.state.bank)
    return _ima_prefix(values[IMA_PCR], logs.ima, known)


def _ima_prefix(quoted: bytes, log: bytes, known: ProvenIma) -> ProvenIma:
    """What the quote proves of IMA's log; a hash chain has each value only once.

    A quote of fewer entries than were proven before is of another boot that began alike.
    """
    nothing = unproven(known.state.bank)
    for proven in (known, nothing) if known.size and known.begins(log) else (nothing,):
        try:
            state, end = reach(proven.state, log, quoted, proven.size)
        except UnreachedImaValue:
            continue
        return ProvenIma(state, end, _sha256(memoryview(log)[:end]))
    raise UnexplainedImaPcr(f"no prefix of the IMA log replays to PCR {IMA_PCR}", got=quoted.hex())


def _sha256(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(data).digest()
