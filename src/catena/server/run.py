"""Running the server: one process, one listening socket, a clean end.

``SIGTERM`` and ``SIGINT`` make ``/readyz`` say no, for a while change nothing else, then stop accepting,
let running requests finish, and return.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from catena.errors import Unavailable
from catena.server import notify
from catena.server.access import to_stderr
from catena.server.app import build_app
from catena.server.config import split_address
from catena.server.feed import Feed
from catena.server.folder import OpenServer
from catena.server.lifecycle import Lifecycle
from catena.server.limits import bounded_protocol
from catena.server.readiness import of_server
from catena.service.keys import note_keys

GRACE_SECONDS = 10
"""Of servers whose settings do not say."""
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
    config, readiness = server.config, of_server(server.service, server.log)
    feed = Feed(
        server.log.reader,
        server.service.setting.journal.public_key,
        config.log_origin,
        config.max_listeners,
    )
    server.log.on_publish(feed.wake)
    uvicorn_config = bounded(
        build_app(
            server.service,
            config,
            collector=server.collector,
            exporters=server.exporters,
            log=server.log.reader,
            people=server.people,
            feed=feed,
            readiness=readiness,
            metrics=server.metrics,
        ),
        server.tls.context(),
        idle_timeout=config.idle_timeout,
        max_connections=config.max_connections,
        grace=config.grace,
    )
    lifecycle = Lifecycle(to_stderr)
    url = _url(config.names[0], door)

    def ready() -> None:
        lifecycle.ready(url, config.mode)
        announce(url, config.mode)

    def drain(name: str) -> None:
        readiness.drain()
        lifecycle.draining(name, delay=config.drain_delay, grace=config.grace)

    server_loop = StoppableServer(
        uvicorn_config,
        ready,
        drain,
        feed.stop,
        delay=config.drain_delay,
        watchdog=notify.watchdog(os.environ, os.getpid()),
    )
    note_keys(server.service.setting)
    if server.collector is not None:
        server.collector.start()
    if server.exporters is not None:
        server.exporters.start()
    for rounds in server.rounds:
        rounds.start()
    with _metrics(server):
        server_loop.run_until_stopped(door)


def bounded(
    app: ASGIApp,
    context: ssl.SSLContext | None,
    *,
    idle_timeout: int,
    max_connections: int,
    grace: int = GRACE_SECONDS,
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
        timeout_graceful_shutdown=grace,
        ssl_context_factory=None if context is None else lambda _config, _default: context,
    )


@contextlib.contextmanager
def _metrics(server: OpenServer) -> Iterator[None]:
    """Metrics can be read while the block runs, if they are to be. Raises as ``listen``."""
    address = server.config.metrics_listen
    if server.metrics is None or address is None:
        yield
        return
    from catena.server.metrics import State  # noqa: PLC0415 - only where it is used
    from catena.server.metrics_door import MetricsDoor  # noqa: PLC0415 - as above

    server.metrics.watch(
        State(
            log=server.log,
            database=server.database,
            collector=server.collector,
            exporters=server.exporters,
        )
    )
    door = MetricsDoor(listen(address), server.metrics, to_stderr)
    try:
        yield
    finally:
        door.close()


class StoppableServer(uvicorn.Server):
    """uvicorn's server, which says when it is ready, and is given time to stop.

    The first signal begins to drain, ``delay`` seconds long; a second one ends that. Then nothing more
    is accepted, and running requests have uvicorn's own time to finish.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        ready: Callable[[], None],
        drain: Callable[[str], None] = lambda _: None,
        ending: Callable[[], None] = lambda: None,
        *,
        delay: float = 0,
        watchdog: float | None = None,
    ) -> None:
        super().__init__(config)
        self._ready = ready
        self._drain = drain
        self._ending = ending
        self._delay = delay
        self._watchdog = watchdog
        self._stop_at: float | None = None
        self._alive_at = 0.0

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell those who would go on for ever, then let the others finish."""
        self._ending()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Announce once requests are answered."""
        await super().startup(sockets)
        self._ready()
        notify.tell(notify.READY)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: tell the supervisor that the loop runs, and see whether to stop."""
        now = time.monotonic()
        watchdog = self._watchdog
        if watchdog is not None and now >= self._alive_at + watchdog / 3:
            notify.tell(notify.ALIVE)
            self._alive_at = now
        if self._stop_at is not None and now >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)

    def run_until_stopped(self, door: socket.socket) -> None:
        """Answer requests until a signal says stop."""
        # uvicorn takes these signals over while it runs and raises them once more when it is done:
        # before and after, too, they mean nothing else than to stop.
        for stop in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stop, self.stop)
        self.run(sockets=[door])

    def stop(self, *_: object) -> None:
        """A signal's handler while uvicorn does not run: finish running requests, then return."""
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal's handler while uvicorn runs."""
        if self._stop_at is not None:
            super().handle_exit(sig, frame)
            return
        self._stop_at = time.monotonic() + self._delay
        notify.tell(notify.STOPPING)
        self._drain(signal.Signals(sig).name)


def _url(name: str, door: socket.socket) -> str:
    host = f"[{name}]" if ":" in name else name
    return f"https://{host}:{door.getsockname()[1]}"
