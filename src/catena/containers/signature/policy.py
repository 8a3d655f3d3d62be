"""A container policy with its keys read once: who may publish what.

``compile_policy`` refuses a policy that would not mean what it says: names that lead nowhere, keys
that cannot be read, a publisher without a key, one key for two publishers, a scope that no
reference can match.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from catena.containers.launch.rules import compile_launch
from catena.containers.signature import identities
from catena.containers.signature.key import VerificationKey, parse_key
from catena.containers.signature.result import SignatureFormat
from catena.containers.signature.version import Version, parse_version
from catena.containers.signature.x509 import Identity, pem_certificates
from catena.errors import CatenaError, ExitCode, FormatError
from catena.formats import oci
from catena.formats.containerpolicy import (
    CertificateIdentity,
    ContainerPolicy,
    Publisher,
    Scope,
    policy_digest,
    scopes_over,
)
from catena.ids import Sha256Hex

EVERYTHING = "*"
_BELOW = "/*"
CLAIMING = frozenset({SignatureFormat.COSIGN, SignatureFormat.SIMPLE_SIGNING, SignatureFormat.ACI})
"""Formats that sign the repository, always: without it such a signature counts nowhere."""

T = TypeVar("T")
R = TypeVar("R")


class BadContainerPolicy(CatenaError):
    """A container policy that cannot be used; nothing runs under it."""

    code = "container-policy"
    exit_code = ExitCode.POLICY
    remedy = "Correct the policy and check it with `catena container policy check`."


@dataclass(frozen=True, slots=True)
class PublisherKeys:
    """Everything that may sign in a publisher's name. ``openpgp`` are keys as they were given."""

    name: str
    keys: tuple[VerificationKey, ...]
    identities: tuple[Identity, ...]
    openpgp: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class CompiledScope:
    """One scope, ready to judge; ``formats`` is what it accepts."""

    rule: Scope
    publishers: tuple[PublisherKeys, ...]
    formats: frozenset[SignatureFormat]
    min_version: Version | None


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """A policy, ready to judge; ``digest`` is the SHA-256 of the document's JSON."""

    document: ContainerPolicy
    digest: Sha256Hex
    publishers: Mapping[str, PublisherKeys]
    scopes: Mapping[str, CompiledScope]

    def scope_of(self, repository: str) -> CompiledScope | None:
        """The longest scope that matches ``registry/name``: it applies alone."""
        for name in scopes_over(repository):
            if (scope := self.scopes.get(name)) is not None:
                return scope
        return None

    def scopes_of(self, publisher: str, kind: SignatureFormat) -> frozenset[str]:
        """The scopes in which a publisher's signatures of this format count."""
        return frozenset(
            name
            for name, scope in self.scopes.items()
            if publisher in scope.rule.publishers and kind in scope.formats
        )


def compile_policy(document: ContainerPolicy) -> CompiledPolicy:
    """Read all keys of a policy. Raises ``BadContainerPolicy``."""
    _check_unique("publisher", (one.name for one in document.publishers))
    _check_unique("scope", (one.repository for one in document.scopes))
    publishers = {one.name: _publisher(one) for one in document.publishers}
    _check_apart(publishers.values())
    scopes = {one.repository: _scope(one, publishers) for one in document.scopes}
    if document.default_launch is not None:
        _read("default_launch", compile_launch, document.default_launch)
    return CompiledPolicy(document, policy_digest(document), publishers, scopes)


def notes_on(policy: CompiledPolicy) -> Iterator[str]:
    """What a policy allows that whoever wrote it may not have meant, in words."""
    for name, scope in policy.scopes.items():
        unclaiming = sorted(scope.formats - CLAIMING)
        if name.endswith(EVERYTHING) and unclaiming:
            yield (
                f"{name}: signatures that name no repository ({', '.join(unclaiming)}) "
                "count for all repositories of this scope alike"
            )
        for publisher in scope.rule.publishers:
            for kind in unclaiming:
                if len(policy.scopes_of(publisher, SignatureFormat(kind))) > 1:
                    yield (
                        f"{name}: {publisher} has more than this scope, so its {kind} "
                        "signatures count only if they name the repository"
                    )


def _publisher(publisher: Publisher) -> PublisherKeys:
    if not (publisher.keys or publisher.identities or publisher.openpgp):
        raise BadContainerPolicy(f"publisher {publisher.name} has no key")
    return PublisherKeys(
        publisher.name,
        tuple(_read(publisher.name, parse_key, pem) for pem in publisher.keys),
        tuple(_read(publisher.name, _identity, one) for one in publisher.identities),
        tuple(key.encode() for key in publisher.openpgp),
    )


def _identity(rule: CertificateIdentity) -> Identity:
    if not (rule.subject or rule.san or rule.issuer):
        raise FormatError("identity accepts everybody under its roots")
    if rule.subject.startswith(identities.PREFIX):
        identities.parse_identity(rule.subject)
    roots = tuple(root for pem in rule.roots for root in pem_certificates(pem))
    return Identity(roots, rule.subject, rule.san, rule.issuer, tuple(map(parse_key, rule.logs)))


def _scope(rule: Scope, publishers: Mapping[str, PublisherKeys]) -> CompiledScope:
    name = rule.repository
    _read(name, _check_pattern, name)
    if unknown := [one for one in rule.publishers if one not in publishers]:
        raise BadContainerPolicy(f"scope {name} names an unknown publisher", got=unknown[0])
    if wrong := [one for one in rule.formats if one not in set(SignatureFormat)]:
        raise BadContainerPolicy(
            f"scope {name} names an unknown signature format",
            expected=", ".join(SignatureFormat),
            got=ascii(wrong[0][:40]),
        )
    if rule.not_before is not None and rule.not_before.tzinfo is None:
        raise BadContainerPolicy(f"scope {name} has a time without a zone")
    return CompiledScope(
        rule,
        tuple(publishers[one] for one in rule.publishers),
        frozenset(map(SignatureFormat, rule.formats or SignatureFormat)),
        _read(name, parse_version, rule.min_version) if rule.min_version else None,
    )


def _check_pattern(name: str) -> None:
    """``*``, ``registry/*``, ``registry/name`` or ``registry/name/*``, as references are written."""
    if name == EVERYTHING:
        return
    plain = name.removesuffix(_BELOW)
    probe = plain if "/" in plain else f"{plain}/any"
    reference = oci.parse_reference(probe)
    if reference.repository != probe or (probe != plain and plain == name):
        raise FormatError("scope is no repository", expected="registry/name or registry/name/*")


def _check_apart(publishers: Iterable[PublisherKeys]) -> None:
    """A key that speaks for two publishers says of neither who signed."""
    owners: dict[object, str] = {}
    for one in publishers:
        certified = (
            (root, name.subject, name.san, name.issuer)
            for name in one.identities
            for root in name.roots
        )
        for key in (*(key.id for key in one.keys), *certified, *one.openpgp):
            owner = owners.setdefault(key, one.name)
            if owner != one.name:
                raise BadContainerPolicy(
                    "one key speaks for two publishers", got=f"{owner} and {one.name}"
                )


def _check_unique(what: str, names: Iterable[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise BadContainerPolicy(f"{what} occurs twice", got=ascii(twice[0][:80]))


def _read(where: str, read: Callable[[T], R], text: T) -> R:
    """What ``read`` makes of it, its complaint as one about the policy."""
    try:
        return read(text)
    except FormatError as error:
        raise BadContainerPolicy(f"{where}: {error.message}", got=error.got) from error
