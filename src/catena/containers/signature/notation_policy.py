"""Notation's own trust policies as input: which roots and identities a repository has.

Notary Project, "Trust store and trust policy". Signatures are always verified as level ``strict``
asks: ``permissive`` and ``audit``, overrides and time stamp settings would only allow more, so they
change nothing; ``skip`` is refused, because nothing may run unverified. Stores of time stamping
authorities (``tsa:``) are passed over: time stamps are not read (``notation``, step 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from cryptography import x509

from catena.containers.signature.certificates import is_root
from catena.containers.signature.identities import ANY, parse_identity
from catena.containers.signature.notation import NotationTrust
from catena.errors import ExitCode, FormatError, NotFound
from catena.formats.notation import TrustPolicy, parse_trust_policy

SIGNERS, AUTHORITIES, TIME_STAMPERS = "ca", "signingAuthority", "tsa"

Stores = Mapping[str, tuple[x509.Certificate, ...]]
"""Certificates by ``kind:name``, as trust policies call them."""


class UnsupportedTrustPolicy(FormatError):
    """A trust policy that contradicts itself, or that would let something run unverified."""

    code = "trust-policy-unsupported"
    exit_code: ClassVar[ExitCode] = ExitCode.POLICY
    remedy = "Change the trust policy; every repository needs one policy with roots and identities."


class NoTrustPolicy(NotFound):
    """A repository that no trust policy speaks about."""

    code = "trust-policy-missing"
    remedy = "Add a policy with the repository in its registryScopes."


@dataclass(frozen=True, slots=True)
class NotationPolicies:
    """Trust by repository; ``*`` is for all that have none of their own."""

    trust: Mapping[str, NotationTrust]

    def trust_for(self, repository: str) -> NotationTrust:
        """Whom to believe for ``repository``. Raises ``NoTrustPolicy``."""
        found = self.trust.get(repository, self.trust.get(ANY))
        if found is None:
            raise NoTrustPolicy("no trust policy speaks about the repository", got=repository[:200])
        return found


def read_trust_policy(data: bytes, stores: Stores) -> NotationPolicies:
    """Read a trust policy document. Raises ``FormatError``, ``UnsupportedTrustPolicy``, ``MalformedIdentity``."""
    trust: dict[str, NotationTrust] = {}
    for policy in parse_trust_policy(data).trust_policies:
        believed = _trust_of(policy, stores)
        if ANY in policy.registry_scopes and len(policy.registry_scopes) > 1:
            raise UnsupportedTrustPolicy("`*` stands beside other repositories", got=_name(policy))
        for scope in policy.registry_scopes:
            if scope in trust:
                raise UnsupportedTrustPolicy("repository has two policies", got=ascii(scope[:120]))
            trust[scope] = believed
    return NotationPolicies(trust)


def _trust_of(policy: TrustPolicy, stores: Stores) -> NotationTrust:
    if policy.signature_verification.level == "skip":
        raise UnsupportedTrustPolicy("policy skips verification", got=_name(policy))
    if not policy.trusted_identities:
        raise UnsupportedTrustPolicy("policy trusts no identity", got=_name(policy))
    if ANY in policy.trusted_identities and len(policy.trusted_identities) > 1:
        raise UnsupportedTrustPolicy("`*` stands beside other identities", got=_name(policy))
    for identity in policy.trusted_identities:
        if identity != ANY:
            parse_identity(identity)
    roots, authorities = (_roots(policy, kind, stores) for kind in (SIGNERS, AUTHORITIES))
    if not roots + authorities:
        raise UnsupportedTrustPolicy("policy has no trust store", got=_name(policy))
    return NotationTrust(roots, authorities, policy.trusted_identities)


def _roots(policy: TrustPolicy, wanted: str, stores: Stores) -> tuple[x509.Certificate, ...]:
    """The certificates of the policy's stores of one kind."""
    found: list[x509.Certificate] = []
    for store in policy.trust_stores:
        kind = store.partition(":")[0]
        if kind not in {SIGNERS, AUTHORITIES, TIME_STAMPERS}:
            raise UnsupportedTrustPolicy("trust store is of an unknown kind", got=ascii(store[:80]))
        if kind == wanted:
            found.extend(_store(store, stores))
    return tuple(found)


def _store(name: str, stores: Stores) -> tuple[x509.Certificate, ...]:
    certificates = stores.get(name, ())
    if not certificates:
        raise UnsupportedTrustPolicy("trust store is empty or missing", got=ascii(name[:80]))
    if not all(map(is_root, certificates)):
        raise UnsupportedTrustPolicy(
            "trust store holds a certificate that is no root",
            expected="authorities, or certificates signed by themselves",
            got=ascii(name[:80]),
        )
    return certificates


def _name(policy: TrustPolicy) -> str:
    return ascii(policy.name[:80])
