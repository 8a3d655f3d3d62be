"""Logs that follow each other: each ends with an entry that names the next, which names it back.

What is held against what, for a log and the one that goes on for it, both verified by themselves:

1. the old log's last entry is ``LogEnded``, and no other of its entries is;
2. it names the new log's origin and key;
3. the new log's first entry is ``LogContinues``, and no other of its entries is;
4. it names the old log's origin, key, size and root.

Either party could lie alone: the two signatures together say that nothing lies between the logs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from catena.audit.entries import LogContinues, LogEnded
from catena.audit.verify import LogSummary, VerifiedEntry
from catena.errors import LogInconsistent
from catena.keys.signer import PublicKey, key_id_of


class LogUnlinked(LogInconsistent):
    """Two logs of which one does not go on for the other."""

    code = "log-unlinked"
    remedy = (
        "Check the order of the logs and their keys; otherwise entries may be missing between them."
    )


@dataclass(slots=True)
class Ends:
    """What of a log's entries says where it comes from and goes on; ``visit`` is given all of them.

    Not frozen: it is filled while a log is verified.
    """

    key: PublicKey
    continues: dict[int, LogContinues] = field(default_factory=dict)
    ended: dict[int, LogEnded] = field(default_factory=dict)

    def visit(self, one: VerifiedEntry) -> None:
        """Take note of one entry."""
        if isinstance(one.entry, LogContinues):
            self.continues[one.index] = one.entry
        elif isinstance(one.entry, LogEnded):
            self.ended[one.index] = one.entry

    def require_whole(self, summary: LogSummary) -> None:
        """Refuse a log that ends before its last entry, or goes on behind its first (1, 3)."""
        if set(self.ended) - {summary.size - 1}:
            raise LogUnlinked(
                "a log has entries behind its end",
                expected="none",
                got=f"{summary.size - 1 - min(self.ended)} in {summary.origin!a}",
            )
        if set(self.continues) - {0}:
            raise LogUnlinked(
                "a log says in its middle that it goes on for another",
                expected="entry 0",
                got=f"entry {max(self.continues)} of {summary.origin!a}",
            )


def require_linked(before: tuple[LogSummary, Ends], after: tuple[LogSummary, Ends]) -> None:
    """The module's list, for logs that were verified. Raises ``LogUnlinked``."""
    (old, old_ends), (new, new_ends) = before, after
    old_ends.require_whole(old)
    new_ends.require_whole(new)
    # 1.
    last = old_ends.ended.get(old.size - 1)
    if last is None:
        raise LogUnlinked("a log that others follow has not ended", got=ascii(old.origin))
    # 2.
    _require_same(
        "the old log goes on in another log",
        (new.origin, key_id_of(new_ends.key)),
        (last.origin, last.log_key_sha256),
    )
    # 3.
    first = new_ends.continues.get(0)
    if first is None:
        raise LogUnlinked("a log does not say for which one it goes on", got=ascii(new.origin))
    # 4.
    _require_same(
        "the new log goes on for another log",
        (old.origin, key_id_of(old_ends.key), old.size, old.root),
        (first.origin, first.log_key_sha256, first.tree_size, first.root_sha256),
    )


def _require_same(problem: str, expected: tuple[object, ...], got: tuple[object, ...]) -> None:
    if expected != got:
        raise LogUnlinked(problem, expected=_told(expected), got=_told(got))


def _told(values: tuple[object, ...]) -> str:
    return ", ".join(ascii(one) for one in values)
