"""Replaying IMA's log piece by piece: work and memory grow with what is new, not with history.

A node's IMA log only ever grows, and its PCR is a hash chain. Whoever has proven that ``entries``
entries led to ``value`` needs nothing else of them: the next entries continue from there.
"""

from __future__ import annotations

from dataclasses import dataclass

from catena.errors import Refusal
from catena.formats.ima import measurements
from catena.ids import HashAlg
from catena.measure.replay import IMA_PCR


class UnreachedImaValue(Refusal):
    """No prefix of the entries leads from the proven value to the quoted one."""

    code = "ima-value-unreached"
    remedy = "Ask for the whole log; if it does not replay either, inspect the node."


@dataclass(frozen=True, slots=True)
class ImaState:
    """Where a replay stands: ``value`` of ``pcr`` in ``bank`` after ``entries`` entries."""

    bank: HashAlg
    value: bytes
    entries: int = 0
    pcr: int = IMA_PCR


def at_boot(bank: HashAlg) -> ImaState:
    """The state before IMA's first entry."""
    return ImaState(bank, bytes(bank.size))


def advance(state: ImaState, segment: bytes) -> ImaState:
    """The state after all entries of ``segment``, whole entries of the binary log.

    Entries for another PCR count and change nothing. Raises ``FormatError``.
    """
    return _walk(state, segment, None)[0]


def reach(state: ImaState, segment: bytes, quoted: bytes, start: int = 0) -> tuple[ImaState, int]:
    """The first state whose value is ``quoted``, and the place in ``segment`` that led there.

    ``state`` is where the replay stands at ``start`` of ``segment``. What lies behind ran ahead of the quote and waits for the next one. Raises ``FormatError`` or
    ``UnreachedImaValue``.
    """
    if state.value == quoted:
        return state, start
    reached, end = _walk(state, segment, quoted, start)
    if reached.value != quoted:
        raise UnreachedImaValue(
            "no prefix of the entries leads to the quoted one", got=quoted.hex()
        )
    return reached, end


def _walk(
    state: ImaState, segment: bytes, until: bytes | None, start: int = 0
) -> tuple[ImaState, int]:
    """Extend entry by entry, to the end of the segment or to the value ``until``."""
    value, entries, end = state.value, state.entries, start
    hasher, own, violation = state.bank.hasher, state.pcr, b"\xff" * state.bank.size
    for pcr, content, end in measurements(segment, start):  # noqa: B007 - the last end is the answer
        entries += 1
        if pcr == own:
            digest = violation if content is None else hasher(content).digest()
            value = hasher(value + digest).digest()
            if value == until:
                break
    return ImaState(state.bank, value, entries, own), end
