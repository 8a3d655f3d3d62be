"""Running the server: one process, one listening socket, a clean end.

``SIGTERM`` and ``SIGINT`` stop accepting, let running requests finish, and return.
"""

from __future__ import annotations

import errno
import signal
import socket
import ssl
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from catena.errors import Unavailable
from catena.server.app import build_app
from catena.server.config import split_address
from catena.server.feed import Feed
from catena.server.folder import OpenServer
from catena.server.limits import bounded_protocol
from catena.service.keys import note_keys

GRACE_SECONDS = 10
BACKLOG = 512


class AddressInUse(Unavailable):
    """Another process listens on this address."""

    code = "address-in-use"
    remedy = "Stop the other process, or choose another address with --listen."


class AddressUnusable(Unavailable):
    """An address that this machine cannot listen on."""

    code = "address-unusable"
    remedy = "Give an address of this machine, and a port above 1023 unless you are root."


def listen(address: str) -> socket.socket:
    """A listening socket. Raises ``AddressInUse``, ``AddressUnusable`` or ``BadConfig``."""
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse("the address is in use", got=address) from error
        raise AddressUnusable(f"cannot listen: {error.strerror}", got=address) from error


def serve(server: OpenServer, door: socket.socket, announce: Callable[[str, str], None]) -> None:
    """Answer requests until a signal says stop; ``announce`` takes URL and mode."""
    config = server.config
    feed = Feed(
        server.log.reader,
        server.service.setting.journal.public_key,
        config.log_origin,
        config.max_listeners,
    )
    server.service.setting.journal.on_append(feed.wake)
    uvicorn_config = bounded(
        build_app(
            server.service,
            config,
            collector=server.collector,
            exporters=server.exporters,
            log=server.log.reader,
            people=server.people,
            feed=feed,
        ),
        server.tls.context(),
        idle_timeout=config.idle_timeout,
        max_connections=config.max_connections,
    )
    server_loop = StoppableServer(
        uvicorn_config, lambda: announce(_url(config.names[0], door), config.mode), feed.stop
    )
    note_keys(server.service.setting)
    if server.collector is not None:
        server.collector.start()
    if server.exporters is not None:
        server.exporters.start()
    server_loop.run_until_stopped(door)


def bounded(
    app: ASGIApp, context: ssl.SSLContext | None, *, idle_timeout: int, max_connections: int
) -> uvicorn.Config:
    """How uvicorn serves ``app``: nothing of its own is told, and nothing is unbounded."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=bounded_protocol(idle_timeout),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=max_connections,
        timeout_keep_alive=idle_timeout,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ssl_context_factory=None if context is None else lambda _config, _default: context,
    )


class StoppableServer(uvicorn.Server):
    """uvicorn's server, which says when it is ready, and when it begins to end."""

    def __init__(
        self,
        config: uvicorn.Config,
        ready: Callable[[], None],
        ending: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._ready = ready
        self._ending = ending

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell those who would go on for ever, then let the others finish."""
        self._ending()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Announce once requests are answered."""
        await super().startup(sockets)
        self._ready()

    def run_until_stopped(self, door: socket.socket) -> None:
        """Answer requests until a signal says stop."""
        # uvicorn takes these signals over while it runs and raises them once more when it is done:
        # before and after, too, they mean nothing else than to stop.
        for stop in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stop, self.stop)
        self.run(sockets=[door])

    def stop(self, *_: object) -> None:
        """A signal's handler: finish running requests, then return."""
        self.should_exit = True


def _url(name: str, door: socket.socket) -> str:
    host = f"[{name}]" if ":" in name else name
    return f"https://{host}:{door.getsockname()[1]}"
