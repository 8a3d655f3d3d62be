"""The container policy in force: read at every decision, compiled once for each version.

The file is read and hashed each time. That costs microseconds, and leaves no moment in which another
file is in place and the old one still decides. A policy that cannot be used, or is no newer than the one
before it, is not replaced by the one before it: nothing starts.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from catena.agent.gate.process import read_document
from catena.containers.signature.policy import CompiledPolicy, compile_policy
from catena.errors import Refusal
from catena.formats.containerpolicy import ContainerPolicy
from catena.keys.documents import open_document
from catena.keys.signer import PublicKey


class PolicyRollback(Refusal):
    """A policy file that is not newer than the policy it replaces."""

    code = "policy-rollback"
    remedy = "Give the policy a greater version and sign it again, or put the newer one back."


@dataclass(slots=True)
class PolicyFile:
    """The policy at ``path``, signed by one of ``keys``; ``changed`` is told of each that comes in force.

    ``changed`` may raise ``CatenaError``; then the policy is not in force, and it is tried again.
    """

    path: Path
    keys: tuple[PublicKey, ...]
    changed: Callable[[CompiledPolicy], None]
    _file: bytes = b""
    _current: CompiledPolicy | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while one thread reads a new version: the others wait for it."""

    def current(self) -> CompiledPolicy:
        """The policy that is in the file now.

        Raises ``DocumentUnreadable``, what ``keys.documents.open_document`` raises,
        ``BadContainerPolicy``, ``PolicyRollback``, or what ``changed`` raises.
        """
        data = read_document(self.path)
        digest = hashlib.sha256(data).digest()
        with self._lock:
            if digest == self._file and self._current is not None:
                return self._current
            fresh = self._newer(compile_policy(open_document(data, self.keys, ContainerPolicy)))
            self.changed(fresh)
            self._file, self._current = digest, fresh
            return fresh

    def digest(self) -> str:
        """The digest of the policy that decided last, or nothing."""
        with self._lock:
            return "" if self._current is None else self._current.digest

    def _newer(self, fresh: CompiledPolicy) -> CompiledPolicy:
        old = self._current
        if old is None or fresh.digest == old.digest:  # signed again, or by another key
            return fresh
        if fresh.document.version <= old.document.version:
            raise PolicyRollback(
                "policy is no newer than the one in force",
                expected=f"above {old.document.version}",
                got=f"{fresh.document.version}",
            )
        return fresh
