"""Running a witness: one process, one listening socket, a clean end (as ``server.run``)."""

from __future__ import annotations

import socket
from collections.abc import Callable

from catena.server.run import StoppableServer, bounded
from catena.server.witness import WitnessDoor
from catena.server.witness_folder import OpenWitness


def serve(opened: OpenWitness, door: socket.socket, announce: Callable[[str], None]) -> None:
    """Answer requests until a signal says stop; ``announce`` takes the URL."""
    config, context = opened.config, opened.tls
    endpoint = WitnessDoor(opened.witness, workers=config.workers, body_timeout=config.body_timeout)
    uvicorn_config = bounded(
        endpoint.app(),
        context,
        idle_timeout=config.idle_timeout,
        max_connections=config.max_connections,
    )
    host, port = door.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    scheme = "http" if context is None else "https"
    server = StoppableServer(uvicorn_config, lambda: announce(f"{scheme}://{shown}:{port}"))
    server.run_until_stopped(door)
