"""Requests of one kind that arrive while others are decided, and are decided together then.

Nobody waits for company: a request that finds nothing under way is decided at once, and alone. What
arrives meanwhile waits for that, as it would for the log and the database anyway, and then shares one
wait for the disk. So the more load there is, the less a request costs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter

MOST = 64
"""Requests that are decided together: more would make the first wait for the last."""

A = TypeVar("A")
R = TypeVar("R")


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
    _waiting: deque[tuple[A, asyncio.Future[R]]] = field(default_factory=deque, init=False)
    _under_way: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    async def __call__(self, request: A) -> R:
        """The request's result. Raises its exception."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if len(self._under_way) < self.at_once:
            task = asyncio.create_task(self._work())
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        try:
            return await future
        finally:
            del future  # an exception's traceback has this frame: the two must not hold each other

    async def _work(self) -> None:
        """Decide until nothing waits."""
        while self._waiting:
            count = min(self.most, len(self._waiting))
            group = [self._waiting.popleft() for _ in range(count)]
            # Whoever has gone meanwhile is not decided about.
            group = [(request, future) for request, future in group if not future.done()]
            if group:
                await self._together(group)

    async def _together(self, group: Sequence[tuple[A, asyncio.Future[R]]]) -> None:
        requests = [request for request, _ in group]
        try:
            outcomes = await anyio.to_thread.run_sync(self.decide, requests, limiter=self.workers)
        except Exception as error:  # noqa: BLE001 - told to everybody whom it concerns
            outcomes = [error] * len(group)
        for (_, future), outcome in zip(group, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
