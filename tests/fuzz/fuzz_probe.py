"""What a fuzzer drives, and what must hold for whatever a reader is given.

A *probe* gives one reader one input and checks what came back: nothing but the error that the
reader promises may come out, a ``FormatError`` points into its input, and what was read is
written back the same way. A *target* is the probes of one format; the first byte of an input
chooses among them, so that a fuzzer finds its way with one corpus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
from fuzz_seeds import corpus_seeds, made_seeds

from catena.errors import CatenaError, FormatError

LIMIT_SECONDS = 1.0
LIMIT_BYTES = 64 * 1024 * 1024
"""What one input below ``LIMIT_INPUT`` may cost: CPU time, and memory at its peak."""
LIMIT_INPUT = 1_000_000


@dataclass(frozen=True, slots=True)
class Probe:
    """``read`` on one input. ``name`` is ``module.function`` of what it covers."""

    name: str
    read: Callable[[bytes], object]
    allowed: type[CatenaError] = FormatError
    kinds: tuple[type[msgspec.Struct], ...] = ()
    """The structs that it reads from JSON: seeds and words are made from their fields."""

    def seeds(self) -> tuple[bytes, ...]:
        """Well-formed inputs made here."""
        return made_seeds(self.name, self.kinds)

    def __call__(self, data: bytes) -> bool:
        """True if ``data`` is accepted, False if it is refused as it should be."""
        try:
            self.read(data)
        except self.allowed as refused:
            if isinstance(refused, FormatError):
                check_offset(refused, len(data))
            check_words(refused)
            return False
        return True


@dataclass(frozen=True, slots=True)
class Target:
    """The probes of one format, and words that its inputs are made of."""

    name: str
    probes: tuple[Probe, ...]
    words: tuple[bytes, ...] = ()

    def __call__(self, data: bytes) -> None:
        """One fuzzed input: which probe, and what it is given."""
        if data:
            self.probes[data[0] % len(self.probes)](data[1:])

    def seeds(self) -> Iterator[bytes]:
        """Inputs to start from, the byte that chooses the probe in front."""
        for index, probe in enumerate(self.probes):
            for seed in (*probe.seeds(), *corpus_seeds(probe.name)):
                yield bytes((index,)) + seed


def check_offset(error: FormatError, size: int) -> None:
    assert 0 <= error.offset <= size, f"offset {error.offset} is outside"


def check_words(error: CatenaError) -> None:
    """An error is shown to people and sent as JSON: bounded, and encodable."""
    shown = msgspec.json.encode(error.as_dict())
    assert len(shown) < 4096, f"error of {len(shown)} bytes"
