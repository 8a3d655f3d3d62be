"""An entry on its way to a receiver."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from catena.audit.entries import Denial, Entry, Revocation, Verdict


@dataclass(frozen=True, slots=True)
class Exported:
    """One verified entry, with its leaf as the log has it."""

    index: int
    leaf: bytes
    entry: Entry

    @property
    def alarming(self) -> bool:
        """Whether it tells of something refused or taken away."""
        untrusted = isinstance(self.entry, Verdict) and self.entry.verdict == "untrusted"
        return untrusted or isinstance(self.entry, Denial | Revocation)

    @property
    def leaf_sha256(self) -> str:
        """The leaf's digest; that of the tree has a prefix."""
        return sha256(self.leaf).hexdigest()
