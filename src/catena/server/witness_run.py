"""Running a witness: one process, one listening socket, a clean end (as ``server.run``)."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from catena.server.limits import bounded_protocol
from catena.server.run import GRACE_SECONDS, StoppableServer
from catena.server.witness import WitnessDoor
from catena.server.witness_folder import OpenWitness


def serve(opened: OpenWitness, door: socket.socket, announce: Callable[[str], None]) -> None:
    """Answer requests until a signal says stop; ``announce`` takes the URL."""
    config, context = opened.config, opened.tls
    endpoint = WitnessDoor(opened.witness, workers=config.workers, body_timeout=config.body_timeout)
    uvicorn_config = uvicorn.Config(
        endpoint.app(),
        loop="uvloop",
        http=bounded_protocol(config.idle_timeout),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=config.max_connections,
        timeout_keep_alive=config.idle_timeout,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ssl_context_factory=None if context is None else lambda _config, _default: context,
    )
    host, port = door.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    scheme = "http" if context is None else "https"
    server = StoppableServer(uvicorn_config, lambda: announce(f"{scheme}://{shown}:{port}"))
    server.run_until_stopped(door)
