"""Everything that can be refused or go wrong, as one tree under ``CatenaError``.

::

    CatenaError
    ├── FormatError      bytes that are not what they claim to be (has an offset)
    ├── Refusal          a security check said no: named after the attack it stops
    ├── UsageError       the caller asked for something that makes no sense
    ├── NotFound         a named thing does not exist
    ├── Unavailable      a tool, port, disk, server or device is missing or broken
    └── LogInconsistent  the transparency log contradicts itself

Each room derives its own errors from these next to the code that raises them. A
subclass sets ``code`` (stable, kebab-case, part of the interface) and ``remedy`` (what the
reader can do about it); an instance adds what was expected and what was found.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, TypeVar


class ExitCode(IntEnum):
    """Exit codes of the ``catena`` command, the same for every noun."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    NOT_FOUND = 3
    UNTRUSTED = 10
    STALE = 11
    UNKNOWN_NODE = 12
    POLICY = 13
    MALFORMED = 14
    LOG_INCONSISTENT = 20


class CatenaError(Exception):
    """Base of every error that catena raises on purpose.

    ``message`` says what happened in one sentence; ``expected`` and ``got`` are short
    printable strings, never secrets and never unbounded input.
    """

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL
    remedy: ClassVar[str] = ""

    def __init__(
        self, message: str, *, expected: str | None = None, got: str | None = None
    ) -> None:
        self.message = message
        self.expected = expected
        self.got = got
        super().__init__(message)

    def __str__(self) -> str:
        """One line: the message, then expected and got where they are known."""
        detail = [
            f"{label} {value}"
            for label, value in (("expected", self.expected), ("got", self.got))
            if value is not None
        ]
        return f"{self.message} ({', '.join(detail)})" if detail else self.message

    def as_dict(self) -> dict[str, object]:
        """The error as the JSON object that ``-o json`` and the HTTP API show."""
        fields: dict[str, object] = {"code": self.code, "message": self.message}
        if self.expected is not None:
            fields["expected"] = self.expected
        if self.got is not None:
            fields["got"] = self.got
        fields["remedy"] = self.remedy
        return fields


class FormatError(CatenaError):
    """Bytes that do not follow their format; ``offset`` is where reading stopped."""

    code = "malformed"
    exit_code = ExitCode.MALFORMED
    remedy = "The input is damaged, truncated or of another kind; obtain it again from its source."

    def __init__(
        self,
        message: str,
        *,
        offset: int = 0,
        expected: str | None = None,
        got: str | None = None,
    ) -> None:
        super().__init__(message, expected=expected, got=got)
        self.offset = offset

    def __str__(self) -> str:
        """The message with its byte offset."""
        return f"{super().__str__()} at byte {self.offset}"

    def as_dict(self) -> dict[str, object]:
        """The JSON object of the error, with its offset."""
        return {**super().as_dict(), "offset": self.offset}


class Refusal(CatenaError):
    """A security check that did not hold. Subclasses are named after what they stop."""

    code = "refused"
    exit_code = ExitCode.UNTRUSTED
    remedy = "Treat the machine as one to replace until the reason is understood."


class UsageError(CatenaError):
    """A request that cannot be carried out as it was put."""

    code = "usage"
    exit_code = ExitCode.USAGE
    remedy = "Run the command with --help."


class NotFound(CatenaError):
    """A thing that was named does not exist."""

    code = "not-found"
    exit_code = ExitCode.NOT_FOUND
    remedy = "List what exists with the noun's `list` verb."


class Unavailable(CatenaError):
    """Something the work needs (tool, port, disk, server, TPM) is missing or failed."""

    code = "unavailable"
    remedy = "Run `catena doctor` to see what this machine lacks."


class LogInconsistent(CatenaError):
    """The transparency log contradicts itself or an earlier checkpoint."""

    code = "log-inconsistent"
    exit_code = ExitCode.LOG_INCONSISTENT
    remedy = "Do not trust this log. Keep its files as evidence and compare them with another copy."


E = TypeVar("E", bound=CatenaError)


def without_frames(error: E) -> E:
    """An error that is kept as a value, without the frames that it passed.

    A frame holds what its function knew, and each the frame that called it: also that in whose
    variables the error now is. Such circles keep a whole group's evidence in memory.
    """
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
