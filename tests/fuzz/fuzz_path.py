"""Importing this makes the package and the tests' modules importable without pytest."""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PROJECT = FOLDER.parents[1]
ONE = FOLDER / "fuzz_one.py"

sys.path[:0] = [str(PROJECT / place) for place in ("src", "tests", "tests/formats", "tests/fuzz")]
