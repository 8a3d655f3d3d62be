"""What the agent tells the machine it runs on: JSON lines, and systemd's notify socket.

One event is one line on standard output, ``{"event": NAME, "at": RFC 3339, ...}``:

=======================  ===========================================================
``started``              the agent is ready; ``node_id`` and ``server``
``enrolled``             the trust service knows the TPM now; ``state``
``attested``             ``verdict``, ``state``, ``name``, codes of ``reasons``, log ``entry``
``secret-unopened``      a secret that this TPM did not open; ``name``, ``code``
``receipts-not-kept``    proof of what was decided could not be written; ``error``
``token-withheld``       the trust service gives no tokens for an ``audience``
``demanded``             somebody wants an attestation now
``authorities-changed``  other cluster CAs count from now on; ``count``
``copy-failed``          the sealed copy could not be written; ``name``, ``code``
``withdrawn``            identity and secrets were removed; ``why``
``failed``               a round did not end; ``code``, ``message``, ``retry_in``
``stopped``              the agent ends
=======================  ===========================================================

No event carries a secret, a key or a certificate.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import datetime
from typing import Protocol, TextIO

import msgspec


class Emit(Protocol):
    """Reports one event."""

    def __call__(self, event: str, /, **fields: object) -> None:
        """Report ``event`` with its fields."""


def json_lines(stream: TextIO, now: Callable[[], datetime]) -> Emit:
    """Events as JSON lines on ``stream``, each flushed at once."""

    def emit(event: str, /, **fields: object) -> None:
        line = {"event": event, "at": timestamp(now()), **fields}
        stream.write(msgspec.json.encode(line).decode() + "\n")
        stream.flush()

    return emit


def timestamp(moment: datetime) -> str:
    """RFC 3339, UTC, whole seconds."""
    return f"{moment:%FT%TZ}"


def notify(state: str) -> None:
    """Tell systemd (sd_notify(3)); nothing happens outside a ``Type=notify`` service."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.connect(address)
        channel.sendall(state.encode())
