"""Rotating the cluster CA of a server's folder: a new key, its certificate, and when it takes over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.x509.oid import NameOID

from catena.formats.pkcs11uri import SCHEME
from catena.keys.authority import issue_cluster_ca
from catena.keys.signer import (
    KeyAlgorithm,
    PrivateKeySigner,
    Signer,
    UnusableKey,
    generate_key,
    write_key,
)
from catena.server.config import Config
from catena.server.folder import OpenServer, read_passphrase
from catena.server.signers import open_signer
from catena.service.authorities import Rotation, row_of
from catena.service.nodes import rfc3339
from catena.service.pseudonyms import SERVER
from catena.store.authorities import Authority


class AuthorityView(msgspec.Struct, frozen=True, kw_only=True):
    """One authority of the cluster; times are RFC 3339 in UTC."""

    sha256: str
    """Of its SubjectPublicKeyInfo, as the log names it."""
    subject: str
    key: str
    issues_from: str
    trusted_until: str | None
    state: str
    """``announced``, ``issuing``, ``believed`` or ``dropped``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """When the new authority takes over, and how long the old one is believed after that."""

    switch_after: timedelta
    drop_after: timedelta
    key: str | None = None
    """A key that is there already, a file or ``pkcs11:…``; none: a new file in the folder."""


def rotate(
    server: OpenServer, plan: Plan, now: Callable[[], datetime]
) -> tuple[AuthorityView, ...]:
    """Announce a new authority. Raises what ``Rotation.rotate`` and opening the key raise."""
    setting, at = server.service.setting, now()
    named, signer, made = _key(server.folder, server.config, plan, at)
    try:
        old = setting.authorities.issuing(at).certificate
        certificate = issue_cluster_ca(signer, organisation=_organisation(old), now=at)
        rows = Rotation(setting.authorities, setting.journal, setting.database).rotate(
            row_of(certificate, named, at, issues_from=at + plan.switch_after),
            server.config.ca_key,
            drop_after=plan.drop_after,
            certificate_lifetime=setting.certificate_lifetime,
            now=at,
            actor=SERVER,
        )
    except BaseException:
        if made is not None:
            made.unlink(missing_ok=True)
        raise
    return tuple(_view(row, rows, at) for row in rows)


def authorities(server: OpenServer, now: Callable[[], datetime]) -> tuple[AuthorityView, ...]:
    """Every authority there was, the founding one at least."""
    at, known = now(), server.service.setting.authorities
    rows = known.schedule(at) or (known.founding(server.config.ca_key, at),)
    return tuple(_view(row, rows, at) for row in rows)


def _key(folder: Path, config: Config, plan: Plan, at: datetime) -> tuple[str, Signer, Path | None]:
    """How the key is named, the key, and the file if one was made for it."""
    passphrase = None
    if config.passphrase_file is not None:
        passphrase = read_passphrase(folder / config.passphrase_file)
    if plan.key is not None:
        named = plan.key if plan.key.startswith(SCHEME) else str(Path(plan.key).resolve())
        signer = open_signer(folder, named, passphrase)
        if signer.algorithm is not KeyAlgorithm.ECDSA_P256:
            raise UnusableKey("a cluster CA has a P-256 key", got=signer.algorithm)
        return named, signer, None
    private = generate_key(KeyAlgorithm.ECDSA_P256)
    fresh = PrivateKeySigner(private)
    path = folder / f"ca-{at:%Y%m%d}-{fresh.key_id[:8]}.key"
    write_key(path, private, passphrase)
    return path.name, fresh, path


def _organisation(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(names[0].value) if names else "catena"


def _view(row: Authority, rows: tuple[Authority, ...], at: datetime) -> AuthorityView:
    begun = [one for one in rows if one.issues_from <= at]
    if row.trusted_until is not None and row.trusted_until <= at:
        state = "dropped"
    elif row.issues_from > at:
        state = "announced"
    else:
        state = "issuing" if begun and begun[-1] == row else "believed"
    return AuthorityView(
        sha256=row.sha256,
        subject=x509.load_der_x509_certificate(row.certificate).subject.rfc4514_string(),
        key=row.key,
        issues_from=rfc3339(row.issues_from),
        trusted_until=None if row.trusted_until is None else rfc3339(row.trusted_until),
        state=state,
    )
