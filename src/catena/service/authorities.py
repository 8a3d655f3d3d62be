"""The cluster CA through its rotations: who issues now, and whom everybody should believe.

::

    rotate                issues_from                    trusted_until of the old
      │  both are in the     │  both are in the bundle,      │
      │  bundle, the old     │  the new issues, the old      │  the new alone
      │  issues              │  still vouches for the server │
    ──┴──────────────────────┴───────────────────────────────┴──────────────▶

Until the first rotation there is the *founding* authority of server.toml alone. From then on the database says
which there are, so all replicas change together: each looks again after ``FRESH``, and no rotation
begins to issue sooner than they all have seen it. The server's own certificate stays with the oldest authority that
is believed, so a client that knows only that one connects until its end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from catena.audit.entries import KeyChanged
from catena.errors import NotFound, UsageError
from catena.keys.signer import PublicKey, Signer, UnusableKey, algorithm_of, key_id_of
from catena.service.journal import Journal
from catena.service.pseudonyms import SERVER
from catena.store.authorities import Authority
from catena.store.database import Database
from catena.store.errors import Conflict

FRESH = timedelta(seconds=10)
"""For how long a replica believes what it has read."""
SOONEST = timedelta(minutes=1)
"""The shortest time in which every replica has seen a rotation."""
KEY = "cluster-ca"
"""What the log calls these keys."""


class RotationTooFast(UsageError):
    """A rotation in which somebody would be left behind."""

    code = "rotation-too-fast"
    remedy = "Give --switch-after a minute or more, and --drop-after more than certificates live."


class RotationUnderWay(UsageError):
    """A rotation while the last one is not finished."""

    code = "rotation-under-way"
    remedy = "Wait until the old CA is dropped; `catena server authorities` says when."


class UnknownAuthority(NotFound):
    """A CA that this cluster does not believe, or no longer."""

    code = "unknown-authority"
    remedy = "Name one of /v1/bundle, by the SHA-256 of its SubjectPublicKeyInfo in hex."


@dataclass(frozen=True, slots=True)
class Issuing:
    """A key and its certificate, which belong together."""

    signer: Signer
    certificate: x509.Certificate


@dataclass(frozen=True, slots=True)
class _Known:
    """What was read last."""

    rows: tuple[Authority, ...]
    at: datetime


class Authorities:
    """Who issues and who is believed. Safe to share between threads."""

    def __init__(
        self, founding: Callable[[], Issuing], database: Database, open_key: Callable[[str], Signer]
    ) -> None:
        self._founding = founding
        self._database = database
        self._open_key = open_key
        self._lock = threading.Lock()  # guards what follows
        self._known: _Known | None = None
        self._seen: frozenset[str] | None = None
        """Who was believed at the last look."""
        self._issuing: dict[str, Issuing] = {}
        self._changed: Callable[[], None] | None = None
        self._told: tuple[tuple[str, ...], str] | None = None  # every attestation tells it

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` when others are believed than at the last look, or the log lacks an end."""
        self._changed = changed

    def issuing(self, now: datetime) -> Issuing:
        """The authority that issues now. Raises what opening its key raises."""
        begun = [one for one in self._rows(now) if one.issues_from <= now]
        return self._open(begun[-1]) if begun else self._first()

    def named(self, sha256: str, now: datetime) -> Issuing:
        """The believed authority with this key. Raises ``UnknownAuthority``, what opening its key raises."""
        rows = believed_of(self._rows(now), now)
        for one in rows:
            if one.sha256 == sha256:
                return self._open(one)
        if not rows and self._first().signer.key_id == sha256:
            return self._first()
        raise UnknownAuthority("no CA that is believed has this key", got=ascii(sha256[:64]))

    def presenting(self, now: datetime) -> Issuing:
        """The authority that vouches for the server: the oldest that is believed."""
        believed = believed_of(self._rows(now), now)
        return self._open(believed[0]) if believed else self._first()

    def believed(self, now: datetime) -> tuple[x509.Certificate, ...]:
        """The trust bundle: whose certificates count, the oldest first."""
        believed = believed_of(self._rows(now), now)
        if not believed:
            return (self._first().certificate,)
        return tuple(x509.load_der_x509_certificate(one.certificate) for one in believed)

    def sequence(self, now: datetime) -> int:
        """How often the bundle has changed, and one: it only grows (SPIFFE bundles, 4.1.1)."""
        rows = self._rows(now)
        dropped = sum(not _counts(one, now) for one in rows)
        return max(len(rows), 1) + dropped

    def news(self, now: datetime) -> str | None:
        """The bundle in PEM for nodes; None if it never was another than the one they began with."""
        rows = self._rows(now)
        if not rows:
            return None
        believed = tuple(one.sha256 for one in believed_of(rows, now))
        told = self._told
        if told is None or told[0] != believed:  # two threads may make the same one
            told = self._told = (believed, bundle_pem(self.believed(now)))
        return told[1]

    def schedule(self, now: datetime) -> tuple[Authority, ...]:
        """Every authority there ever was; none if there was no rotation."""
        return self._rows(now)

    def forget(self) -> None:
        """Read again before the next answer."""
        with self._lock:
            self._known = None

    def founding(self, key: str, at: datetime) -> Authority:
        """The founding authority as a row, for the first rotation."""
        certificate = self._first().certificate
        return row_of(certificate, key, at, issues_from=certificate.not_valid_before_utc)

    def _first(self) -> Issuing:
        with self._lock:
            if "" not in self._issuing:
                self._issuing[""] = self._founding()
            return self._issuing[""]

    def _open(self, row: Authority) -> Issuing:
        with self._lock:
            found = self._issuing.get(row.sha256)
            if found is None:
                certificate = x509.load_der_x509_certificate(row.certificate)
                found = pair(self._open_key(row.key), certificate)
                self._issuing[row.sha256] = found
            return found

    def _rows(self, now: datetime) -> tuple[Authority, ...]:
        with self._lock:
            known = self._known
            if known is not None and known.at <= now < known.at + FRESH:
                return known.rows
        with self._database.snapshot() as rows:
            found = rows.authorities.list()
        seen = frozenset(one.sha256 for one in believed_of(found, now))
        with self._lock:
            self._known = _Known(found, now)
            changed, self._seen = self._seen not in {None, seen}, seen
        if (changed or _untold(found, now)) and self._changed is not None:
            self._changed()
        return found


class Rotation:
    """The verbs *rotate* and *tell*."""

    def __init__(self, authorities: Authorities, journal: Journal, database: Database) -> None:
        self._authorities = authorities
        self._journal = journal
        self._database = database

    def rotate(
        self,
        new: Authority,
        founding_key: str,
        *,
        drop_after: timedelta,
        certificate_lifetime: timedelta,
        now: datetime,
        actor: str,
    ) -> tuple[Authority, ...]:
        """Announce ``new``; the present authority ends ``drop_after`` the new one begins to issue.

        Raises ``RotationTooFast``, ``RotationUnderWay``, and ``Conflict`` for a key that was used before.
        """
        if new.issues_from < now + SOONEST or drop_after <= certificate_lifetime:
            raise RotationTooFast("the rotation would leave somebody behind")
        with self._journal.deciding("authorities"):
            self._authorities.forget()
            rows = self._authorities.schedule(now)
            if len(believed_of(rows, now)) > 1:
                raise RotationUnderWay("the last rotation is not finished")
            if any(one.sha256 == new.sha256 for one in rows):
                raise Conflict("this key was an authority before")
            old = (
                believed_of(rows, now)[0] if rows else self._authorities.founding(founding_key, now)
            )
            self._journal.record(
                KeyChanged(at=now, actor=actor, action="added", key=KEY, key_sha256=new.sha256)
            )
            with self._journal.effect() as change:
                if not rows:
                    change.authorities.insert(old)
                change.authorities.insert(new)
                change.authorities.end(old.sha256, new.issues_from + drop_after)
            self._authorities.forget()
        return self._authorities.schedule(now)

    def tell(self, now: datetime) -> None:
        """Tell the log which authorities have ended since. Raises ``LogUnwritable``."""
        if not _untold(self._authorities.schedule(now), now):
            return
        with self._journal.deciding("authorities"):
            with self._database.snapshot() as rows:
                ended = _untold(rows.authorities.list(), now)
            if ended:
                self._journal.record(
                    *(
                        KeyChanged(
                            at=now, actor=SERVER, action="removed", key=KEY, key_sha256=one.sha256
                        )
                        for one in ended
                    )
                )
                with self._journal.effect() as change:
                    for one in ended:
                        change.authorities.drop(one.sha256, now)
        self._authorities.forget()


def row_of(
    certificate: x509.Certificate, key: str, added_at: datetime, *, issues_from: datetime
) -> Authority:
    """An authority as the database keeps it."""
    return Authority(
        sha256=key_id_of_certificate(certificate),
        certificate=certificate.public_bytes(Encoding.DER),
        key=key,
        added_at=added_at,
        issues_from=issues_from,
    )


def pair(signer: Signer, certificate: x509.Certificate) -> Issuing:
    """A key and its certificate. Raises ``UnusableKey`` if they are of two pairs."""
    if key_id_of_certificate(certificate) != signer.key_id:
        raise UnusableKey("the CA's key and certificate do not belong together")
    return Issuing(signer, certificate)


def bundle_pem(certificates: Sequence[x509.Certificate]) -> str:
    """Certificates one after the other."""
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in certificates)


def key_id_of_certificate(certificate: x509.Certificate) -> str:
    """What an authority is named by: SHA-256 of its SubjectPublicKeyInfo. Raises ``UnusableKey``."""
    return key_id_of(_public(certificate))


def _public(certificate: x509.Certificate) -> PublicKey:
    """Its key. Raises ``UnusableKey`` for a kind that catena does not use."""
    key = certificate.public_key()
    algorithm_of(key)
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        raise UnusableKey("a CA of another kind", got=type(key).__name__)
    return key


def _untold(rows: Sequence[Authority], now: datetime) -> tuple[Authority, ...]:
    return tuple(one for one in rows if not _counts(one, now) and one.dropped_at is None)


def _counts(row: Authority, now: datetime) -> bool:
    return row.trusted_until is None or now < row.trusted_until


def believed_of(rows: Sequence[Authority], now: datetime) -> tuple[Authority, ...]:
    """Those that count still."""
    return tuple(one for one in rows if _counts(one, now))
