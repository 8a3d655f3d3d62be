"""What the manual prints of engines, compared with what they say."""

from __future__ import annotations

import os
import re
from pathlib import Path

MANUAL = Path(__file__).resolve().parents[3] / "docs/containers.md"


def plain(line: str) -> str:
    """Without what is another each time."""
    line = re.sub(r"sha256:[0-9a-f]{64}", "sha256:…", line)
    line = re.sub(r"\b[0-9a-f]{64}\b", "…", line)
    return re.sub(r'time="[^"]*" ', "", line)


def compare(name: str, text: str) -> None:
    """The manual's transcript of ``name`` is ``text``."""
    manual = MANUAL.read_text()
    head, rest = manual.split(f"<!-- transcript: {name} -->\n```\n", 1)
    shown, tail = rest.split("```\n", 1)
    if os.environ.get("CATENA_WRITE_TRANSCRIPTS"):
        MANUAL.write_text(f"{head}<!-- transcript: {name} -->\n```\n{text}```\n{tail}")
    else:
        assert shown == text
