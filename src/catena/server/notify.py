"""The watchdog that systemd asks for (sd_watchdog_enabled(3)); ``agent.events.notify`` speaks to it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from catena.agent.events import notify

READY = "READY=1"
STOPPING = "STOPPING=1"
ALIVE = "WATCHDOG=1"


def watchdog(environment: Mapping[str, str], pid: int) -> float | None:
    """Seconds after which silence counts as death; None if nobody counts, or another process's."""
    microseconds = environment.get("WATCHDOG_USEC", "")
    meant = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
    return int(microseconds) / 1e6 if meant and microseconds.isdecimal() else None


def tell(state: str) -> None:
    """Send one state. A supervisor that cannot be reached is no failure of ours."""
    with contextlib.suppress(OSError):
        notify(state)
