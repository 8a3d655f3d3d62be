"""What the agent keeps as proof, and that nothing is used without it."""

from __future__ import annotations

import msgspec
import pytest
from stand_in import receipts

from catena.agent.receipts import KEPT, MissingReceipt, indices, keep
from catena.errors import FormatError
from catena.formats.nodeapi import AttestResult
from catena.formats.tlogproof import TlogProof

TRUSTED = AttestResult(
    verdict="trusted", state="trusted", certificate="x", receipts=receipts(2), interval=30
)


def test_each_thing_that_is_given_has_a_receipt():
    assert indices(TRUSTED) == (7, 8)
    for count in (0, 1, 3):
        with pytest.raises(MissingReceipt):
            indices(msgspec.structs.replace(TRUSTED, receipts=receipts(count)))
    with pytest.raises(FormatError):
        indices(msgspec.structs.replace(TRUSTED, receipts=("", "x")))


def test_the_newest_are_kept(tmp_path):
    for number in range(KEPT + 5):
        keep(tmp_path, [TlogProof(number, (), "x").encode()])
    names = sorted(path.name for path in (tmp_path / "receipts").iterdir())
    assert names == [f"{number:020}.tlog-proof" for number in range(5, KEPT + 5)]
