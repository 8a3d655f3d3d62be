"""Where a fleet's nodes come from: software keys, or TPMs (``pool``)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric import rsa

from catena.formats.tpm2 import TpmaObject
from catena.lab.fleet.boots import RecordedBoot
from catena.lab.fleet.hostile import CASES, UNRESTRICTED, Case
from catena.lab.fleet.node import BootLogs, FleetNode
from catena.lab.fleet.softtpm import (
    AK_ATTRIBUTES,
    SoftwareMaker,
    SoftwareTpm,
    endorsement_keys,
    utc_now,
)

T = TypeVar("T")
Progress = Callable[[str, float, float], None]
"""``progress(phase, done, all)``."""


class Source(Protocol):
    """Makes nodes, each with keys of its own, and says what can be done with them."""

    keys: str
    """What the keys are, for the report."""
    tpms: int
    boots: Sequence[RecordedBoot]
    cases: Sequence[Case]
    left_out: Mapping[str, str]
    """Attacks that such nodes cannot make, and why."""

    def node(self) -> FleetNode:
        """The next node."""

    def unrestricted(self) -> FleetNode:
        """One whose AK signs anything, and must not be enrolled."""

    async def run(self, work: Callable[[], T]) -> T:
        """Do what may wait for a TPM, without keeping others from working."""


class SoftwareKeys:
    """Nodes with keys in this process; boots by turns."""

    keys = "software keys, no TPM"
    tpms = 0
    cases: Sequence[Case] = CASES
    left_out: Mapping[str, str] = {}

    def __init__(self, boots: Sequence[RecordedBoot], maker: SoftwareMaker) -> None:
        self.boots = boots
        self._maker = maker
        self._now = utc_now()
        self._keys: Iterator[rsa.RSAPrivateKey] = endorsement_keys()
        self._logs = itertools.cycle([BootLogs.of(boot) for boot in boots])

    def node(self) -> FleetNode:
        """The next node."""
        return self._made(AK_ATTRIBUTES)

    def unrestricted(self) -> FleetNode:
        """One whose AK signs anything."""
        return self._made(UNRESTRICTED)

    def _made(self, attributes: TpmaObject) -> FleetNode:
        ek, logs = next(self._keys), next(self._logs)
        certificate = self._maker.endorse(ek.public_key(), self._now)
        tpm = SoftwareTpm(ek, certificate, logs.boot.pcrs, ak_attributes=attributes)
        return FleetNode(tpm, logs)

    async def run(self, work: Callable[[], T]) -> T:
        """At once: a signature takes less time than a thread."""
        return work()
