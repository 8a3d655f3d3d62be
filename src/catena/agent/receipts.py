"""The receipts that a node was given: proof, for its owner, of what was decided about it.

``RUNTIME_DIR/receipts/INDEX.tlog-proof``, one for each verdict, certificate and secret, the newest kept. They hold
no secret, and what they say is checked with `catena audit verify FILE` and the log's public key, not here:
a node does not judge its judge.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from catena.errors import FormatError
from catena.formats import tlogproof
from catena.formats.nodeapi import AttestResult

KEPT = 32
SUFFIX = ".tlog-proof"


class MissingReceipt(FormatError):
    """An answer that gives something without the proof that it was logged."""

    code = "receipt-missing"
    remedy = "Update the server; nothing of an answer without receipts is used."


def indices(result: AttestResult) -> tuple[int, ...]:
    """Which entries an answer's receipts are about, the verdict's first.

    Raises ``FormatError``, and ``MissingReceipt`` unless there is one for all that the answer gives.
    """
    given = 1 + (result.certificate is not None) + len(result.secrets)
    if len(result.receipts) != given:
        raise MissingReceipt(
            "answer has a wrong number of receipts",
            expected=f"{given}",
            got=f"{len(result.receipts)}",
        )
    return tuple(tlogproof.parse(one.encode()).index for one in result.receipts)


def keep(runtime_dir: Path, receipts: Iterable[str]) -> None:
    """Write them, then remove the oldest beyond ``KEPT``. Raises ``OSError``."""
    folder = runtime_dir / "receipts"
    folder.mkdir(mode=0o700, exist_ok=True)
    for text in receipts:
        path = folder / f"{tlogproof.parse(text.encode()).index:020}{SUFFIX}"
        new = path.with_suffix(".new")
        new.write_text(text)
        new.replace(path)
    for old in sorted(folder.glob(f"*{SUFFIX}"))[:-KEPT]:
        old.unlink()
