"""Measurements that the specifications themselves account for, in any boot of any machine.

===================================  =====  ==================================================
``tcg-pfp/separator``                0–7    EV_SEPARATOR without an error: u32 0 or 0xFFFFFFFF
``tcg-pfp/calling-boot-option``      4      "Calling EFI Application from Boot Option"
``tcg-pfp/exit-boot-invocation``     5      "Exit Boot Services Invocation"
``tcg-pfp/exit-boot-success``        5      "Exit Boot Services Returned with Success"
``tcg-pfp/exit-boot-failure``        5      "Exit Boot Services Returned with Failure", which a
                                            kernel answers by trying again
``tcg-pfp/no-action``                any    EV_NO_ACTION: never extended
``ima/boot-aggregate``               10     first IMA entry: the digest over PCRs 0–9
===================================  =====  ==================================================

PFP is the TCG PC Client Platform Firmware Profile. Like every claim, these go by PCR and
digest; how often and where a separator may stand is for ``measure.grammar``. Anything else,
such as "Returning from EFI Application from Boot Option", needs a reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from catena.formats.ima import ImaEntry
from catena.formats.tcglog import Event, EventLog, EventType
from catena.ids import HashAlg
from catena.measure.replay import Replay, boot_aggregate, replay

NO_ACTION = "rule:tcg-pfp/no-action"
BOOT_AGGREGATE = "rule:ima/boot-aggregate"

_FIXED = (
    ("tcg-pfp/separator", range(8), b"\0\0\0\0"),
    ("tcg-pfp/separator", range(8), b"\xff\xff\xff\xff"),
    ("tcg-pfp/calling-boot-option", (4,), b"Calling EFI Application from Boot Option"),
    ("tcg-pfp/exit-boot-invocation", (5,), b"Exit Boot Services Invocation"),
    ("tcg-pfp/exit-boot-success", (5,), b"Exit Boot Services Returned with Success"),
    ("tcg-pfp/exit-boot-failure", (5,), b"Exit Boot Services Returned with Failure"),
)
_AGGREGATE_NAME = b"boot_aggregate\0"


@cache
def _rules(bank: HashAlg) -> Mapping[tuple[int, bytes], str]:
    """PCR and digest to the rule that accounts for it."""
    return {
        (pcr, bank.digest(content)): f"rule:{rule}"
        for rule, pcrs, content in _FIXED
        for pcr in pcrs
    }


def builtin_claim(event: Event, bank: HashAlg) -> str | None:
    """The rule that accounts for a firmware event, or None."""
    if event.type == EventType.EV_NO_ACTION:
        return NO_ACTION
    digest = event.digests.get(bank)
    return None if digest is None else _rules(bank).get((event.pcr, digest))


def boot_aggregate_claim(entry: ImaEntry, log: EventLog, replayed: Replay) -> str | None:
    """The rule for IMA's first entry: its file digest is H(PCR 0 ‖ … ‖ PCR 9) of this boot.

    The bank is the one of IMA's own hash, which need not be the quoted bank; the log must hold
    it. ``replayed`` is its replay in the quoted bank, which mostly is the same. Nothing but the
    digest and the name may be in the entry.
    """
    if entry.index != 0 or entry.is_violation or entry.template_name not in ("ima-ng", "ima-sig"):
        return None
    if entry.fields[1] != _AGGREGATE_NAME or any(entry.fields[2:]):
        return None
    name, digest = entry.file_digest
    bank = next((bank for bank in log.banks if bank == name), None)
    if bank is None:
        return None
    own = replayed if replayed.bank is bank else replay(log, bank)
    return BOOT_AGGREGATE if digest == boot_aggregate(own.pcrs, bank) else None
