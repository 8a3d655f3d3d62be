"""Hostile requests: every quote case of TRUST ("Cases that must fail"), and how each must end.

Until the quote has proven who speaks, a refusal is an error and says nothing about the node: such cases
are made in the name of honest nodes, which must stay trusted. From then on it is a verdict, so the
other cases are made by nodes of their own, which are untrusted from their first one on.

``CASES`` are those of who has the keys; of who has a TPM: ``hostiletpm``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from catena.evidence import Evidence
from catena.formats import tpm2
from catena.formats.tpm2 import TpmaObject
from catena.ids import QUOTED_PCRS, HashAlg
from catena.lab.fleet.node import FleetNode, RequestKey
from catena.lab.fleet.softtpm import AK_ATTRIBUTES, Attested, SoftwareTpm

_NONCE_SIZE = 56
_CERTIFY = 0x8017
UNRESTRICTED = AK_ATTRIBUTES & ~TpmaObject.RESTRICTED


@dataclass(frozen=True, slots=True)
class Exchange:
    """What an attacker has: a node, a fresh nonce for it, and another node with its nonce.

    ``sent`` is evidence of the node that was concluded already.
    """

    node: FleetNode
    nonce: bytes
    other: FleetNode
    other_nonce: bytes
    sent: Evidence | None

    def quote(self, **changes: object) -> Evidence:
        """Evidence with a quote of the node's key, whose fields are ``changes``."""
        return self.evidence(replace(self.honest(), **changes))  # type: ignore[arg-type]

    def honest(self) -> Attested:
        """What the node would quote."""
        return software(self.node).attested(self.node.qualifying(self.nonce))

    def evidence(self, attested: Attested) -> Evidence:
        """Any quote, signed by the node's key."""
        return self.signed(attested.encode())

    def signed(self, quote: bytes) -> Evidence:
        """Anything as a quote, signed by the node's key."""
        return self.node.wrap(self.nonce, software(self.node).vouch(quote))


def software(node: FleetNode) -> SoftwareTpm:
    """The keys of a node that signs what no TPM made. Raises ``TypeError`` for one with a TPM."""
    if not isinstance(node.tpm, SoftwareTpm):
        raise TypeError("a TPM signs no quote but its own")
    return node.tpm


@dataclass(frozen=True, slots=True)
class Case:
    """One attack. ``codes`` are the refusals that may stop it; ``verdict`` says they are a verdict's."""

    name: str
    codes: tuple[str, ...]
    make: Callable[[Exchange], Evidence]
    verdict: bool = False


def _replayed(exchange: Exchange) -> Evidence:
    return exchange.sent or exchange.node.evidence(bytes(_NONCE_SIZE))


def _relayed(exchange: Exchange) -> Evidence:
    """The node's quote with the attacker's own request for a certificate."""
    honest = exchange.node.evidence(exchange.nonce)
    return msgspec.structs.replace(honest, csr=RequestKey.make().csr)


def _forged(exchange: Exchange) -> Evidence:
    """A quote in the node's name, signed by another TPM."""
    honest = exchange.node.evidence(exchange.nonce)
    return msgspec.structs.replace(honest, signature=software(exchange.other).sign(honest.quote))


def _foreign(exchange: Exchange) -> Evidence:
    """Another TPM's own quote as this node's."""
    other = software(exchange.other)
    evidence = exchange.quote(signer=other.signer)
    return msgspec.structs.replace(evidence, signature=other.sign(evidence.quote))


def _altered(exchange: Exchange) -> Evidence:
    honest = exchange.node.evidence(exchange.nonce)
    return msgspec.structs.replace(honest, pcrs=(bytes(32), *honest.pcrs[1:]))


def _never_extended(exchange: Exchange) -> Evidence:
    zeros = (bytes(32),) * len(QUOTED_PCRS)
    evidence = exchange.quote(digest=hashlib.sha256(b"".join(zeros)).digest())
    return msgspec.structs.replace(evidence, pcrs=zeros)


def _sha1(exchange: Exchange) -> Evidence:
    values = (bytes(20),) * len(QUOTED_PCRS)
    evidence = exchange.quote(
        selection=tpm2.encode_pcr_selection(HashAlg.SHA1, QUOTED_PCRS),
        digest=hashlib.sha256(b"".join(values)).digest(),
    )
    return msgspec.structs.replace(evidence, bank="sha1", pcrs=values)


def _other_bank(exchange: Exchange) -> Evidence:
    """The values of the bank asked for, offered as those of another."""
    return msgspec.structs.replace(exchange.quote(), bank="sha384")


def _selecting(bank: HashAlg, pcrs: tuple[int, ...]) -> Callable[[Exchange], Evidence]:
    return lambda exchange: exchange.quote(selection=tpm2.encode_pcr_selection(bank, pcrs))


def _two_banks(exchange: Exchange) -> Evidence:
    one = tpm2.encode_pcr_selection(HashAlg.SHA256, QUOTED_PCRS)[4:]
    other = tpm2.encode_pcr_selection(HashAlg.SHA384, QUOTED_PCRS)[4:]
    return exchange.quote(selection=b"\0\0\0\2" + one + other)


def _earlier(exchange: Exchange) -> Evidence:
    return exchange.quote(clock=1)


def _reset_before(exchange: Exchange) -> Evidence:
    honest = exchange.honest()
    return exchange.evidence(replace(honest, resets=honest.resets - 1))


_SHA256, _SHA384 = HashAlg.SHA256, HashAlg.SHA384

CASES = (
    Case("replayed", ("nonce-spent", "quote-replayed", "nonce-stale"), _replayed),
    Case("fixed-nonce", ("nonce-forged",), lambda one: one.node.evidence(bytes(_NONCE_SIZE))),
    Case("foreign-nonce", ("nonce-forged",), lambda one: one.node.evidence(one.other_nonce)),
    Case("ak-of-another-tpm", ("quote-forged",), _forged),
    Case("quote-of-another-tpm", ("quote-foreign-signer",), _foreign),
    Case("wrong-magic", ("quote-not-tpm-generated",), lambda one: one.quote(magic=0xFF544348)),
    Case("wrong-type", ("quote-wrong-type",), lambda one: one.quote(type=_CERTIFY)),
    Case(
        "truncated",
        ("malformed",),
        lambda one: one.signed(one.honest().encode()[:-1]),
    ),
    Case("padded", ("malformed",), lambda one: one.quote(tail=b"\0")),
    Case("relayed-with-another-key", ("quote-unbound",), _relayed),
    Case("relabelled", ("pcr-selection-relabelled",), _selecting(_SHA384, QUOTED_PCRS), True),
    Case("widened", ("pcr-selection-widened",), _selecting(_SHA256, (*QUOTED_PCRS, 16)), True),
    Case("narrowed", ("pcr-selection-narrowed",), _selecting(_SHA256, QUOTED_PCRS[:-1]), True),
    Case("two-banks", ("pcr-selection-several-banks",), _two_banks, True),
    Case("another-bank", ("pcr-selection-relabelled",), _other_bank, True),
    Case("sha1-bank", ("bank-weak",), _sha1, True),
    Case("other-values", ("pcr-digest-mismatch",), _altered, True),
    Case("never-extended-bank", ("bank-never-extended",), _never_extended, True),
    Case("clock-back", ("clock-rollback",), _earlier, True),
    Case("reset-count-back", ("reset-count-rollback",), _reset_before, True),
)
ENROLMENT_CASE = "ak-not-restricted"
ENROLMENT_CODE = "ak-unrestricted"
