"""Endorsements: who may vouch for a TPM, accepted into the service with its provenance.

Roots, intermediates and revocation lists are imported by a person, logged before they count, and
sealed with the log key together with where they came from, so that no row of the database
counts because it is there. The files that ``ek_roots`` of server.toml names are accepted as well:
they are how a first server starts, and only the server's administrator changes them.

A change asks for the nodes below the authority to be judged again, in the transaction that makes it
effective (``rejudging``).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import msgspec

from catena.appraise.authority import Offered, check_signed, check_useful, read_offered
from catena.appraise.certificate import Certificate
from catena.appraise.endorsement import (
    EndorsementKind,
    TrustRoot,
    TrustRoots,
    authority_digest,
)
from catena.appraise.endorsement_refusal import EndorsementRefusal
from catena.appraise.revocation import RevocationList, has_issued
from catena.audit.entries import EndorsementChanged
from catena.errors import CatenaError, FormatError, NotFound, Refusal, Unavailable, UsageError
from catena.formats.dsse import Statement, Subject
from catena.formats.endorsements import ENDORSEMENT_TYPE, EndorsementDocument, pem
from catena.formats.references import parse_predicate
from catena.ids import Sha256Hex
from catena.keys.envelope import open_envelope
from catena.service import pages
from catena.service.nodes import rfc3339
from catena.service.pages import EndorsementKey, Page, PageRequest, page_of
from catena.service.references import REFRESH
from catena.service.setting import Setting
from catena.service.views import (
    EndorsementDetail,
    EndorsementImport,
    EndorsementItem,
    EndorsementRequest,
    EndorsementView,
    RefusedEndorsement,
)
from catena.store.endorsements import StoredEndorsement
from catena.store.errors import Conflict

SETTINGS = "server.toml"
MIN_PREFIX = 4


class NoSuchEndorsement(NotFound):
    """A root, intermediate or revocation list that is not accepted."""

    code = "no-such-endorsement"
    remedy = "`catena endorsement list` shows all that are accepted."


class AmbiguousEndorsement(Conflict):
    """Several accepted certificates or lists have this name."""

    code = "ambiguous-endorsement"
    remedy = "Give the first digits of its SHA-256, as `catena endorsement list` shows them."


class FixedEndorsement(UsageError):
    """A root that server.toml names cannot be withdrawn through the server."""

    code = "fixed-endorsement"
    remedy = "Take it out of `ek_roots` in server.toml and start the server again."


class OlderRevocationList(EndorsementRefusal):
    """A revocation list from before the one in force."""

    code = "crl-older"
    remedy = "Download the vendor's current CRL."


class TamperedEndorsement(Unavailable):
    """A stored endorsement that the log key did not seal: nobody is enrolled by such a set."""

    code = "tampered-endorsement"
    remedy = "Somebody changed the database: restore it, or withdraw and import again."


@dataclass(frozen=True, slots=True)
class _Accepted:
    """One accepted certificate or list; ``row`` is None for what server.toml names."""

    offered: Offered
    document: EndorsementDocument
    sha256: Sha256Hex
    row: StoredEndorsement | None = None


class Endorsements:
    """The verbs *import*, *list*, *show* and *withdraw*, and what may vouch for a TPM now."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._fixed = tuple(_fixed(setting.roots))
        self._lock = threading.Lock()  # guards the three below
        self._ready: tuple[_Accepted, ...] | None = None
        self._loaded: datetime | None = None
        self._marks: frozenset[tuple[Sha256Hex, datetime]] = frozenset()

    def roots(self) -> TrustRoots:
        """Everything that may vouch for a TPM. Raises ``TamperedEndorsement``.

        Another replica's change is noticed within ``references.REFRESH``.
        """
        return self._as_roots(self._accepted())

    def roots_now(self) -> TrustRoots:
        """As ``roots``, with every change that was effective before the call."""
        with self._setting.database.snapshot() as rows:
            marks = rows.endorsements.marks()
        with self._lock:
            if marks != self._marks:
                self._marks, self._loaded = marks, None
        return self.roots()

    def _as_roots(self, accepted: Sequence[_Accepted]) -> TrustRoots:
        return TrustRoots(
            roots=tuple(
                TrustRoot(
                    one.offered.subject, EndorsementKind(one.document.vouches), one.document.content
                )
                for one in accepted
                if one.document.vouches
            ),
            intermediates=tuple(
                one.document.content for one in accepted if one.document.type == "intermediate"
            ),
            revoked=tuple(one.offered.list for one in accepted if one.offered.list is not None),
            pinned=self._setting.roots.pinned,
        )

    def accept(self, request: EndorsementRequest, actor: str) -> EndorsementImport:
        """Import certificates and lists: each that is of use, and why not the others.

        A newer list of an issuer takes the place of the older one. Raises ``LogUnwritable``.
        """
        with self._setting.journal.deciding("endorsements"):
            before = self._read()
            known = {one.sha256: one for one in before}
            new: dict[Sha256Hex, _Accepted] = {}
            again: dict[Sha256Hex, _Accepted] = {}
            refused: list[RefusedEndorsement] = []
            for item, offered in _offered(request.items, refused):
                content = _content(item, offered)
                sha256 = _digest(content)
                if sha256 in known:
                    again[sha256] = known[sha256]
                    continue
                try:
                    _check(offered, (*before, *new.values()))
                except CatenaError as error:
                    refused.append(_refused(item, error))
                    continue
                document = _document(request, item.file, offered, content)
                new[sha256] = _Accepted(offered, document, sha256)
            fresh = tuple(new.values())
            superseded = [one for one in before if _is_superseded(one, fresh, (*before, *fresh))]
            stored = self._keep(fresh, superseded, actor)
        return EndorsementImport(
            accepted=tuple(self._view(one) for one in stored),
            known=tuple(self._view(one) for one in again.values()),
            refused=tuple(refused),
        )

    def page(self, request: PageRequest) -> Page[EndorsementView]:
        """Some of what is accepted: what server.toml names first, then by the time of acceptance.

        Raises ``BadCursor`` and ``TamperedEndorsement``.
        """
        key = pages.decode(request.cursor, EndorsementKey) or EndorsementKey()
        after = None if key.at is None else (key.at, key.name, key.sha256)
        fixed = {one.sha256 for one in self._fixed}
        with self._setting.database.snapshot() as rows:
            stored = rows.endorsements.page(after, request.limit + 1, without=fixed)
        found: list[tuple[EndorsementKey, _Accepted | StoredEndorsement]] = [
            *(
                (EndorsementKey(number), one)
                for number, one in enumerate(self._fixed, 1)
                if after is None and number > key.fixed
            ),
            *((EndorsementKey(0, row.accepted_at, row.name, row.sha256), row) for row in stored),
        ]
        page = page_of(found, request.limit, lambda one: one[0])
        views = (
            self._view(self._open(one) if isinstance(one, StoredEndorsement) else one)
            for _, one in page.items
        )
        return Page(tuple(views), page.cursor)

    def show(self, name: str) -> EndorsementDetail:
        """One by its name or the first digits of its SHA-256.

        Raises ``NoSuchEndorsement`` or ``AmbiguousEndorsement``.
        """
        found = _find(self._read(), name)
        content = found.document.content
        authority, _ = _authority(found.offered)
        with self._setting.database.snapshot() as rows:
            nodes = rows.ek_certificates.count_under(authority)
        return EndorsementDetail(
            endorsement=self._view(found), pem=pem(content, found.document.type), nodes=nodes
        )

    def withdraw(self, name: str, actor: str) -> EndorsementView:
        """Let one no longer count. Raises as ``show``, or ``FixedEndorsement``."""
        with self._setting.journal.deciding("endorsements"):
            found = _find(self._read(), name)
            if found.row is None:
                raise FixedEndorsement("server.toml names this root", got=found.document.name)
            view = self._view(found)
            self._keep((), (found,), actor)
        return view

    def _keep(
        self, new: Sequence[_Accepted], withdrawn: Sequence[_Accepted], actor: str
    ) -> tuple[_Accepted, ...]:
        """Log, then act."""
        now, journal = self._setting.now(), self._setting.journal
        if not new and not withdrawn:
            return ()
        changes = [(one, True) for one in new] + [(one, False) for one in withdrawn]
        journal.record(*(_entry(one, now, actor, active=active) for one, active in changes))
        rows_of = [self._row(one, now, actor) for one in new]
        with journal.effect() as rows:
            for row in rows_of:
                rows.endorsements.put(row)
            for one in withdrawn:
                rows.endorsements.withdraw(one.sha256)
            for name, title in sorted({_authority(one.offered) for one, _ in changes}):
                rows.rejudgements.ask(name, title, now)
        with self._lock:
            self._loaded = None
        return tuple(replace(one, row=row) for one, row in zip(new, rows_of, strict=True))

    def _row(self, one: _Accepted, now: datetime, actor: str) -> StoredEndorsement:
        statement = Statement(
            subject=(Subject(name=one.document.name, digest={"sha256": one.sha256}),),
            predicate_type=ENDORSEMENT_TYPE,
            predicate=msgspec.Raw(msgspec.json.encode(one.document)),
        )
        return StoredEndorsement(
            sha256=one.sha256,
            type=one.document.type,
            name=one.document.name,
            document=self._setting.journal.seal(statement),
            accepted_at=now,
            actor=actor,
        )

    def _accepted(self) -> tuple[_Accepted, ...]:
        """As ``_read``, from memory while that is fresh."""
        now = self._setting.now()
        with self._lock:
            loaded = self._loaded
            if self._ready is None or loaded is None or not loaded <= now < loaded + REFRESH:
                self._ready, self._loaded = self._read(), now
            return self._ready

    def _read(self) -> tuple[_Accepted, ...]:
        with self._setting.database.snapshot() as rows:
            stored = rows.endorsements.list()
        fixed = {one.sha256 for one in self._fixed}
        return (*self._fixed, *(self._open(row) for row in stored if row.sha256 not in fixed))

    def _open(self, row: StoredEndorsement) -> _Accepted:
        """Verify a stored document again."""
        try:
            statement = open_envelope(row.document, self._setting.sealing_keys)
            if statement.predicate_type != ENDORSEMENT_TYPE:
                raise TamperedEndorsement("a stored endorsement is another document")
            document = parse_predicate(statement.predicate, EndorsementDocument)
            offered = read_offered(document.content)
        except (Refusal, FormatError) as error:
            raise TamperedEndorsement(
                "a stored endorsement does not verify", got=error.code
            ) from error
        sha256 = _digest(document.content)
        if (sha256, offered.type) != (row.sha256, document.type):
            raise TamperedEndorsement("a stored endorsement is kept under another digest or type")
        return _Accepted(offered, document, sha256, row)

    def _view(self, one: _Accepted) -> EndorsementView:
        offered, document, row = one.offered, one.document, one.row
        return EndorsementView(
            name=document.name,
            type=document.type,
            vouches=document.vouches or None,
            sha256=one.sha256,
            subject=offered.subject,
            issuer=offered.issuer,
            not_before=rfc3339(offered.not_before),
            not_after=rfc3339(offered.not_after),
            state=_state(offered, self._setting.now()),
            tolerances=offered.tolerances,
            revoked=offered.revoked,
            file=document.file,
            source=document.source,
            accepted_at=None if row is None else rfc3339(row.accepted_at),
            accepted_by=None if row is None else row.actor,
        )


def _fixed(roots: TrustRoots) -> Iterator[_Accepted]:
    """What server.toml names; an intermediate may be accepted as a root there."""
    for root in roots.roots:
        offered = read_offered(root.certificate)
        document = EndorsementDocument(
            type="root",
            vouches=root.kind.value,  # type: ignore[arg-type] # never `pinned`: that is no root
            name=offered.name,
            source=SETTINGS,
            content=root.certificate,
        )
        yield _Accepted(offered, document, _digest(root.certificate))


def _authority(offered: Offered) -> tuple[str, str]:
    """Whose change this is, by digest and for people: the authority itself, or the issuer of a list."""
    found, listed = offered.certificate, offered.list
    name = listed.issuer if listed is not None else found.subject if found is not None else b""
    return authority_digest(name), offered.subject if listed is None else offered.issuer


def _offered(
    items: Sequence[EndorsementItem], refused: list[RefusedEndorsement]
) -> Iterator[tuple[EndorsementItem, Offered]]:
    """What can be read: certificates, then lists, for a list needs its issuer, the newest first."""
    lists = []
    for item in items:
        try:
            offered = read_offered(item.content)
        except (Refusal, FormatError) as error:
            refused.append(_refused(item, error))
            continue
        if offered.type == "crl":
            lists.append((item, offered))
        else:
            yield item, offered
    yield from sorted(lists, key=lambda pair: pair[1].not_before, reverse=True)


def _check(offered: Offered, accepted: Sequence[_Accepted]) -> None:
    if offered.certificate is not None:
        check_useful(offered.certificate)
    if offered.list is not None:
        check_signed(offered.list, _certificates(accepted))
        newer = (
            one.offered.list.this_update
            for one in accepted
            if one.offered.list is not None and _is_of_one_key(offered.list, one, accepted)
        )
        newest = max(newer, default=None)
        if newest is not None and offered.list.this_update <= newest:
            raise OlderRevocationList(
                "a newer revocation list of this issuer is in force",
                expected=f"after {rfc3339(newest)}",
                got=rfc3339(offered.list.this_update),
            )


def _is_superseded(old: _Accepted, new: Sequence[_Accepted], accepted: Sequence[_Accepted]) -> bool:
    """Whether a newer list of the same issuer's key is among the new ones."""
    return any(
        one.offered.list is not None and _is_of_one_key(one.offered.list, old, accepted)
        for one in new
    )


def _is_of_one_key(found: RevocationList, other: _Accepted, accepted: Sequence[_Accepted]) -> bool:
    """Whether one known certificate's key signed both lists: an issuer may have changed its key."""
    second = other.offered.list
    return second is not None and any(
        has_issued(one, found) and has_issued(one, second) for one in _certificates(accepted)
    )


def _certificates(accepted: Sequence[_Accepted]) -> Iterator[Certificate]:
    return (one.offered.certificate for one in accepted if one.offered.certificate is not None)


def _find(accepted: Sequence[_Accepted], name: str) -> _Accepted:
    found = [one for one in accepted if one.document.name == name]
    if not found and len(name) >= MIN_PREFIX:
        found = [one for one in accepted if one.sha256.startswith(name.lower())]
    if not found:
        raise NoSuchEndorsement("no accepted certificate or list is called so", got=name[:80])
    if len(found) > 1:
        raise AmbiguousEndorsement(
            "several accepted certificates or lists are called so",
            got=", ".join(one.sha256[:16] for one in found[:4]),
        )
    return found[0]


def _content(item: EndorsementItem, offered: Offered) -> bytes:
    """What is kept: a certificate without the padding that TPM memory left behind it."""
    return item.content if offered.certificate is None else offered.certificate.der


def _document(
    request: EndorsementRequest, file: str, offered: Offered, content: bytes
) -> EndorsementDocument:
    return EndorsementDocument(
        type=offered.type,
        vouches=request.vouches if offered.type == "root" else "",
        name=offered.name,
        file=file,
        source=request.source,
        content=content,
    )


def _entry(one: _Accepted, at: datetime, actor: str, *, active: bool) -> EndorsementChanged:
    return EndorsementChanged(
        at=at,
        actor=actor,
        name=one.document.name,
        type=one.document.type,
        vouches=one.document.vouches,
        document_sha256=one.sha256,
        source=one.document.source,
        active=active,
    )


def _refused(item: EndorsementItem, error: CatenaError) -> RefusedEndorsement:
    return RefusedEndorsement(
        file=item.file, code=error.code, message=str(error), remedy=error.remedy
    )


def _state(offered: Offered, now: datetime) -> Literal["valid", "not-yet-valid", "expired"]:
    if now < offered.not_before:
        return "not-yet-valid"
    return "expired" if now > offered.not_after else "valid"


def _digest(content: bytes) -> Sha256Hex:
    return Sha256Hex(hashlib.sha256(content).hexdigest())
