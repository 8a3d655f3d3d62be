"""The policy in force: signed by the release key, versioned, logged before it counts.

A fresh server judges by the policy that catena ships, ``default`` version 0. Whatever replaces it
has a higher version than what it replaces, so that an old policy, once signed, never comes back.
Like a reference, a stored policy is verified each time it is loaded.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from datetime import datetime

from catena.appraise.clause import PolicyError
from catena.appraise.policy import Policy, compile_policy, default_policy_text
from catena.audit.entries import PolicyAccepted
from catena.errors import FormatError, Refusal, Unavailable
from catena.formats.policies import PolicyDocument
from catena.ids import Sha256Hex
from catena.keys.documents import open_document
from catena.keys.signer import PublicKey
from catena.service.nodes import rfc3339
from catena.service.references import REFRESH
from catena.service.setting import Setting
from catena.service.views import PolicyHistory, PolicyView
from catena.store.policies import StoredPolicy

DEFAULT_NAME = "default"


class PolicyRollback(PolicyError):
    """A policy whose version is not above that of the policy in force."""

    code = "policy-rollback"
    remedy = "Sign the policy with a higher version: `catena policy show` tells the present one."


class PolicyMoved(PolicyError):
    """A policy that was meant to replace another one than is in force."""

    code = "policy-moved"
    remedy = "Look at the policy in force, and sign yours to replace that one."


class TamperedPolicy(Unavailable):
    """A stored policy that no release key signed: nothing is judged by it."""

    code = "tampered-policy"
    remedy = "Somebody changed the database, or a release key was removed from server.toml."


@dataclass(frozen=True, slots=True)
class AppliedPolicy:
    """A policy ready to judge by. ``row`` is what the database keeps of it, None for the shipped one."""

    name: str
    version: int
    text: str
    policy: Policy
    row: StoredPolicy | None = None


class Policies:
    """The verbs *apply* and *show*, and the policy for appraisal."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._lock = threading.Lock()  # guards the two below
        self._ready: AppliedPolicy | None = None
        self._loaded: datetime | None = None

    def current(self) -> AppliedPolicy:
        """The policy in force: the same object while nothing changed.

        Another replica's change is noticed within ``references.REFRESH``. Raises
        ``TamperedPolicy``.
        """
        now = self._setting.now()
        with self._lock:
            known, loaded = self._ready, self._loaded
            if known is None or loaded is None or not loaded <= now < loaded + REFRESH:
                with self._setting.database.snapshot() as rows:
                    newest = rows.policies.newest()
                version = 0 if newest is None else newest.version
                if known is not None and version < known.version:
                    raise TamperedPolicy(
                        "the policy in force is gone", expected=f"version {known.version}"
                    )
                if known is None or newest != known.row:
                    known = self._shipped() if newest is None else self._open(newest)
                self._ready, self._loaded = known, now
            return known

    def apply(self, envelope: bytes, actor: str) -> PolicyView:
        """Put a signed policy in force.

        Raises ``FormatError``, the refusals of ``keys.envelope``, a ``PolicyError`` for a policy
        that must not be used, ``PolicyRollback`` or ``PolicyMoved``; ``Conflict`` if another
        replica put a policy in force meanwhile, and then this one is logged without effect.
        """
        setting, now = self._setting, self._setting.now()
        document = open_document(envelope, setting.release_keys, PolicyDocument)
        policy = compile_policy(document.text)
        with setting.journal.deciding("policy"):
            with setting.database.snapshot() as rows:
                newest = rows.policies.newest()
            before = self._shipped() if newest is None else self._open(newest)
            _check_order(document, before)
            setting.journal.record(
                PolicyAccepted(
                    at=now,
                    actor=actor,
                    name=document.name,
                    version=document.version,
                    policy_sha256=policy.digest,
                    document_sha256=hashlib.sha256(envelope).hexdigest(),
                )
            )
            with setting.journal.effect() as rows:
                row = rows.policies.put(
                    name=document.name,
                    version=document.version,
                    document=envelope,
                    at=now,
                    actor=actor,
                )
        with self._lock:
            self._loaded = None
        return _view(AppliedPolicy(document.name, document.version, document.text, policy, row))

    def show(self) -> PolicyHistory:
        """The policy in force and all before it, newest first."""
        with self._setting.database.snapshot() as rows:
            stored = rows.policies.list()
        applied = [self._open(row) for row in stored]
        views = tuple(_view(one) for one in (*applied, self._shipped()))
        return PolicyHistory(current=views[0], history=views[1:])

    def _shipped(self) -> AppliedPolicy:
        policy = self._setting.policy
        return AppliedPolicy(DEFAULT_NAME, 0, default_policy_text(), policy)

    def _open(self, row: StoredPolicy) -> AppliedPolicy:
        return stored_policy(row, self._setting.release_keys)


def stored_policy(row: StoredPolicy, release_keys: tuple[PublicKey, ...]) -> AppliedPolicy:
    """Verify and compile a stored policy. Raises ``TamperedPolicy``, or ``PolicyError``."""
    try:
        document = open_document(row.document, release_keys, PolicyDocument)
    except (Refusal, FormatError) as error:
        raise TamperedPolicy("a stored policy does not verify", got=error.code) from error
    if (document.name, document.version) != (row.name, row.version):
        raise TamperedPolicy("a stored policy is kept under another version")
    policy = compile_policy(document.text)
    return AppliedPolicy(document.name, document.version, document.text, policy, row)


def _check_order(document: PolicyDocument, before: AppliedPolicy) -> None:
    if document.version <= before.version:
        raise PolicyRollback(
            "the policy is not newer than the one in force",
            expected=f"a version above {before.version}",
            got=str(document.version),
        )
    if document.previous not in {None, before.policy.digest}:
        raise PolicyMoved(
            "the policy replaces another one than is in force",
            expected=before.policy.digest[:16],
            got=str(document.previous)[:16],
        )


def _view(applied: AppliedPolicy) -> PolicyView:
    return PolicyView(
        name=applied.name,
        version=applied.version,
        sha256=Sha256Hex(applied.policy.digest),
        applied_at=None if applied.row is None else rfc3339(applied.row.applied_at),
        applied_by=None if applied.row is None else applied.row.actor,
        text=applied.text,
    )
