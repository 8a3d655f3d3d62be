"""Whether this server should be sent requests (``/readyz``): can it decide, and will it for a while?

Ready means: the database answers, the log has its turn, the policy in force can be used, and nobody
asked the server to stop. The answer is found by at most one look at a time and kept for a moment, so
that asking often costs nothing; it names parts and codes and never details.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import anyio
import anyio.to_thread
from anyio import CapacityLimiter

from catena.audit.log import TransparencyLog
from catena.errors import CatenaError
from catena.service.trust import TrustService

FRESH = 1.0
"""Seconds for which an answer is kept."""
PATIENCE = 5.0
"""Seconds after which a part that does not answer counts as failing."""

Probe = Callable[[], object]


class Failing(NamedTuple):
    """A part that cannot do its work, and its error's code."""

    part: str
    code: str


@dataclass(frozen=True, slots=True)
class ReadinessReport:
    """What was found."""

    failing: tuple[Failing, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Whether requests should come."""
        return not self.failing

    def __str__(self) -> str:
        """What fails, each with its code."""
        return ", ".join(f"{part}: {code}" for part, code in self.failing) or "ready"


DRAINING = ReadinessReport((Failing("server", "draining"),))


class Readiness:
    """Looks at the parts. ``look`` is for the event loop, ``drain`` for anybody."""

    def __init__(
        self, probes: Mapping[str, Probe], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._probes = probes
        self._clock = clock
        self._draining = False
        self._found: ReadinessReport | None = None
        self._found_at = 0.0
        self._lock = asyncio.Lock()
        self._thread = CapacityLimiter(1)  # not a worker's: they may all be busy with a slow disk

    def drain(self) -> None:
        """From now on this server is not ready, and never will be again."""
        self._draining = True

    async def look(self) -> ReadinessReport:
        """The answer of now, or of a moment ago."""
        async with self._lock:
            fresh = self._found is not None and self._clock() < self._found_at + FRESH
            if not fresh and not self._draining:
                self._found = await self._look()
                self._found_at = self._clock()
        return DRAINING if self._draining or self._found is None else self._found

    async def _look(self) -> ReadinessReport:
        failing = []
        for part, probe in self._probes.items():
            code = await self._try(probe)
            if code is not None:
                failing.append(Failing(part, code))
        return ReadinessReport(tuple(failing))

    async def _try(self, probe: Probe) -> str | None:
        """The code of what is wrong."""
        try:
            with anyio.fail_after(PATIENCE):
                await anyio.to_thread.run_sync(probe, limiter=self._thread, abandon_on_cancel=True)
        except TimeoutError:
            return "no-answer"
        except CatenaError as error:
            return error.code
        except Exception:  # noqa: BLE001 - a probe that breaks is a part that does not work
            return "internal"
        return None


def of_server(service: TrustService, log: TransparencyLog) -> Readiness:
    """The readiness of a whole server."""
    database = service.setting.database
    return Readiness(
        {"database": database.ping, "log": log.require_writable, "policy": service.policies.current}
    )
