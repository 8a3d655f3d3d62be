"""Programs of Debian testing that tests hold catena against; a test skips where one cannot be had."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

import pytest

from catena.lab import archive
from catena.lab.tree import Cache

CACHE = Path(os.environ.get("CATENA_CACHE", ".cache")).resolve()


def _tell(line: str) -> None:
    """Past what a test captures: a download is no output of the command that is tested."""
    print(line, file=sys.__stderr__)


@cache
def program(package: str) -> Path:
    """``/usr/bin/PACKAGE`` of that package, downloaded once."""
    try:
        return archive.unpacked(Cache(CACHE), "testing", package, _tell) / "usr/bin" / package
    except archive.NoSuchPackage as error:
        pytest.skip(f"no {package} from Debian testing: {error}")
