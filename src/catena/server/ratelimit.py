"""Rates that a client may not exceed: token buckets, as many as fit a bounded memory.

Two kinds of client are counted. An *address* (IPv6: its first 64 bits, which one customer has) is
charged for every request before anything of it is read. A *node* is charged for an attestation that
its TPM signed, and only then: whoever merely names a node cannot use up what is its own.

A bucket holds ``burst`` tokens and gains ``per_second``. When there are too many buckets the one that
was not used for the longest time is forgotten: it would be nearly full, so its client gains little.
"""

from __future__ import annotations

import ipaddress
import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from catena.errors import CatenaError
from catena.server.config import Config
from catena.server.faults import RateLimited

MOST = 65_536
"""Buckets of one kind: some 15 MB at most."""
ADDRESS_SECONDS = 5
"""How long an address may ask at twice its rate before it is told to wait, beginning with nothing asked."""
NODE_BURST = 10
NODE_SHARE = 2
"""A node may always attest this many times in an interval, whatever ``rate_node`` says."""
UNCOUNTED = frozenset({"/healthz", "/readyz"})


@dataclass(frozen=True, slots=True)
class Rate:
    """Tokens gained in a second, and how many there may be."""

    per_second: float
    burst: float


class Buckets:
    """One bucket for each key. Safe to share between threads; ``clock`` gives seconds."""

    def __init__(self, rate: Rate, clock: Callable[[], float], most: int = MOST) -> None:
        self._rate = rate
        self._clock = clock
        self._most = most
        self._lock = threading.Lock()
        self._found: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._found)

    def take(self, key: str) -> None:
        """Take one token. Raises ``RateLimited``, and then takes none."""
        with self._lock:
            self._require(key)
            self._charge(key)

    def require(self, key: str) -> None:
        """See that there is a token. Raises ``RateLimited``."""
        with self._lock:
            self._require(key)

    def charge(self, key: str) -> None:
        """Take a token if there is one."""
        with self._lock:
            self._charge(key)

    def _require(self, key: str) -> None:
        tokens = self._tokens(key)
        if tokens < 1:
            raise RateLimited(math.ceil((1 - tokens) / self._rate.per_second))

    def _charge(self, key: str) -> None:
        self._found[key] = (max(self._tokens(key) - 1, 0), self._clock())
        self._found.move_to_end(key)
        if len(self._found) > self._most:
            self._found.popitem(last=False)

    def _tokens(self, key: str) -> float:
        held = self._found.get(key)
        if held is None:
            return self._rate.burst
        tokens, at = held
        gained = max(self._clock() - at, 0) * self._rate.per_second
        return min(tokens + gained, self._rate.burst)


def of_addresses(config: Config, clock: Callable[[], float]) -> Buckets | None:
    """The buckets of addresses; None if there is no limit."""
    rate = config.rate_address
    return Buckets(Rate(rate, rate * ADDRESS_SECONDS), clock) if rate else None


def of_nodes(config: Config, clock: Callable[[], float]) -> Buckets | None:
    """The buckets of nodes; None if there is no limit."""
    if not config.rate_node:
        return None
    per_second = max(config.rate_node / 60, NODE_SHARE / config.interval)
    return Buckets(Rate(per_second, NODE_BURST), clock)


def address_key(host: str) -> str:
    """Who an address belongs to: itself, or the network of an IPv6 address (RFC 6177: a /64 at least)."""
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return address.packed[:8].hex()


class AddressLimit:
    """ASGI middleware: the limit of addresses, before a request is looked at."""

    def __init__(
        self,
        app: ASGIApp,
        buckets: Buckets,
        refuse: Callable[[Request, CatenaError], Response],
    ) -> None:
        self._app = app
        self._buckets = buckets
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it."""
        client = scope.get("client")
        if scope["type"] == "http" and client and scope["path"] not in UNCOUNTED:
            try:
                self._buckets.take(address_key(client[0]))
            except RateLimited as error:
                answer = self._refuse(Request(scope), error)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)
