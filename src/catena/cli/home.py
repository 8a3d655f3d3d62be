"""Where commands look when they are not told: the lab folder that ``catena lab`` makes.

It is ``.catena`` in the current folder, or what ``CATENA_HOME`` names.
"""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The lab folder, whether it exists or not."""
    return Path(os.environ.get("CATENA_HOME", ".catena"))


def in_home(*parts: str) -> Path | None:
    """A file or folder of the lab folder, if it is there."""
    path = home().joinpath(*parts)
    return path if path.exists() else None
