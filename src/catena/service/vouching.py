"""Tokens by which others believe that a node was trusted, without asking this server: for an audience each.

Two JSON Web Tokens, signed with ES256 by a key of their own that ``/v1/bundle`` has as ``jwt-svid``:

=============  ====================================================================================
``jwt_svid``   who the node is: a JWT-SVID (SPIFFE JWT-SVID, sections 2 to 4): ``sub``, ``aud``, ``exp``
``result``     what was found: an EAT attestation result (draft-ietf-rats-ear-04): tier, policy, release,
               evidence, log
=============  ====================================================================================

A node gets them only with a certificate, for audiences that it asks for *and* that the settings allow, and never for
longer than a verdict counts. A bearer token is worth what its holder keeps secret: each is for one audience.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from catena import __version__
from catena.audit.entries import TokenIssued
from catena.formats.jwk import Jwk
from catena.formats.nodeapi import NodeToken
from catena.ids import Sha256Hex
from catena.keys import jose
from catena.keys.signer import Signer
from catena.service.pseudonyms import SERVER
from catena.store.nodes import Node

EAR_PROFILE = "tag:ietf.org,2026:rats/ear#04"
AFFIRMING = "affirming"
DEVELOPER = "https://catena.invalid"
"""A name for the verifier's maker that nobody can own (RFC 6761, section 6.4)."""


class SvidClaims(msgspec.Struct, frozen=True, kw_only=True):
    """A JWT-SVID's claims; times are seconds since 1970."""

    sub: str
    aud: tuple[str, ...]
    iat: int
    exp: int


class VerifierId(msgspec.Struct, frozen=True, kw_only=True):
    """Who appraised."""

    developer: str
    build: str


class Submodule(msgspec.Struct, frozen=True, kw_only=True):
    """What was found about one part of the attester; catena tells of the node as a whole."""

    ear_status: str
    ear_appraisal_policy_id: str
    """``sha256:`` and the digest of the policy's text, as the log has it."""
    catena_release: str | None
    catena_evidence_sha256: str
    """The evidence, as the verdict's entry in the log names it."""


class ResultClaims(SvidClaims, frozen=True, kw_only=True):
    """An attestation result's claims."""

    iss: str
    eat_profile: str = EAR_PROFILE
    ear_status: str = AFFIRMING
    ear_verifier_id: VerifierId
    submods: dict[str, Submodule]


@dataclass(frozen=True, slots=True)
class Found:
    """What is vouched for about a node that was admitted."""

    node: Node
    policy_sha256: Sha256Hex
    evidence_sha256: Sha256Hex
    release: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouching:
    """Makes tokens. ``audiences`` are those that nodes may have them for."""

    signer: Signer
    audiences: frozenset[str]
    lifetime: timedelta
    trust_domain: str

    def __post_init__(self) -> None:
        """Raises ``UnusableKey`` for a key that cannot sign them."""
        jose.jwk_of(self.signer.public_key, use="jwt-svid")

    @property
    def jwk(self) -> Jwk:
        """The key that others verify with."""
        return jose.jwk_of(self.signer.public_key, use="jwt-svid", kid=self.signer.key_id)

    def tokens(self, found: Found, wanted: Iterable[str], now: datetime) -> tuple[NodeToken, ...]:
        """Tokens for the audiences that are wanted and allowed; for the others there are none."""
        allowed = (one for one in dict.fromkeys(wanted) if one in self.audiences)
        return tuple(self._token(found, audience, now) for audience in allowed)

    def _token(self, found: Found, audience: str, now: datetime) -> NodeToken:
        issued, until = int(now.timestamp()), int((now + self.lifetime).timestamp())
        name = f"spiffe://{self.trust_domain}/node/{found.node.name}"
        svid = SvidClaims(sub=name, aud=(audience,), iat=issued, exp=until)
        result = ResultClaims(
            sub=name,
            aud=(audience,),
            iat=issued,
            exp=until,
            iss=f"spiffe://{self.trust_domain}",
            ear_verifier_id=VerifierId(developer=DEVELOPER, build=f"catena {__version__}"),
            submods={
                "node": Submodule(
                    ear_status=AFFIRMING,
                    ear_appraisal_policy_id=f"sha256:{found.policy_sha256}",
                    catena_release=found.release,
                    catena_evidence_sha256=found.evidence_sha256,
                )
            },
        )
        return NodeToken(
            audience=audience,
            jwt_svid=jose.sign(self.signer, svid),
            result=jose.sign(self.signer, result, typ="eat+jwt"),
            not_after=datetime.fromtimestamp(until, now.tzinfo),
        )


def entries_of(tokens: Iterable[NodeToken], node: Node, now: datetime) -> tuple[TokenIssued, ...]:
    """One log entry for each audience."""
    return tuple(
        TokenIssued(
            at=now,
            actor=SERVER,
            node_id=node.id,
            node_name=node.name,
            audience=one.audience,
            svid_sha256=hashlib.sha256(one.jwt_svid.encode()).hexdigest(),
            result_sha256=hashlib.sha256(one.result.encode()).hexdigest(),
            not_after=one.not_after,
        )
        for one in tokens
    )
