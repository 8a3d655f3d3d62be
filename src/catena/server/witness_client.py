"""Asking one witness for its cosignature (C2SP tlog-witness, the log's side).

Nothing of an answer is believed: its size is bounded, the time it takes too, a size in it only
chooses the next proof, and a cosignature counts once it holds under the witness's key.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import httpx

from catena.audit import cosigned
from catena.audit.cosigned import WitnessAddress
from catena.errors import CatenaError, FormatError, LogInconsistent, Unavailable
from catena.formats import addcheckpoint, note
from catena.formats.addcheckpoint import MAX_REQUEST, SIZE_TYPE, AddCheckpoint
from catena.formats.note import Checkpoint, Note, NoteSignature

TIMEOUT = 5.0
"""Seconds for each step of a request."""
DEADLINE = 15.0
"""Seconds after which no more of an answer is read."""
_ATTEMPTS = 3


class WitnessUnreachable(Unavailable):
    """A witness that does not answer, or says that it cannot."""

    code = "witness-unreachable"
    remedy = "Check its address and that `catena audit witness run` is running there."


class WitnessAnswerUnusable(Unavailable):
    """An answer that is not of this protocol, or holds no cosignature of the witness's key."""

    code = "witness-answer-unusable"
    remedy = "Check the witness's address and key in server.toml."


class WitnessDeclines(Unavailable):
    """A witness that does not know this log or its key."""

    code = "witness-declines"
    remedy = "Give the witness's operator what `catena audit witness log-key` prints."


class WitnessSawAnother(LogInconsistent):
    """A witness that cosigned a tree which this log does not contain."""

    code = "witness-saw-another-log"
    remedy = (
        "The log was rewound or forked, or another server writes under its name. Stop the "
        "server, keep its folder, and compare it with the witness's record."
    )


class WitnessAhead(WitnessSawAnother):
    """A witness that cosigned a larger tree than the log has: a rewind, unless it just grew."""

    def __init__(self, size: int, log_size: int) -> None:
        super().__init__(
            "the witness cosigned a larger tree under this log's name",
            expected=f"at most the log's {log_size} entries",
            got=f"{size}",
        )
        self.size = size


@dataclass(frozen=True, slots=True)
class Asked:
    """A checkpoint that is to be cosigned; ``prove`` makes the proof from an older size."""

    signed: Note
    checkpoint: Checkpoint
    prove: Callable[[int], tuple[bytes, ...]]


class WitnessClient:
    """One witness over one connection. Not safe to share between threads."""

    def __init__(self, address: WitnessAddress, tls: ssl.SSLContext | None = None) -> None:
        self.address = address
        self._known = 0  # the size that it cosigned last, as far as we know
        self._http = httpx.Client(
            verify=tls or ssl.create_default_context(),
            timeout=TIMEOUT,
            follow_redirects=False,
            trust_env=False,
            headers={"accept-encoding": "identity", "user-agent": "catena"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def cosign(self, asked: Asked, now: int) -> NoteSignature:
        """The witness's cosignature of a checkpoint; ``now`` in seconds since 1970.

        Raises ``WitnessUnreachable``, ``WitnessDeclines``, ``WitnessAnswerUnusable`` and
        ``WitnessSawAnother``.
        """
        size = asked.checkpoint.size
        for _ in range(_ATTEMPTS):
            old = min(self._known, size)
            request = AddCheckpoint(old, asked.prove(old), asked.signed, asked.checkpoint)
            status, kind, body = self._post(request.encode())
            if status == httpx.codes.OK:
                line = self._own_line(asked, body, now)
                self._known = size
                return line
            if status != httpx.codes.CONFLICT:
                raise _refusal(status, body)
            self._known = self._size_of(kind, body)
            if self._known > size:
                raise WitnessAhead(self._known, size)
            if self._known == old == size:
                raise WitnessSawAnother(
                    f"the witness cosigned another tree of {size} entries under this log's name"
                )
        raise WitnessAnswerUnusable("the witness names another size each time")

    def _post(self, body: bytes) -> tuple[int, str, bytes]:
        """Status, media type and bounded body of an answer."""
        end = time.monotonic() + DEADLINE
        content = bytearray()
        try:
            with self._http.stream(
                "POST", f"{self.address.url}/add-checkpoint", content=body
            ) as answer:
                for chunk in answer.iter_raw():
                    content += chunk
                    if len(content) > MAX_REQUEST or time.monotonic() > end:
                        raise WitnessAnswerUnusable("the answer is too long or too slow")
        except httpx.HTTPError as error:
            raise WitnessUnreachable(
                "the witness does not answer", got=type(error).__name__
            ) from error
        kind = answer.headers.get("content-type", "").partition(";")[0].strip()
        return answer.status_code, kind, bytes(content)

    def _own_line(self, asked: Asked, body: bytes, now: int) -> NoteSignature:
        key = self.address.key
        try:
            lines = note.parse_signatures(body)
        except FormatError as error:
            raise WitnessAnswerUnusable(f"the answer is no signature: {error}") from error
        for line in lines:
            if (line.name, line.key_id) == (key.name, key.key_id):
                try:
                    cosigned.verify_cosignature(key, asked.signed.text, line.signature, now=now)
                except CatenaError as error:
                    raise WitnessAnswerUnusable(f"{error.code}: {error}") from error
                return line
        raise WitnessAnswerUnusable(
            "the answer has no signature of the witness's key", expected=key.key_id.hex()
        )

    def _size_of(self, kind: str, body: bytes) -> int:
        if kind != SIZE_TYPE:
            raise WitnessAnswerUnusable("a conflict without a size", expected=SIZE_TYPE)
        try:
            return addcheckpoint.parse_size_answer(body)
        except FormatError as error:
            raise WitnessAnswerUnusable(f"a conflict with another size: {error}") from error


def _refusal(status: int, body: bytes) -> CatenaError:
    words = ascii(body[:120].decode("utf-8", "replace"))
    if status == httpx.codes.UNPROCESSABLE_ENTITY:
        return WitnessSawAnother(
            "the witness says that this log did not grow from what it saw", got=words
        )
    if status in {httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND}:
        return WitnessDeclines("the witness does not know this log or its key", got=words)
    if status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.TOO_MANY_REQUESTS:
        return WitnessUnreachable("the witness cannot answer now", got=f"{status} {words}")
    return WitnessAnswerUnusable("the witness refuses the request", got=f"{status} {words}")
