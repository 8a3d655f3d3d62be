"""NV indices of two tenants, as a gate tells the TPM about them."""

from __future__ import annotations

from catena.agent.gate.register import space_of
from catena.formats.recordindex import RecordIndex, seal_event
from catena.tpm.nvindex import seal_spaces

PCR = 15
ONE, TWO = 0x01800F00, 0x01800F01
FIRST, SECOND = RecordIndex(ONE, PCR), RecordIndex(TWO, PCR)
SPACES = (space_of(ONE, PCR), space_of(TWO, PCR))
SEAL = seal_event((ONE, TWO))


def seal(tcti: str, owner: bytes = b"") -> None:
    seal_spaces(tcti, PCR, SEAL, SPACES, owner)
