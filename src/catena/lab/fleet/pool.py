"""A pool of software TPMs that stand for a fleet of nodes (``chip``)."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from catena.formats import tpm2
from catena.lab.fleet.boots import RecordedBoot
from catena.lab.fleet.chip import Chip, SharedTpm, powered, shared, unrestricted_ak
from catena.lab.fleet.hostile import Case
from catena.lab.fleet.hostiletpm import LEFT_OUT, TPM_CASES
from catena.lab.fleet.node import FleetNode
from catena.lab.fleet.softtpm import SoftwareMaker
from catena.lab.fleet.source import Progress
from catena.lab.swtpm import Vendor

T = TypeVar("T")
_INDIVIDUAL = 32


class Pool:
    """Nodes of the chips by turns; made by ``pool_of``."""

    keys = "software TPMs (swtpm)"
    cases: Sequence[Case] = TPM_CASES
    left_out: Mapping[str, str] = LEFT_OUT

    def __init__(
        self,
        chips: Sequence[Chip],
        maker: SoftwareMaker,
        now: datetime,
        threads: ThreadPoolExecutor,
    ) -> None:
        self.tpms = len(chips)
        self.boots: Sequence[RecordedBoot] = tuple(
            {chip.logs.boot.name: chip.logs.boot for chip in chips}.values()
        )
        self._turn = itertools.cycle(chips)
        self._numbers = itertools.count(1)
        self._maker = maker
        self._now = now
        self._threads = threads

    def node(self) -> FleetNode:
        """The next node, on the next chip."""
        chip, individual = self._next()
        return FleetNode(self._shared(chip, individual), chip.logs)

    def unrestricted(self) -> FleetNode:
        """One with an AK that signs anything."""
        chip, individual = self._next()
        tpm = self._shared(chip, individual)
        return FleetNode(replace(tpm, ak_public=unrestricted_ak(chip, individual)), chip.logs)

    def _next(self) -> tuple[Chip, bytes]:
        return next(self._turn), next(self._numbers).to_bytes(_INDIVIDUAL, "big")

    def _shared(self, chip: Chip, individual: bytes) -> SharedTpm:
        tpm, ek, ak = shared(chip, individual)
        certificate = self._maker.endorse(tpm2.parse_public(ek).key(), self._now)
        return SharedTpm(chip, tpm, ek, certificate, ak)

    async def run(self, work: Callable[[], T]) -> T:
        """In a thread, of which there is one for each connection."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many TPMs, with which boots by turns, for how many connections."""

    tpms: int
    boots: Sequence[RecordedBoot]
    connections: int


@contextmanager
def pool_of(
    wanted: Wanted, maker: SoftwareMaker, now: datetime, progress: Progress
) -> Iterator[Pool]:
    """TPMs with power. Processes and folders are gone afterwards, whatever happened.

    Raises ``BootNotRepeated``, ``TpmFailed``, ``ToolFailed``.
    """
    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="catena-fleet-tpms-"))
        folder, chips = Path(name), []
        vendor = Vendor(folder / "vendor")
        for number in range(wanted.tpms):
            progress("making TPMs", number, wanted.tpms)
            boot = wanted.boots[number % len(wanted.boots)]
            chip = powered(folder / f"tpm-{number}", vendor, boot, folder / f"tpm-{number}.log")
            chips.append(stack.enter_context(chip))
        progress("making TPMs", wanted.tpms, wanted.tpms)
        # Last in, first out: no thread uses a TPM that is being closed.
        threads = stack.enter_context(ThreadPoolExecutor(wanted.connections))
        yield Pool(chips, maker, now, threads)
