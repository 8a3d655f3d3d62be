"""Files with secrets: nobody but their owner may touch them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from catena.keys.signer import ExposedKey, MissingKey


def read_owned(path: Path, limit: int) -> bytes:
    """The first ``limit`` bytes of such a file. Raises ``MissingKey``, ``ExposedKey``."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(limit)
    except OSError as error:
        raise MissingKey(f"cannot read {path.name}", got=str(path)) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ExposedKey(f"{path.name} is open to others", expected="0600", got=f"{mode:04o}")
    return content
