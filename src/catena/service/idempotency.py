"""Writes that a caller may repeat: the same key and request have one effect and one answer.

After the IETF draft "The Idempotency-Key HTTP Header Field" (draft-ietf-httpapi-idempotency-key-header-07, section
2). A key belongs to a token. Taking one is a row of its own, so that of two servers one decides:

==================  ============================================================================
the key is          then
==================  ============================================================================
new                 the request is decided, and its answer kept for ``KEPT``
of this request     its kept answer; without one ``StillDecided``, later ``OutcomeUnknown``
of another request  ``KeyReused``
==================  ============================================================================

A refused or failed request changed nothing and gives its key back. If the server dies while it decides, nobody
knows the outcome: the key stays taken, because repeating might do it twice. Answers may hold what only the caller
may see (a new token), so they are encrypted under a key that is derived for them.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from catena.errors import UsageError
from catena.service.setting import Setting
from catena.service.vault import UnreadableSecret
from catena.store.errors import Conflict, DatabaseGone
from catena.store.idempotency import KeptAnswer

KEPT = timedelta(hours=24)
LONGEST = timedelta(minutes=2)
"""How long a decision may take before nobody is believed to be working on it."""
_NONCE_SIZE = 12


class KeyReused(UsageError):
    """A key that this caller has given to another request."""

    code = "idempotency-key-reused"
    remedy = "Make a new key for each new request; give one again only with the same request."


class StillDecided(Conflict):
    """The same request is being decided."""

    code = "idempotency-in-progress"
    remedy = "Wait a moment and send the same request with the same key again."


class OutcomeUnknown(Conflict):
    """The server stopped while it decided this request."""

    code = "idempotency-outcome-unknown"
    remedy = "See whether the request took effect; if not, send it with a new key."


@dataclass(frozen=True, slots=True)
class Keyed:
    """A request under a key: whose, which key, and the digest of all that was asked."""

    token_hash: str
    key: str
    request_sha256: str


@dataclass(frozen=True, slots=True)
class Once:
    """An answer, and whether it is that of an earlier request."""

    answer: bytes
    repeated: bool


def digest_of(method: str, path: str, query: str, body: bytes) -> str:
    """The digest of a request; equal only for the same request."""
    heads = (method.encode(), path.encode(), query.encode(), body)
    return hashlib.sha256(b"".join(len(one).to_bytes(8, "big") + one for one in heads)).hexdigest()


class Idempotency:
    """Keeps answers. Safe to share between threads and servers."""

    def __init__(self, setting: Setting) -> None:
        self._database = setting.database
        self._now = setting.now
        self._random = setting.random
        # Not from the storage keys: those change while answers are kept.
        self._key = setting.keys.derived(b"catena/idempotent-answer/v1")

    def once(self, keyed: Keyed, decide: Callable[[], bytes]) -> Once:
        """Decide, or give the answer that was kept.

        Raises ``KeyReused``, ``StillDecided``, ``OutcomeUnknown``, and what ``decide`` raises.
        """
        found = self._take(keyed)
        if isinstance(found, Once):
            return found
        try:
            answer = decide()
        except BaseException:
            with contextlib.suppress(DatabaseGone), self._database.transaction() as rows:
                rows.kept_answers.release(found)
            raise
        self._keep(found, answer)
        return Once(answer, repeated=False)

    def _take(self, keyed: Keyed) -> KeptAnswer | Once:
        now = self._now()
        begun = KeptAnswer(
            token_hash=keyed.token_hash,
            key=keyed.key,
            request_sha256=keyed.request_sha256,
            began_at=now,
            expires_at=now + KEPT,
        )
        try:
            with self._database.transaction() as rows:
                rows.kept_answers.expire(now)
                known = rows.kept_answers.get(keyed.token_hash, keyed.key)
                if known is None:
                    rows.kept_answers.begin(begun)
        except Conflict as error:  # another server took it in between
            raise StillDecided("this request is being decided") from error
        return begun if known is None else self._known(keyed, known)

    def _known(self, keyed: Keyed, known: KeptAnswer) -> Once:
        if known.request_sha256 != keyed.request_sha256:
            raise KeyReused("this key was given with another request")
        if known.nonce is not None and known.answer is not None:
            return Once(self._opened(known, known.nonce, known.answer), repeated=True)
        if self._now() - known.began_at > LONGEST:
            raise OutcomeUnknown("nobody knows whether this request took effect")
        raise StillDecided("this request is being decided")

    def _keep(self, begun: KeptAnswer, answer: bytes) -> None:
        """Keep the answer. It took effect, so it is given even if it cannot be kept."""
        nonce = self._random(_NONCE_SIZE)
        sealed = AESGCM(self._key).encrypt(nonce, answer, _context(begun))
        with contextlib.suppress(DatabaseGone), self._database.transaction() as rows:
            rows.kept_answers.finish(begun, nonce, sealed)

    def _opened(self, known: KeptAnswer, nonce: bytes, answer: bytes) -> bytes:
        try:
            return AESGCM(self._key).decrypt(nonce, answer, _context(known))
        except (InvalidTag, ValueError) as error:
            raise UnreadableSecret("a kept answer does not decrypt") from error


def _context(kept: KeptAnswer) -> bytes:
    """What binds a ciphertext to its row: one that was moved does not decrypt."""
    return f"{kept.token_hash}\n{kept.key}\n{kept.request_sha256}".encode()
