"""The attacks of who has a TPM and none of its keys: its own quotes, moved or altered.

A restricted AK signs nothing but what the TPM made, so no signature here is forged. What needs one
is left out, with its reason, and made with software keys (``hostile``).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from catena.evidence import Evidence
from catena.formats import tpm2
from catena.ids import QUOTED_PCRS, HashAlg
from catena.lab.fleet.chip import SharedTpm
from catena.lab.fleet.hostile import CASES, Case, Exchange

LEFT_OUT = {
    "two-banks": "a node's TPM client asks for one bank",
    "clock-back": "a TPM's clock goes on, and an altered one breaks the signature",
    "reset-count-back": "a TPM counts its resets up, and an altered count breaks the signature",
}


def _quoted(exchange: Exchange, bank: HashAlg, pcrs: tuple[int, ...]) -> Evidence:
    """A real quote of these PCRs with their values, in evidence of the SHA-256 bank."""
    node, tpm = exchange.node, exchange.node.tpm
    if not isinstance(tpm, SharedTpm):
        raise TypeError("software keys have no PCRs but those of their boot")
    return node.wrap(exchange.nonce, tpm.quote_of(node.qualifying(exchange.nonce), bank, pcrs))


def _altered(change: Callable[[bytes], bytes]) -> Callable[[Exchange], Evidence]:
    """A real quote that was altered after it was signed: its form is looked at first."""

    def make(exchange: Exchange) -> Evidence:
        honest = exchange.node.evidence(exchange.nonce)
        return msgspec.structs.replace(honest, quote=change(honest.quote))

    return make


def _selecting(bank: HashAlg, pcrs: tuple[int, ...]) -> Callable[[Exchange], Evidence]:
    """Other PCRs than asked for, and the values of those that were."""

    def make(exchange: Exchange) -> Evidence:
        asked = exchange.node.logs.boot.pcrs
        return msgspec.structs.replace(_quoted(exchange, bank, pcrs), pcrs=asked)

    return make


def _labelled(bank: HashAlg) -> Callable[[Exchange], Evidence]:
    """All PCRs of another bank, and the evidence says so."""
    return lambda exchange: msgspec.structs.replace(
        _quoted(exchange, bank, QUOTED_PCRS), bank=bank.value
    )


def _other_bank(exchange: Exchange) -> Evidence:
    return msgspec.structs.replace(exchange.node.evidence(exchange.nonce), bank="sha384")


def _by_another(exchange: Exchange) -> Evidence:
    """Another TPM's quote of this very nonce, key and logs."""
    node = exchange.node
    return node.wrap(exchange.nonce, exchange.other.tpm.quote(node.qualifying(exchange.nonce)))


def _forged(exchange: Exchange) -> Evidence:
    """The node's quote with what another TPM signed."""
    honest = exchange.node.evidence(exchange.nonce)
    return msgspec.structs.replace(honest, signature=_by_another(exchange).signature)


_MAGIC = tpm2.TPM_GENERATED_VALUE.to_bytes(4, "big")
_SWAPPED = _MAGIC[:2] + _MAGIC[:1:-1]
_CERTIFY = b"\x80\x17"
_SHA256, _SHA384 = HashAlg.SHA256, HashAlg.SHA384
_MADE: dict[str, Callable[[Exchange], Evidence]] = {
    "ak-of-another-tpm": _forged,
    "quote-of-another-tpm": _by_another,
    "wrong-magic": _altered(lambda quote: _SWAPPED + quote[4:]),
    "wrong-type": _altered(lambda quote: quote[:4] + _CERTIFY + quote[6:]),
    "truncated": _altered(lambda quote: quote[:-1]),
    "padded": _altered(lambda quote: quote + b"\0"),
    "relabelled": _selecting(_SHA384, QUOTED_PCRS),
    "widened": _selecting(_SHA256, (*QUOTED_PCRS, 16)),
    "narrowed": _selecting(_SHA256, QUOTED_PCRS[:-1]),
    "another-bank": _other_bank,
    "sha1-bank": _labelled(HashAlg.SHA1),
    "never-extended-bank": _labelled(_SHA384),
}
"""How a TPM makes what software keys make by signing it; the other cases need no forged quote."""

TPM_CASES = tuple(
    Case(one.name, one.codes, _MADE.get(one.name, one.make), one.verdict)
    for one in CASES
    if one.name not in LEFT_OUT
)
