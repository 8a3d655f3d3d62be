"""How long the steps of a verb take, told to whoever counts them."""

from __future__ import annotations

import time
from collections.abc import Callable

Observe = Callable[[str, float], None]
"""Takes a step's name and its seconds; must be quick and must not raise."""


def unobserved(step: str, seconds: float) -> None:
    """Nobody counts."""
    del step, seconds


class Stopwatch:
    """Laps, from when it is made."""

    __slots__ = ("_last", "_observe")

    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        self._last = time.perf_counter()

    def lap(self, step: str) -> None:
        """The step that ends now."""
        now = time.perf_counter()
        self._observe(step, now - self._last)
        self._last = now
