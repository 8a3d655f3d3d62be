"""One PCR, kept open to be extended many times (an NV index like it: ``nvindex``).

The connection is opened and the banks are found once; an extend is then one command for all
banks, so that none of them can be made to tell another story. An extender is for one thread
at a time. A TPM without a resource manager serves only one connection, this one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from catena.ids import HashAlg
from catena.tpm.device import DEFAULT_TCTI, Tpm, connected


class PcrExtender:
    """One PCR in every bank; made by ``open_pcr``."""

    def __init__(self, tpm: Tpm, pcr: int) -> None:
        self.pcr = pcr
        self._tpm = tpm
        self._banks = tpm.banks()

    def banks(self) -> tuple[HashAlg, ...]:
        """The active banks, as far as catena knows their hash."""
        return self._banks

    def read(self, bank: HashAlg) -> bytes:
        """The PCR's value now."""
        return self._tpm.read_pcrs(bank, [self.pcr])[0]

    def extend(self, digests: Mapping[HashAlg, bytes]) -> None:
        """TPM2_PCR_Extend with one digest for each bank."""
        self._tpm.extend(self.pcr, digests)


@contextmanager
def open_pcr(tcti: str = DEFAULT_TCTI, pcr: int = 15) -> Iterator[PcrExtender]:
    """A PCR to extend, for as long as the ``with`` lasts."""
    with connected(tcti) as esys:
        yield PcrExtender(Tpm(esys), pcr)
