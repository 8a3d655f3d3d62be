"""Container policies: whose images may run on a node, and how.

The predicate ``urn:catena:container:policy:v1`` of an in-toto Statement in a DSSE envelope
(``formats.dsse``), signed by the release key. Nodes keep it in their release; the trust service
imports the same document as a reference, and a record that names another policy is unclaimed.

**Publishers** are names for keys: PEM public keys (P-256, P-384, Ed25519, RSA), X.509 identities under
configured roots, OpenPGP keys. **Scopes** map repositories to publishers: ``registry/name``
itself, ``registry/name/*`` for everything below, or ``*``; the longest scope that matches
applies, alone. A format that signs the repository must name the one that is run; for one that
does not, a publisher's key must be used for this scope only (``TRUST``, "Containers"), and counts for every
repository of the scope alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

import msgspec

from catena.formats.launchpolicy import LaunchPolicy
from catena.formats.references import Document
from catena.ids import Sha256Hex

CONTAINER_POLICY_TYPE = "urn:catena:container:policy:v1"

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?\Z")]


class CertificateIdentity(Document, frozen=True, kw_only=True):
    """Certificates that speak for a publisher: under ``roots`` (PEM), with this identity.

    A root is trusted as it is listed, self-signed or not: cosign's bundles bring the leaf alone, so the
    authority that issued it has to be one.
    ``subject`` is the whole subject (RFC 4514), attributes that it must have among others (written as notation
    writes them, ``x509.subject: C=US, ST=WA, O=Example``), or empty; ``san`` one subject alternative name or
    empty; ``issuer`` the OIDC issuer extension of a Fulcio certificate or empty. At least one of the three is set.
    ``logs`` are keys (PEM) of transparency logs: with any, a certificate counts only at the time that one of
    them promises to have seen the signature; without, it has to be valid now.
    """

    roots: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=32)]
    subject: str = ""
    san: str = ""
    issuer: str = ""
    logs: Annotated[tuple[str, ...], msgspec.Meta(max_length=32)] = ()


class Publisher(Document, frozen=True, kw_only=True):
    """One publisher and everything that may sign in its name."""

    name: Name
    keys: Annotated[tuple[str, ...], msgspec.Meta(max_length=32)] = ()
    identities: Annotated[tuple[CertificateIdentity, ...], msgspec.Meta(max_length=32)] = ()
    openpgp: Annotated[tuple[str, ...], msgspec.Meta(max_length=32)] = ()


class Scope(Document, frozen=True, kw_only=True):
    """Who may publish ``repository``; what is older than ``min_version`` or ``not_before`` is refused.

    ``formats`` limits the signature formats (values of ``SignatureFormat``); empty allows all.
    ``launch_required`` refuses images without a launch policy of their own. ``claim`` is what
    signatures name instead of the repository that is run (``containers.signature.claims``), for
    mirrors; empty for itself.
    """

    repository: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    publishers: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=64)]
    formats: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    min_version: str = ""
    not_before: datetime | None = None
    launch_required: bool = False
    claim: str = ""


class ContainerPolicy(Document, frozen=True, kw_only=True):
    """One version of a policy; ``default_launch`` is for images without a launch policy."""

    name: Name
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    publishers: Annotated[tuple[Publisher, ...], msgspec.Meta(min_length=1, max_length=256)]
    scopes: Annotated[tuple[Scope, ...], msgspec.Meta(min_length=1, max_length=1024)]
    default_launch: LaunchPolicy | None = None


_BELOW = "/*"
_ALL = "*"


def policy_digest(policy: ContainerPolicy) -> Sha256Hex:
    """What names this policy in records: SHA-256 of its document as JSON."""
    return Sha256Hex(hashlib.sha256(msgspec.json.encode(policy)).hexdigest())


def scopes_over(repository: str) -> Iterator[str]:
    """What a scope for ``repository`` may be called; the first that a policy has applies, alone.

    ``a/b`` itself, then ``a/*`` and whatever lies above, then ``*``.
    """
    yield repository
    parent = repository.rpartition("/")[0]
    while parent:
        yield parent + _BELOW
        parent = parent.rpartition("/")[0]
    yield _ALL
