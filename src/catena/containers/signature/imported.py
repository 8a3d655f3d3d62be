"""Trust that other tools were told, made a container policy.

==================  ======================================================================
``images-policy``   ``policy.json`` of containers/image (``images_policy`` says what becomes what)
``notation``        ``trustpolicy.json`` with its trust store: each identity of a policy is a
                    publisher, each repository a scope for notation's two formats
``rkt``             trust store of rkt: each key is a publisher, each prefix a scope for ACIs with the
                    keys that count there, masked ones left out
==================  ======================================================================

What a container policy cannot say as narrowly is refused with an error of its own; nothing is made
wider. The result is a draft: a person reads it, ``policy check`` compiles it, ``policy sign`` signs it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from catena.containers.signature.aci import ROOT, TrustStore
from catena.containers.signature.aci_truststore import read_trust_store
from catena.containers.signature.certificates import parse_certificates
from catena.containers.signature.identities import ANY
from catena.containers.signature.images_policy import read_policy_json
from catena.containers.signature.notation import NotationTrust
from catena.containers.signature.notation_policy import (
    AUTHORITIES,
    SIGNERS,
    Stores,
    UnsupportedTrustPolicy,
    read_trust_policy,
)
from catena.containers.signature.result import SignatureFormat
from catena.errors import ExitCode, FormatError, NotFound
from catena.formats import openpgp
from catena.formats.containerpolicy import CertificateIdentity, ContainerPolicy, Publisher, Scope

MAX_FILE = 4 * 1024 * 1024
_NOTATION = (SignatureFormat.NOTATION_JWS.value, SignatureFormat.NOTATION_COSE.value)
_ACI = (SignatureFormat.ACI.value,)
_SUFFIXES = frozenset({".pem", ".crt", ".cer"})
_STORE_KINDS = (SIGNERS, AUTHORITIES)


class Kind(enum.StrEnum):
    """Whose trust is imported."""

    IMAGES_POLICY = "images-policy"
    NOTATION = "notation"
    RKT = "rkt"


class UnsupportedTrustStore(FormatError):
    """A trust store that takes a name's last key away, or that trusts nobody."""

    code = "trust-store-unsupported"
    exit_code: ClassVar[ExitCode] = ExitCode.POLICY
    remedy = "Remove the folder or trust a key in it: a container policy cannot take a name away."


class MissingTrustFile(NotFound):
    """A file that a foreign policy names, or the policy itself."""

    code = "trust-file-missing"
    remedy = "Put the file where it is expected, or name another with the command's options."


def read_images_policy(path: Path) -> ContainerPolicy:
    """``policy.json``; key files are read from where it says, relative to its own folder."""
    return read_policy_json(_content(path), lambda name: _content(path.parent / name))


def read_notation(path: Path, store: Path) -> ContainerPolicy:
    """A trust policy document, with the folder that has ``x509/KIND/NAME/*.pem``."""
    publishers: dict[Publisher, str] = {}
    scopes = []
    for repository, trust in read_trust_policy(_content(path), _stores(store)).trust.items():
        names = [
            publishers.setdefault(one, f"notation-{len(publishers) + 1}")
            for one in _identities(repository, trust)
        ]
        scopes.append(Scope(repository=repository, publishers=tuple(names), formats=_NOTATION))
    return _policy("notation", publishers, scopes)


def read_rkt(*folders: Path) -> ContainerPolicy:
    """Trust stores, the system's first."""
    store = read_trust_store(folders)
    publishers: dict[Publisher, str] = {}
    scopes: list[Scope] = []
    for prefix in sorted({file.prefix for file in store.files}):
        names = []
        for fingerprint, key in _keys(store, prefix):
            armored = openpgp.armor(_binary(key), openpgp.KEY_ARMOR)
            publisher = Publisher(name="publisher", openpgp=(armored,))
            names.append(publishers.setdefault(publisher, f"openpgp-{fingerprint[-16:]}"))
        scopes += (
            Scope(repository=repository, publishers=tuple(names), formats=_ACI)
            for repository in (_below(prefix) if names else ())
        )
    if not scopes:
        raise UnsupportedTrustStore("trust store has no key that counts")
    return _policy("rkt", publishers, scopes)


def _policy(name: str, publishers: dict[Publisher, str], scopes: list[Scope]) -> ContainerPolicy:
    named = tuple(msgspec.structs.replace(one, name=given) for one, given in publishers.items())
    return ContainerPolicy(name=name, version=1, publishers=named, scopes=tuple(scopes))


# notation -------------------------------------------------------------------------------------


def _identities(repository: str, trust: NotationTrust) -> Iterator[Publisher]:
    """One publisher without a name for each identity of a repository's policy."""
    if trust.authorities:
        raise UnsupportedTrustPolicy(
            "policy lets a signing authority vouch for the time", got=repository[:120]
        )
    if ANY in trust.identities:
        raise UnsupportedTrustPolicy(
            "policy trusts everybody under its roots", got=repository[:120]
        )
    roots = tuple(one.public_bytes(Encoding.PEM).decode() for one in trust.roots)
    for subject in trust.identities:
        identity = CertificateIdentity(roots=roots, subject=subject)
        yield Publisher(name="publisher", identities=(identity,))


def _stores(top: Path) -> Stores:
    """Every store that there is, by ``kind:name``; only regular files count, as for notation."""
    found: dict[str, tuple[x509.Certificate, ...]] = {}
    for kind in _STORE_KINDS:
        folder = top / "x509" / kind
        for store in sorted(folder.iterdir()) if folder.is_dir() else ():
            found[f"{kind}:{store.name}"] = tuple(_certificates(store))
    return found


def _certificates(store: Path) -> Iterator[x509.Certificate]:
    for path in sorted(store.iterdir()):
        if path.is_symlink() or not path.is_file() or path.suffix not in _SUFFIXES:
            raise UnsupportedTrustPolicy(
                "trust store holds something else than certificates",
                expected="regular files .pem, .crt, .cer",
                got=ascii(path.name[:80]),
            )
        yield from parse_certificates(_content(path))


# rkt ------------------------------------------------------------------------------------------


def _keys(store: TrustStore, prefix: str) -> Iterator[tuple[str, bytes]]:
    """The keys that count for all names of a prefix, inherited ones too."""
    keys = store.keys_for(prefix)
    if not keys and store.keys_for(prefix.rpartition("/")[0]):
        raise UnsupportedTrustStore("all keys of a prefix are masked", got=ascii(prefix[:120]))
    yield from keys.items()


def _below(prefix: str) -> tuple[str, ...]:
    """The scopes of a prefix: the name itself, where it can be one, and all below it."""
    if prefix == ROOT:
        return ("*",)
    return (prefix, f"{prefix}/*") if "/" in prefix else (f"{prefix}/*",)


def _binary(key: bytes) -> bytes:
    return openpgp.dearmor(key, openpgp.KEY_ARMOR)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingTrustFile("file is missing", got=str(path)[:200]) from error
    if len(content) > MAX_FILE:
        raise FormatError(f"{path.name} is too large", expected=f"at most {MAX_FILE} bytes")
    return content
