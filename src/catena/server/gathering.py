"""Requests of one kind that arrive while others are decided, and are decided together then.

Nobody waits for company: a request that finds nothing under way is decided at once, and alone. What
arrives meanwhile waits for that, as it would for the log and the database anyway, and then shares one
wait for the disk. So the more load there is, the less a request costs.

Only the wait for its group to begin is bounded: what has begun is never given up, for it may take effect.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar, cast

import anyio.to_thread
from anyio import CapacityLimiter

from catena.server.faults import Busy

MOST = 64
"""Requests that are decided together: more would make the first wait for the last."""

A = TypeVar("A")
R = TypeVar("R")
_Waiting = tuple[A, asyncio.Future[R], asyncio.TimerHandle | None]


@dataclass(slots=True)
class Gathering(Generic[A, R]):
    """Decides requests together in a worker thread. Used from the event loop only.

    ``decide`` gives each request's result or its exception, in their order. At most ``at_once``
    groups are decided at the same time: while one waits for the disk another may use the processor.
    """

    decide: Callable[[Sequence[A]], Sequence[R | Exception]]
    workers: CapacityLimiter
    at_once: int = 1
    most: int = MOST
    patience: float = math.inf
    """Seconds that a request waits for its group to begin."""
    _waiting: deque[_Waiting[A, R]] = field(default_factory=deque, init=False)
    _under_way: set[asyncio.Task[None]] = field(default_factory=set, init=False)
    _threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(math.inf), init=False)
    """As many as ``workers`` has let through."""

    async def __call__(self, request: A) -> R:
        """The request's result. Raises its exception, or ``Busy`` if it is not begun with in time."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        timer = None
        if self.patience < math.inf:
            timer = loop.call_later(self.patience, _give_up, future)
        self._waiting.append((request, future, timer))
        if len(self._under_way) < self.at_once:
            self._under_way.add(asyncio.create_task(self._work()))
        try:
            return await future
        finally:
            del future  # an exception's traceback has this frame: the two must not hold each other

    async def _work(self) -> None:
        """Decide until nothing waits. Who is decided about is settled once a worker is free."""
        try:
            while self._waiting:
                async with self.workers:
                    group = self._next_group()
                    if group:
                        await self._together(group)
        finally:
            # In the same step as the last look: a task that is counted and looks no more serves nobody.
            self._under_way.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    def _next_group(self) -> list[tuple[A, asyncio.Future[R]]]:
        """Those that begin now; whoever has gone, or waited too long, is not decided about."""
        group = []
        for _ in range(min(self.most, len(self._waiting))):
            request, future, timer = self._waiting.popleft()
            if timer is not None:
                timer.cancel()
            if not future.done():
                group.append((request, future))
        return group

    async def _together(self, group: Sequence[tuple[A, asyncio.Future[R]]]) -> None:
        requests = [request for request, _ in group]
        try:
            outcomes = await anyio.to_thread.run_sync(self.decide, requests, limiter=self._threads)
        except Exception as error:  # noqa: BLE001 - told to everybody whom it concerns
            outcomes = [error] * len(group)
        for (_, future), outcome in zip(group, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)


def _give_up(future: asyncio.Future[R]) -> None:
    if not future.done():
        future.set_exception(Busy("no worker became free in time"))
