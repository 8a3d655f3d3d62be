"""``policy.json`` of containers/image (skopeo, podman, CRI-O), made a container policy.

containers/image, "containers-policy.json(5)". Only transport ``docker`` speaks about images from
registries; the others (``dir``, ``containers-storage``, …) concern commands that no node runs, and are
left out.

==========================  ============================================================
requirement                 becomes
==========================  ============================================================
``reject``                  no scope: what no scope allows does not run
``signedBy``, GPG keys      a publisher with OpenPGP keys
``sigstoreSigned`` with     a publisher with keys; with roots and an e-mail address, host
keys, ``pki``, ``fulcio``   name or issuer; Rekor keys become the logs of its certificates
``insecureAcceptAnything``  refused, as default and as a scope
several in one list         refused: all would have to hold, publishers of a scope are alternatives
==========================  ============================================================

===========================  ===========================================================
``signedIdentity``           becomes
===========================  ===========================================================
``matchRepoDigestOrExact``,  nothing: signatures name the repository that is run
``matchRepository``
``exactRepository``,         a ``claim`` of the scope
``exactReference``,
``remapIdentity``
``matchExact``               refused: it accepts no digest, and containers start by digest
===========================  ===========================================================

A scope ``registry/name`` matches itself and everything below in both; wildcards for host names and
scopes for one tag have no counterpart and are refused. So is what would widen trust by being left out:
a ``reject`` below a scope that allows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import msgspec

from catena.containers.signature.result import SignatureFormat
from catena.errors import ExitCode, FormatError
from catena.formats import ijson, openpgp
from catena.formats.containerpolicy import (
    CertificateIdentity,
    ContainerPolicy,
    Publisher,
    Scope,
)

ReadFile = Callable[[str], bytes]

_REGISTRY = re.compile(r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*\Z")  # fmt: skip
_SIGSTORE = (SignatureFormat.COSIGN.value, SignatureFormat.COSIGN_BUNDLE.value)
_SIMPLE = (SignatureFormat.SIMPLE_SIGNING.value,)
_EVERYTHING = "*"
_NAME = "images-policy"


class UnsupportedImagesPolicy(FormatError):
    """A ``policy.json`` that says something that catena will not do."""

    code = "images-policy-unsupported"
    exit_code: ClassVar[ExitCode] = ExitCode.POLICY
    remedy = "Change the requirement that is named, or write a container policy yourself."


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """containers/image refuses unknown members, too."""


class _SignedIdentity(_Part, frozen=True, kw_only=True):
    type: str
    docker_reference: str = ""
    docker_repository: str = ""
    prefix: str = ""
    signed_prefix: str = ""


class _Fulcio(_Part, frozen=True, kw_only=True):
    ca_path: str = ""
    ca_data: bytes = b""
    oidc_issuer: str = ""
    subject_email: str = ""


class _Pki(_Part, frozen=True, kw_only=True):
    ca_roots_path: str = ""
    ca_roots_data: bytes = b""
    ca_intermediates_path: str = ""
    ca_intermediates_data: bytes = b""
    subject_email: str = ""
    subject_hostname: str = ""


class _Requirement(_Part, frozen=True, kw_only=True):
    type: Literal[
        "reject", "insecureAcceptAnything", "signedBy", "sigstoreSigned", "signedBaseLayer"
    ]
    key_type: str = ""
    key_path: str = ""
    key_paths: tuple[str, ...] = ()
    key_data: bytes = b""
    key_datas: tuple[bytes, ...] = ()
    fulcio: _Fulcio | None = None
    pki: _Pki | None = None
    rekor_public_key_path: str = ""
    rekor_public_key_paths: tuple[str, ...] = ()
    rekor_public_key_data: bytes = b""
    rekor_public_key_datas: tuple[bytes, ...] = ()
    signed_identity: _SignedIdentity | None = None
    base_layer_identity: _SignedIdentity | None = None


class _Policy(_Part, frozen=True, kw_only=True):
    default: tuple[_Requirement, ...]
    transports: dict[str, dict[str, tuple[_Requirement, ...]]] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Rule:
    """The one requirement of a scope of policy.json, ``*`` for all."""

    where: str
    requirement: _Requirement

    @property
    def rejects(self) -> bool:
        return self.requirement.type == "reject"


def read_policy_json(data: bytes, read_file: ReadFile) -> ContainerPolicy:
    """The policy as a container policy; ``read_file`` gives the content of key files by path.

    Raises ``FormatError``, ``UnsupportedImagesPolicy``, and whatever ``read_file`` raises.
    """
    policy = ijson.decode(data, _Policy, what="policy.json")
    rules = _rules(policy)
    _check_rejections(rules)
    allowed = [rule for rule in rules if not rule.rejects]
    if not allowed:
        raise UnsupportedImagesPolicy("policy.json allows nothing from registries")
    publishers: dict[Publisher, str] = {}
    scopes: list[Scope] = []
    for rule in allowed:
        publisher = _publisher(rule, read_file)
        name = publishers.setdefault(publisher, f"publisher-{len(publishers) + 1}")
        scopes.extend(_scopes(rule, name))
    named = tuple(msgspec.structs.replace(one, name=name) for one, name in publishers.items())
    return ContainerPolicy(name=_NAME, version=1, publishers=named, scopes=tuple(scopes))


def _rules(policy: _Policy) -> list[_Rule]:
    registries = policy.transports.get("docker", {})
    everything = registries.get("", policy.default)
    places = {_EVERYTHING: everything, **{at: one for at, one in registries.items() if at}}
    return [_rule(where, requirements) for where, requirements in places.items()]


def _rule(where: str, requirements: tuple[_Requirement, ...]) -> _Rule:
    if len(requirements) != 1:
        raise _unsupported(
            where, "has several requirements that all have to hold", f"{len(requirements)}"
        )
    if where != _EVERYTHING and not _REGISTRY.match(where):
        raise _unsupported(where, "is a wildcard or names a tag", where)
    requirement = requirements[0]
    if requirement.type == "insecureAcceptAnything":
        raise _unsupported(where, "lets unsigned images run", requirement.type)
    if requirement.type == "signedBaseLayer" or requirement.base_layer_identity is not None:
        raise _unsupported(where, "asks for a signed base layer", requirement.type)
    return _Rule(where, requirement)


def _check_rejections(rules: Sequence[_Rule]) -> None:
    """A rejection can be left out only where no wider scope allows."""
    allowing = {rule.where for rule in rules if not rule.rejects}
    for rule in rules:
        if rule.rejects and any(wider in allowing for wider in _wider(rule.where)):
            raise _unsupported(rule.where, "rejects what a wider scope allows", "reject")


def _wider(where: str) -> Iterable[str]:
    while "/" in where:
        where = where.rpartition("/")[0]
        yield where
    if where != _EVERYTHING:
        yield _EVERYTHING


def _scopes(rule: _Rule, publisher: str) -> Iterable[Scope]:
    """A scope of policy.json is a repository and all below it; a host name only what is below."""
    claim = _claim(rule)
    formats = _SIMPLE if rule.requirement.type == "signedBy" else _SIGSTORE

    def scope(repository: str, named: str) -> Scope:
        return Scope(repository=repository, publishers=(publisher,), formats=formats, claim=named)

    if rule.where == _EVERYTHING:
        yield scope(_EVERYTHING, claim)
        return
    moved = bool(claim) and _identity_type(rule) == "remapIdentity"
    if "/" in rule.where:
        yield scope(rule.where, claim)
    yield scope(f"{rule.where}/*", f"{claim}/*" if moved else claim)


def _claim(rule: _Rule) -> str:
    identity = rule.requirement.signed_identity
    match _identity_type(rule):
        case "matchRepoDigestOrExact" | "matchRepository":
            return ""
        case "exactRepository" if identity and identity.docker_repository:
            return identity.docker_repository
        case "exactReference" if identity and identity.docker_reference:
            return identity.docker_reference
        case "remapIdentity" if identity and identity.prefix and identity.signed_prefix:
            return _remapped(rule, identity)
        case other:
            raise _unsupported(rule.where, "asks for another identity than can be had", other)


def _remapped(rule: _Rule, identity: _SignedIdentity) -> str:
    """What the scope's own name becomes, if it is below the prefix: below it no name is moved."""
    if not f"{rule.where}/".startswith(f"{identity.prefix}/"):
        raise _unsupported(rule.where, "moves other names than its own", identity.prefix)
    return identity.signed_prefix + rule.where.removeprefix(identity.prefix)


def _identity_type(rule: _Rule) -> str:
    identity = rule.requirement.signed_identity
    return identity.type if identity else "matchRepoDigestOrExact"


def _publisher(rule: _Rule, read_file: ReadFile) -> Publisher:
    """The requirement's publisher, without a name."""
    required = rule.requirement
    keys = _contents(required.key_path, required.key_paths, required.key_data, required.key_datas, read_file)  # fmt: skip
    if required.type == "signedBy":
        if required.key_type != "GPGKeys" or not keys or required.fulcio or required.pki:
            raise _unsupported(rule.where, "asks for keys of another kind", required.key_type)
        return Publisher(name="publisher", openpgp=tuple(_armored(rule, key) for key in keys))
    logs = _contents(
        required.rekor_public_key_path,
        required.rekor_public_key_paths,
        required.rekor_public_key_data,
        required.rekor_public_key_datas,
        read_file,
    )
    if bool(keys) + bool(required.fulcio) + bool(required.pki) != 1:
        raise _unsupported(rule.where, "has not exactly one of keys, fulcio and pki", "")
    if keys and logs:
        raise _unsupported(rule.where, "asks for a log entry beside a key", "rekorPublicKey")
    if keys:
        return Publisher(name="publisher", keys=tuple(_text(rule, key) for key in keys))
    identity = _identity(rule, read_file, tuple(_text(rule, log) for log in logs))
    return Publisher(name="publisher", identities=(identity,))


def _identity(rule: _Rule, read_file: ReadFile, logs: tuple[str, ...]) -> CertificateIdentity:
    fulcio, pki = rule.requirement.fulcio, rule.requirement.pki
    if fulcio is not None:
        roots = _contents(fulcio.ca_path, (), fulcio.ca_data, (), read_file)
        san, issuer = fulcio.subject_email, fulcio.oidc_issuer
        if not (logs and san and issuer):
            raise _unsupported(rule.where, "needs a log, an e-mail address and an issuer", "fulcio")
    elif pki is not None:
        roots = _contents(pki.ca_roots_path, (), pki.ca_roots_data, (), read_file)
        if pki.subject_email and pki.subject_hostname:
            raise _unsupported(rule.where, "asks for two names in a certificate", "pki")
        san, issuer = pki.subject_email or pki.subject_hostname, ""
        if logs:
            raise _unsupported(rule.where, "asks for a log entry beside its own roots", "pki")
    if not roots or not san:
        raise _unsupported(rule.where, "accepts everybody under its roots, or has none", "roots")
    return CertificateIdentity(
        roots=tuple(_text(rule, root) for root in roots), san=san, issuer=issuer, logs=logs
    )


def _contents(
    path: str, paths: Sequence[str], data: bytes, datas: Sequence[bytes], read_file: ReadFile
) -> list[bytes]:
    files = [read_file(one) for one in (path, *paths) if one]
    return [*files, *(one for one in (data, *datas) if one)]


def _armored(rule: _Rule, key: bytes) -> str:
    """A key file as the text that policies hold."""
    binary = openpgp.dearmor(key, openpgp.KEY_ARMOR)
    if openpgp.PUBLIC_KEY not in {packet.tag for packet in openpgp.parse(binary)[:1]}:
        raise _unsupported(rule.where, "has a file that is no OpenPGP key", "")
    return openpgp.armor(binary, openpgp.KEY_ARMOR)


def _text(rule: _Rule, pem: bytes) -> str:
    if not pem.isascii() or b"-----BEGIN " not in pem:
        raise _unsupported(rule.where, "has a key that is no PEM", "")
    return pem.decode("ascii")


def _unsupported(where: str, why: str, got: str) -> UnsupportedImagesPolicy:
    return UnsupportedImagesPolicy(
        f"policy.json's scope {where[:80]!a} {why}", got=ascii(got[:80]) if got else None
    )
