"""The daemon as a process: configuration, signals, standard output."""

from __future__ import annotations

import random
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from catena.agent import config
from catena.agent.daemon import Daemon
from catena.agent.events import json_lines


def serve(config_path: Path) -> None:
    """Attest now and on an interval until SIGTERM or SIGINT; one JSON line per event.

    Raises ``MissingConfig``, ``InvalidConfig`` and what ``Delivery.prepare`` refuses.
    """
    daemon = Daemon(
        config.load(config_path),
        emit=json_lines(sys.stdout, _now),
        now=_now,
        random=random.SystemRandom().random,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: daemon.stop.set())
    daemon.run()


def _now() -> datetime:
    return datetime.now(UTC)
