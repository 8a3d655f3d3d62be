"""Turning the firmware part of one real boot into a reference (``catena reference capture``).

What firmware measures of itself cannot be predicted, so a first boot that a person looks at and
approves becomes the reference. It says what that boot *was*, never that it was good: that is
what the person's look is for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from catena.appraise.builtin import builtin_claim
from catena.appraise.reference import BANKS, FIRMWARE_PCRS
from catena.errors import CatenaError, ExitCode
from catena.formats import tcglog
from catena.formats.references import ExpectedEvent, FirmwareCapture
from catena.formats.tcglog import Event, EventLog
from catena.ids import HashAlg, NodeId
from catena.measure import grammar
from catena.measure.facts import describe
from catena.measure.quirks import shipped
from catena.measure.replay import replay


class UncapturableBank(CatenaError):
    """A bank that the log does not have, or that is too weak to be quoted."""

    code = "bank-not-capturable"
    exit_code = ExitCode.USAGE
    remedy = "Capture banks of SHA-256 or better that the firmware logs."


def capture_firmware(
    log: bytes, banks: Sequence[HashAlg], *, name: str, version: str, node: NodeId
) -> FirmwareCapture:
    """The events of PCRs 0, 1, 2, 3 and 6 that no built-in rule claims, and those PCRs' values.

    ``banks`` are the banks that a quote has proven for this log. A log's digests in any other
    bank are the sender's invention, and would become a reference for whatever he runs later.

    Raises ``FormatError``, a refusal of ``measure.grammar``, or ``UncapturableBank``. Event ids
    are ``#`` and the index in the captured log.
    """
    parsed, chosen = tcglog.parse(log), tuple(banks)
    _check_banks(parsed, chosen)
    for bank in chosen:
        grammar.check(parsed, bank, shipped())
    events = (event for event in parsed.events if event.pcr in FIRMWARE_PCRS)
    return FirmwareCapture(
        name=name,
        version=version,
        node=node,
        boot_log_sha256=hashlib.sha256(log).hexdigest(),
        events=tuple(
            _expected(event, chosen) for event in events if builtin_claim(event, chosen[0]) is None
        ),
        pcrs={bank.value: _pcr_values(parsed, bank) for bank in chosen},
    )


def _check_banks(log: EventLog, banks: Sequence[HashAlg]) -> None:
    unusable = [bank for bank in banks if bank not in BANKS or bank not in log.banks]
    if unusable or not banks:
        raise UncapturableBank("no such bank can be captured", got=", ".join(unusable) or "none")


def _expected(event: Event, banks: Sequence[HashAlg]) -> ExpectedEvent:
    return ExpectedEvent(
        id=f"#{event.index}",
        pcr=event.pcr,
        what=describe(event, banks[0]),
        digests={bank.value: event.digests[bank].hex() for bank in banks},
    )


def _pcr_values(log: EventLog, bank: HashAlg) -> dict[str, str]:
    pcrs = replay(log, bank).pcrs
    return {str(pcr): pcrs[pcr].hex() for pcr in FIRMWARE_PCRS}
