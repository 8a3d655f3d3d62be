"""Entries about a node's life beside verdicts: silence, retirement, demands, and the inventory."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

import msgspec

from catena.audit.entries.base import EntryBase, Text, Word, Words, cut, sha256
from catena.audit.entries.nodes import NodeEntry
from catena.formats.dsse import Subject
from catena.formats.nodeapi import Hex256, NodeState


class Transition(NodeEntry, frozen=True, kw_only=True):
    """A node's state changed without a verdict, an approval or a revocation that would say so.

    ``secrets`` are those that a node held which is retired: they are to be rotated.
    """

    kind: ClassVar[str] = "transition"

    before: NodeState
    state: NodeState
    reason: Text
    last_attested: datetime | None = None
    secrets: Words = ()

    def __post_init__(self) -> None:
        """Cut the reason to what an entry holds."""
        msgspec.structs.force_setattr(self, "reason", cut(self.reason))

    def summary(self) -> str:
        """One line for a person."""
        rotate = f"; {len(self.secrets)} secrets to rotate" if self.secrets else ""
        return f"{self.before} → {self.state}: {self.reason}{rotate}"


class EndorsementJudged(NodeEntry, frozen=True, kw_only=True):
    """Whether somebody vouches for a node's TPM was judged again, and the answer is another.

    ``code`` is of the refusal, empty if somebody does; ``state`` is the node's afterwards.
    """

    kind: ClassVar[str] = "node-endorsement"

    code: Word = ""
    message: Text = ""
    before: NodeState
    state: NodeState

    def __post_init__(self) -> None:
        """Cut the message to what an entry holds."""
        msgspec.structs.force_setattr(self, "message", cut(self.message))

    def summary(self) -> str:
        """One line for a person."""
        moved = self.state if self.state == self.before else f"{self.before} → {self.state}"
        return f"{moved}: {self.message or 'the TPM is vouched for'}"


class KeyRejected(NodeEntry, frozen=True, kw_only=True):
    """A person refused the attestation key that a known TPM enrolled; the old one stays."""

    kind: ClassVar[str] = "key-rejected"

    ak_sha256: Hex256
    reason: Text

    def __post_init__(self) -> None:
        """Cut the reason to what an entry holds."""
        msgspec.structs.force_setattr(self, "reason", cut(self.reason))

    def summary(self) -> str:
        """One line for a person."""
        return f"waiting key {self.ak_sha256[:12]} rejected: {self.reason}"


class AttestationDemanded(NodeEntry, frozen=True, kw_only=True):
    """A person wants a node to attest by a time, or to be stale."""

    kind: ClassVar[str] = "demand"

    by: datetime

    def summary(self) -> str:
        """One line for a person."""
        return f"to attest by {self.by:%Y-%m-%d %H:%M:%S}Z"


class InventoryChanged(EntryBase, frozen=True, kw_only=True):
    """Machines are expected, or no longer. The list lies in the evidence store under its digest."""

    kind: ClassVar[str] = "inventory"

    action: Literal["expected", "unlisted"]
    machines: int
    list_sha256: Hex256

    def subjects(self) -> tuple[Subject, ...]:
        """The list."""
        return (Subject(name="inventory", digest=sha256(self.list_sha256)),)

    def summary(self) -> str:
        """One line for a person."""
        return f"{self.machines} machines {self.action} (list {self.list_sha256[:12]})"
