"""An order to end that comes while an event loop runs: the loop would swallow what its handler raises.

Ctrl-C needs none of this: it cancels the work by itself.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")
_ORDERS = (signal.SIGTERM, signal.SIGHUP)


def run_until_told(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``work``; an order cancels it, and goes to whoever handles it once that is over."""
    handlers = {one: signal.getsignal(one) for one in _ORDERS if callable(signal.getsignal(one))}
    told: list[int] = []

    async def obedient() -> T:
        loop, working = asyncio.get_running_loop(), asyncio.ensure_future(work())

        def stop(number: int) -> None:
            told.append(number)
            working.cancel()

        for number in handlers:
            loop.add_signal_handler(number, stop, number)
        return await working

    try:
        return uvloop.run(obedient())
    except asyncio.CancelledError:
        _restore(handlers)
        if told:
            signal.raise_signal(told[0])
        raise
    finally:
        _restore(handlers)


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
