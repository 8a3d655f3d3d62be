"""Entries about the server itself: what counts, which keys, who may, and where the log goes on."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

import msgspec

from catena.audit.entries.base import EntryBase, Text, Word, Words, cut, sha256
from catena.audit.people import PREFIX, shortened
from catena.formats.dsse import Subject
from catena.formats.nodeapi import Hex256


class ReferenceAccepted(EntryBase, frozen=True, kw_only=True):
    """A reference document counts from now on, or (``active`` false) no longer."""

    kind: ClassVar[str] = "reference"

    name: Word
    type: Word
    version: Word
    document_sha256: Hex256
    active: bool = True

    def subjects(self) -> tuple[Subject, ...]:
        """The document."""
        return (Subject(name=f"{self.type}:{self.name}", digest=sha256(self.document_sha256)),)

    def summary(self) -> str:
        """One line for a person."""
        verb = "accepted" if self.active else "withdrawn"
        return f"{self.type} {self.name} {self.version} {verb}"


class EndorsementChanged(EntryBase, frozen=True, kw_only=True):
    """A certificate or revocation list helps to judge TPMs from now on, or (``active`` false) no longer.

    ``vouches`` is the kind of a root. ``document_sha256`` is of the certificate or list itself.
    """

    kind: ClassVar[str] = "endorsement"

    name: Word
    type: Literal["root", "intermediate", "crl"]
    vouches: Word = ""
    document_sha256: Hex256
    source: Text = ""
    active: bool = True

    def __post_init__(self) -> None:
        """Cut what a person wrote to what an entry holds."""
        msgspec.structs.force_setattr(self, "source", cut(self.source))

    def subjects(self) -> tuple[Subject, ...]:
        """The certificate or list."""
        return (Subject(name=f"{self.type}:{self.name}", digest=sha256(self.document_sha256)),)

    def summary(self) -> str:
        """One line for a person."""
        verb = "accepted" if self.active else "withdrawn"
        whose = f" of kind {self.vouches}" if self.vouches else ""
        source = f", from {self.source}" if self.source else ""
        return f"TPM {self.type} {self.name}{whose} {verb}{source}"


class PolicyAccepted(EntryBase, frozen=True, kw_only=True):
    """A policy counts from now on. ``policy_sha256`` is of its text, as verdicts name it."""

    kind: ClassVar[str] = "policy"

    name: Word
    version: int
    policy_sha256: Hex256
    document_sha256: Hex256

    def subjects(self) -> tuple[Subject, ...]:
        """The policy's text."""
        return (Subject(name=f"policy:{self.name}", digest=sha256(self.policy_sha256)),)

    def summary(self) -> str:
        """One line for a person."""
        return f"policy {self.name} version {self.version} applied"


class SecretChanged(EntryBase, frozen=True, kw_only=True):
    """A secret got a new version, or was removed. The digest is of the stored ciphertext."""

    kind: ClassVar[str] = "secret-change"

    action: Literal["put", "removed"]
    secret: Word
    version: int
    roles: Words = ()
    labels: Words = ()
    ciphertext_sha256: Hex256

    def subjects(self) -> tuple[Subject, ...]:
        """The secret's stored ciphertext."""
        return (Subject(name=f"secret:{self.secret}", digest=sha256(self.ciphertext_sha256)),)

    def summary(self) -> str:
        """One line for a person."""
        return f"secret {self.secret} version {self.version} {self.action}"


class SecretRead(EntryBase, frozen=True, kw_only=True):
    """A person asked for the value of a secret, and will be given it."""

    kind: ClassVar[str] = "secret-read"

    secret: Word
    version: int
    ciphertext_sha256: Hex256

    def subjects(self) -> tuple[Subject, ...]:
        """The secret's stored ciphertext."""
        return (Subject(name=f"secret:{self.secret}", digest=sha256(self.ciphertext_sha256)),)

    def summary(self) -> str:
        """One line for a person."""
        return f"secret {self.secret} version {self.version} read by {shortened(self.actor)}"


class AdminToken(EntryBase, frozen=True, kw_only=True):
    """An admin token was made or withdrawn; ``token_sha256`` is what the server stores of it."""

    kind: ClassVar[str] = "admin-token"
    personal: ClassVar[tuple[str, ...]] = ("actor", "label")

    action: Literal["created", "removed"]
    label: Word
    role: Word
    token_sha256: Hex256
    scope: Words = ()
    """The rights that it is narrowed to; empty: all of its role."""
    expires: datetime | None = None

    def subjects(self) -> tuple[Subject, ...]:
        """The token, by its hash."""
        return (Subject(name=f"token:{self.label}", digest=sha256(self.token_sha256)),)

    def summary(self) -> str:
        """One line for a person."""
        return f"admin token {shortened(self.label)} ({self.role}) {self.action}"


class TokenUse(EntryBase, frozen=True, kw_only=True):
    """Base: the first use of an admin token within a period (``service.uses``)."""

    personal: ClassVar[tuple[str, ...]] = ("actor", "label")

    label: Word
    role: Word
    token_sha256: Hex256

    def subjects(self) -> tuple[Subject, ...]:
        """The token, by its hash."""
        return (Subject(name=f"token:{self.label}", digest=sha256(self.token_sha256)),)


class AdminSignIn(TokenUse, frozen=True, kw_only=True):
    """Somebody uses the admin API with this token."""

    kind: ClassVar[str] = "admin-sign-in"

    def summary(self) -> str:
        """One line for a person."""
        return f"{shortened(self.label)} ({self.role}) signed in"


class LogRead(TokenUse, frozen=True, kw_only=True):
    """Somebody reads this log through the server with this token."""

    kind: ClassVar[str] = "log-read"

    def summary(self) -> str:
        """One line for a person."""
        return f"{shortened(self.label)} ({self.role}) reads the log"


class KeyChanged(EntryBase, frozen=True, kw_only=True):
    """A key counts from now on, or no longer.

    ``key`` says what it is for. ``key_sha256`` is of a public key's SubjectPublicKeyInfo in DER, of a
    TPM root's certificate, of a pinned EK's public area; of a secret key it is a digest that only
    whoever has the key can make.
    """

    kind: ClassVar[str] = "key-change"

    action: Literal["added", "removed"]
    key: Word
    key_sha256: Hex256

    def subjects(self) -> tuple[Subject, ...]:
        """The key."""
        return (Subject(name=f"key:{self.key}", digest=sha256(self.key_sha256)),)

    def summary(self) -> str:
        """One line for a person."""
        return f"key of {self.key} {self.action}: {self.key_sha256[:16]}…"


class PersonForgotten(EntryBase, frozen=True, kw_only=True):
    """Name and salt behind a pseudonym were deleted: nobody can tell any more who it was."""

    kind: ClassVar[str] = "person-forgotten"

    person: Word

    def subjects(self) -> tuple[Subject, ...]:
        """The pseudonym."""
        return (Subject(name="person", digest=sha256(self.person.removeprefix(PREFIX))),)

    def summary(self) -> str:
        """One line for a person."""
        return f"{shortened(self.person)} was forgotten"


class Rotation(EntryBase, frozen=True, kw_only=True):
    """Base: where a log ends and another goes on, each named by its origin and key."""

    origin: Word
    log_key_sha256: Hex256

    def subjects(self) -> tuple[Subject, ...]:
        """The other log, by its key."""
        return (Subject(name=f"log:{self.origin}", digest=sha256(self.log_key_sha256)),)


class LogEnded(Rotation, frozen=True, kw_only=True):
    """The last entry of a log: what follows is in the log named here."""

    kind: ClassVar[str] = "log-rotation"

    def summary(self) -> str:
        """One line for a person."""
        return f"this log ends here and goes on in {self.origin}"


class LogContinues(Rotation, frozen=True, kw_only=True):
    """The first entry of a log that goes on for the one named here, with that one's last tree."""

    kind: ClassVar[str] = "log-continuation"

    tree_size: int
    root_sha256: Hex256

    def summary(self) -> str:
        """One line for a person."""
        return f"this log goes on where {self.origin} ended with {self.tree_size} entries"
