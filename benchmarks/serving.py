"""CPU time that the server's own bookkeeping adds to a request: access line, rate limit, metrics.

    python benchmarks/serving.py [-o json] [--rounds N]

An attestation is two requests (nonce, evidence), one append and four steps. The limits are a twentieth and a
tenth of the 0.9 ms that an attestation may cost.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace

from catena.server import access
from catena.server.metrics import Metrics
from catena.server.ratelimit import Buckets, Rate, address_key
from figures import Figure, cheapest, command, milliseconds

MANY = 10_000
SCOPE = {"endpoint": "attest", "method": "POST", "path": "/v1/attest", "client": ("192.0.2.1", 7)}
TRUSTED = SimpleNamespace(verdict="trusted")


def counted(metrics: Metrics) -> None:
    """What metrics do in one attestation."""
    for _ in range(MANY):
        metrics.request(SCOPE, 200, 0.001)
        metrics.request(SCOPE, 200, 0.001)
        metrics.verdict(TRUSTED)
        metrics.appended()
        for step in ("judge", "evidence", "log", "database"):
            metrics.step(step, 0.0005)


def limited(buckets: Buckets) -> None:
    """The address of two requests, and the node."""
    for _ in range(MANY):
        buckets.take(address_key("192.0.2.1"))
        buckets.take(address_key("2001:db8::1"))
        buckets.require("node")
        buckets.charge("node")


def written() -> None:
    """Two access lines, as text."""
    for _ in range(2 * MANY):
        access.write_line(lambda _: None, access._access_line(SCOPE, 200, 1.0))


def figures(rounds: int) -> Iterator[Figure]:
    """Everything, in one run."""
    metrics = Metrics()
    metrics._routes = {"attest": "/v1/attest"}
    buckets = Buckets(Rate(1e9, 1e9), time.monotonic)
    for name, work, limit in (
        ("metrics of an attestation", lambda: counted(metrics), 0.045),
        ("rate limits of an attestation", lambda: limited(buckets), 0.045),
        ("access lines of an attestation", written, 0.09),
    ):
        yield milliseconds(name, cheapest(rounds, work) / MANY, limit)
    yield milliseconds("reading all metrics once", cheapest(rounds, metrics.text), 20)


if __name__ == "__main__":
    command(__doc__, figures, rounds=5)
