"""Answers to writes that callers named with a key, so that a repeated request finds the first one's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from catena.store import schema

_answers = schema.idempotent_answers


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswer:
    """A request under a caller's key; ``nonce`` and ``answer`` (ciphertext) once it was decided."""

    token_hash: str
    key: str
    request_sha256: str
    began_at: datetime
    expires_at: datetime
    nonce: bytes | None = None
    answer: bytes | None = None


class KeptAnswers:
    """The kept answers of one transaction, by token and key."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, token_hash: str, key: str) -> KeptAnswer | None:
        """What is kept under this key."""
        query = select(_answers).where(_answers.c.token_hash == token_hash, _answers.c.key == key)
        row = self._connection.execute(query).mappings().first()
        return None if row is None else KeptAnswer(**row)

    def begin(self, kept: KeptAnswer) -> None:
        """Take the key. Raises ``Conflict`` (on leaving the transaction at the latest) if it is taken."""
        values = {name: getattr(kept, name) for name in KeptAnswer.__dataclass_fields__}
        self._connection.execute(insert(_answers), values)

    def finish(self, begun: KeptAnswer, nonce: bytes, answer: bytes) -> None:
        """Keep the answer of a request that has begun."""
        self._connection.execute(
            update(_answers).where(*_still_begun(begun)).values(nonce=nonce, answer=answer)
        )

    def release(self, begun: KeptAnswer) -> None:
        """Give the key of a request back that changed nothing."""
        self._connection.execute(delete(_answers).where(*_still_begun(begun)))

    def expire(self, now: datetime) -> None:
        """Forget what nobody may ask for any more."""
        self._connection.execute(delete(_answers).where(_answers.c.expires_at <= now))


def _still_begun(begun: KeptAnswer) -> tuple[ColumnElement[bool], ...]:
    return (
        _answers.c.token_hash == begun.token_hash,
        _answers.c.key == begun.key,
        _answers.c.began_at == begun.began_at,
        _answers.c.answer.is_(None),
    )
