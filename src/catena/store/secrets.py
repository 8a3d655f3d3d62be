"""Secrets, encrypted by the caller, and the record of who received which version."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    func,
    insert,
    or_,
    select,
    update,
)

from catena.ids import NodeId
from catena.store import schema

_secrets = schema.secrets
_releases = schema.releases


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """One version of a secret, as ciphertext; its repr does not show it.

    ``kek`` is the id of the key it is under, empty for the first of a server from before ids.
    """

    name: str
    version: int
    roles: tuple[str, ...]
    labels: tuple[str, ...] = ()
    kek: str = ""
    nonce: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A version of a secret that a node received, and when it last did.

    It is exposed since ``revoked_at``, when the node that held it was revoked.
    """

    node_id: NodeId
    name: str
    version: int
    at: datetime
    revoked_at: datetime | None = None


_COLUMNS = tuple(_secrets.c[name] for name in Secret.__dataclass_fields__)
_newest = (
    select(_secrets.c.name, func.max(_secrets.c.version).label("version"))
    .where(_secrets.c.removed_at.is_(None))
    .group_by(_secrets.c.name)
    .subquery()
)
_CURRENT = (
    select(*_COLUMNS)
    .join(
        _newest,
        (_newest.c.name == _secrets.c.name) & (_newest.c.version == _secrets.c.version),
    )
    .order_by(_secrets.c.name)
)
_LATEST = (
    select(*_COLUMNS)
    .where(_secrets.c.name == bindparam("name"), _secrets.c.removed_at.is_(None))
    .order_by(_secrets.c.version.desc())
    .limit(1)
)
_RELEASED_AGAIN = (
    update(_releases)
    .where(
        _releases.c.node_id == bindparam("node"),
        _releases.c.name == bindparam("secret"),
        _releases.c.version == bindparam("number"),
    )
    .values(at=bindparam("at"))
)


_HELD = (
    select(_releases)
    .join(
        _newest,
        (_newest.c.name == _releases.c.name) & (_newest.c.version == _releases.c.version),
    )
    .order_by(_releases.c.name, _releases.c.node_id)
)
"""Releases of versions that are still the newest: a later version made the others worthless."""
_EXPOSED = _HELD.where(_releases.c.revoked_at.is_not(None))
_UNMARKED = or_(_releases.c.revoked_at.is_(None), _releases.c.revoked_at < _releases.c.at)
_LOSABLE = _HELD.where(_releases.c.node_id == bindparam("node"), _UNMARKED)


class Secrets:
    """The secrets of one transaction. A version number is never used twice for a name."""

    __slots__ = ("_connection", "_current")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._current: tuple[Secret, ...] | None = None  # as of this transaction

    def next_version(self, name: str) -> int:
        """The number the next version must have; removed versions count."""
        query = select(func.max(_secrets.c.version)).where(_secrets.c.name == name)
        return int(self._connection.execute(query).scalar() or 0) + 1

    def put(self, secret: Secret) -> None:
        """Add a version. A number already used raises ``Conflict`` on leaving the transaction."""
        values = {name: getattr(secret, name) for name in Secret.__dataclass_fields__}
        self._current = None
        self._connection.execute(insert(_secrets), values)

    def list(self) -> tuple[Secret, ...]:
        """The newest version of every secret that was not removed, by name."""
        if self._current is None:
            rows = self._connection.execute(_CURRENT).mappings()
            self._current = tuple(Secret(**row) for row in rows)
        return self._current

    def page(self, after: str | None, limit: int) -> tuple[Secret, ...]:
        """As ``list``, at most ``limit`` behind the secret with this name."""
        query = _CURRENT.limit(limit)
        if after is not None:
            query = query.where(_secrets.c.name > after)
        return tuple(Secret(**row) for row in self._connection.execute(query).mappings())

    def latest(self, name: str) -> Secret | None:
        """The newest version, unless the secret was removed."""
        row = self._connection.execute(_LATEST, {"name": name}).mappings().first()
        return None if row is None else Secret(**row)

    def versions(self, name: str) -> tuple[Secret, ...]:
        """All versions that were not removed, newest first."""
        query = (
            select(*_COLUMNS)
            .where(_secrets.c.name == name, _secrets.c.removed_at.is_(None))
            .order_by(_secrets.c.version.desc())
        )
        return tuple(Secret(**row) for row in self._connection.execute(query).mappings())

    def not_under(self, kek: str, limit: int) -> tuple[Secret, ...]:
        """At most ``limit`` versions whose ciphertext is under another key."""
        query = select(*_COLUMNS).where(*_elsewhere(kek)).order_by(_secrets.c.name).limit(limit)
        return tuple(Secret(**row) for row in self._connection.execute(query).mappings())

    def count_not_under(self, kek: str) -> int:
        """How many there are."""
        query = select(func.count()).select_from(_secrets).where(*_elsewhere(kek))
        return int(self._connection.execute(query).scalar_one())

    def reencrypt(self, old: Secret, new: Secret) -> bool:
        """Exchange a version's ciphertext; False if it is not what ``old`` says any more."""
        self._current = None
        result = self._connection.execute(
            update(_secrets)
            .where(
                _secrets.c.name == old.name,
                _secrets.c.version == old.version,
                _secrets.c.nonce == old.nonce,
                _secrets.c.kek == old.kek,
                _secrets.c.removed_at.is_(None),
            )
            .values(kek=new.kek, nonce=new.nonce, ciphertext=new.ciphertext)
        )
        return result.rowcount == 1

    def remove(self, name: str, *, at: datetime, version: int | None = None) -> bool:
        """Wipe the ciphertext of one version, or of all, and keep the numbers; False if none was there."""
        self._current = None
        wiped = (
            update(_secrets)
            .where(_secrets.c.name == name, _secrets.c.removed_at.is_(None))
            .values(nonce=b"", ciphertext=b"", removed_at=at)
        )
        if version is not None:
            wiped = wiped.where(_secrets.c.version == version)
        return self._connection.execute(wiped).rowcount > 0

    def record_release(self, release: Release) -> None:
        """Remember that a node received this version."""
        again = self._connection.execute(
            _RELEASED_AGAIN,
            {
                "node": release.node_id,
                "secret": release.name,
                "number": release.version,
                "at": release.at,
            },
        )
        if again.rowcount == 0:
            values = {name: getattr(release, name) for name in Release.__dataclass_fields__}
            self._connection.execute(insert(_releases), values)

    def held_by(self, node_id: NodeId) -> tuple[Release, ...]:
        """What the node received: these need rotation when it is revoked."""
        query = (
            select(_releases)
            .where(_releases.c.node_id == node_id)
            .order_by(_releases.c.name, _releases.c.version)
        )
        return tuple(Release(**row) for row in self._connection.execute(query).mappings())

    def holders(self, name: str) -> tuple[Release, ...]:
        """Who received which version of a secret."""
        query = (
            select(_releases)
            .where(_releases.c.name == name)
            .order_by(_releases.c.version, _releases.c.node_id)
        )
        return tuple(Release(**row) for row in self._connection.execute(query).mappings())

    def losable(self, node_id: NodeId) -> tuple[Release, ...]:
        """What a revocation of this node exposes, and none before has."""
        rows = self._connection.execute(_LOSABLE, {"node": node_id}).mappings()
        return tuple(Release(**row) for row in rows)

    def expose(self, node_id: NodeId, *, at: datetime) -> None:
        """Mark all that the node holds as exposed since ``at``, unless it is so already."""
        self._connection.execute(
            update(_releases).where(_releases.c.node_id == node_id, _UNMARKED).values(revoked_at=at)
        )

    def exposed(self) -> tuple[Release, ...]:
        """Exposed releases whose version is still the newest: these need rotation."""
        return tuple(Release(**row) for row in self._connection.execute(_EXPOSED).mappings())


def _elsewhere(kek: str) -> tuple[ColumnElement[bool], ...]:
    return _secrets.c.kek != kek, _secrets.c.removed_at.is_(None)
