"""A checkpoint that a reader keeps, so that the log cannot be shown to it with another past."""

from __future__ import annotations

from pathlib import Path

from catena.audit.folder import MAX_CHECKPOINT, replace_file
from catena.audit.follow import Known, known
from catena.errors import FormatError
from catena.keys.signer import PublicKey


def recall(path: Path, key: PublicKey, *, origin: str | None = None) -> Known | None:
    """What is remembered, verified; None before the first time. Raises ``LogInconsistent``."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CHECKPOINT + 1)
    except FileNotFoundError:
        return None
    if len(content) > MAX_CHECKPOINT:
        raise FormatError(f"{path.name} is no checkpoint", got=f"over {MAX_CHECKPOINT} bytes")
    return known(content, key, origin=origin)


def remember(path: Path, checkpoint: Known) -> None:
    """Keep a checkpoint instead of the one before: a crash leaves one of the two."""
    replace_file(path, checkpoint.text.encode())
