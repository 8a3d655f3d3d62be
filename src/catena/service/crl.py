"""The lists of revoked certificates, one of each CA that is believed: made anew when something was revoked and before it expires.

A list is signed by its issuer (RFC 5280, section 5), so while the CA is exchanged there are two. Serial numbers are random: each
list has those of both, and what the other CA issued says nothing there.

The database has the newest lists and their numbers, so every replica serves the same bytes. An entry
stays on one list that is made after its certificate expired, then goes (RFC 5280, section 3.3).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import msgspec
from cryptography.x509 import ReasonFlags

from catena.errors import Unavailable
from catena.keys.crl import RevokedCertificate, issue_crl
from catena.keys.signer import key_id_of
from catena.service.authorities import Issuing, key_id_of_certificate
from catena.service.setting import Setting
from catena.service.views import RevocationCause
from catena.store.credentials import Certificate
from catena.store.crls import StoredCrl
from catena.store.database import Transaction
from catena.store.errors import Conflict

LIFETIME: Final = timedelta(hours=1)
RENEWED_AFTER: Final = LIFETIME / 2
"""A list is made anew when half of its time is over: whoever keeps one never has an expired one."""
ATTEMPTS = 5
REASONS: Final[Mapping[RevocationCause, ReasonFlags]] = {
    "privilege-withdrawn": ReasonFlags.privilege_withdrawn,
    "key-compromise": ReasonFlags.key_compromise,
    "cessation-of-operation": ReasonFlags.cessation_of_operation,
}


class CrlMoved(Unavailable):
    """Others made lists faster than this replica could."""

    code = "crl-moved"
    remedy = "Ask again."


@dataclass(frozen=True, slots=True)
class Crl:
    """A signed list."""

    number: int
    renewed_at: datetime
    """When there will be another one at the latest."""
    der: bytes = field(repr=False)


class RevocationList:
    """The verbs *current*, the list of the authority that issues now, and *of* another one."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def current(self) -> Crl:
        """A list with everything that was revoked by now. Raises ``CrlMoved``, ``DatabaseGone``."""
        return self._of(self._setting.authorities.issuing(self._now()))

    def of(self, authority: str) -> Crl:
        """That of a believed CA, by its key's SHA-256. Raises ``UnknownAuthority`` and as ``current``."""
        return self._of(self._setting.authorities.named(authority, self._now()))

    def _of(self, ca: Issuing) -> Crl:
        stored, _ = self._stored(ca)
        if not self._is_current(stored):
            with self._setting.journal.deciding("crl"):
                stored = self._renewed(ca)
        return Crl(stored.number, (stored.this_update or self._now()) + RENEWED_AFTER, stored.der)

    def _renewed(self, ca: Issuing) -> StoredCrl:
        """The list that this replica makes, or another one did first."""
        for _ in range(ATTEMPTS):
            stored, revoked = self._stored(ca)
            if self._is_current(stored):
                return stored
            new = self._made(ca, stored, revoked)
            with self._setting.database.transaction() as rows:
                if rows.crls.replace(new):
                    told = self._told(rows, stored)
                    if told is not None:
                        rows.certificates.prune_revoked(before=told)
                    return new
        raise CrlMoved("other servers made lists of revoked certificates first")

    def _stored(self, ca: Issuing) -> tuple[StoredCrl, tuple[Certificate, ...]]:
        """The newest list, and what the next one must have; read from one state."""
        database, issuer = self._setting.database, key_id_of(ca.signer.public_key)
        with database.snapshot() as rows:
            stored = rows.crls.get(issuer)
            if stored is not None:
                if self._is_current(stored):
                    return stored, ()
                return stored, rows.certificates.revoked(since=stored.this_update)
        # Its place is there before anything is read for it: a revocation counts up in it.
        with contextlib.suppress(Conflict), database.transaction() as rows:
            rows.crls.begin(issuer)  # or another replica was faster
        return self._stored(ca)

    def _told(self, rows: Transaction, before: StoredCrl) -> datetime | None:
        """What expired before this time is on one list more of every CA that has lists."""
        lists = [
            rows.crls.get(key_id_of_certificate(one))
            for one in self._setting.authorities.believed(self._now())
        ]
        times = [
            one.this_update for one in lists if one is not None and one.issuer != before.issuer
        ]
        known = [one for one in (before.this_update, *times) if one is not None]
        return None if before.this_update is None else min(known)

    def _made(self, ca: Issuing, before: StoredCrl, revoked: tuple[Certificate, ...]) -> StoredCrl:
        number = before.number + 1
        this_update = max(self._now(), before.this_update or self._now())
        der = issue_crl(
            ca.signer,
            ca.certificate,
            map(_entry, revoked),
            number=number,
            this_update=this_update,
            next_update=this_update + LIFETIME,
        )
        return StoredCrl(
            issuer=before.issuer,
            number=number,
            changes=before.changes,
            made_of=before.changes,
            this_update=this_update,
            next_update=this_update + LIFETIME,
            der=der,
        )

    def _is_current(self, stored: StoredCrl) -> bool:
        if stored.this_update is None or stored.made_of != stored.changes:
            return False
        return self._now() < stored.this_update + RENEWED_AFTER

    def _now(self) -> datetime:
        """To the second, as a list has it."""
        return self._setting.now().replace(microsecond=0)


def _entry(certificate: Certificate) -> RevokedCertificate:
    return RevokedCertificate(
        serial=int(certificate.serial, 16),
        at=(certificate.revoked_at or certificate.issued_at).replace(microsecond=0),
        reason=REASONS[msgspec.convert(certificate.revocation_reason, RevocationCause)],
    )
