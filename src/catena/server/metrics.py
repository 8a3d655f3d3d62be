"""What the server counts, for Prometheus. Named in the manual; a test holds the two together.

Labels are routes, states, codes and numbers: never a node's name or anything else that a client chose.
Counting happens where the work is done; what is only looked up (sizes, queues, lags) is asked for when
somebody reads. Only imported if `metrics_listen` is set.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as Family
from starlette.types import Scope

from catena import __version__
from catena.audit.log import TransparencyLog
from catena.formats.nodeapi import AttestResult
from catena.server.answer import Desk
from catena.server.cosigning import Collector
from catena.server.exporting import Exporters
from catena.store.database import Database
from catena.store.schema import SCHEMA_VERSION

NO_ROUTE = "none"
"""The route of requests that have none: unknown paths, and those refused before."""
RECOUNT = 15.0
"""Seconds for which the number of nodes is kept: counting them costs the database."""
_FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Metrics:
    """One server's counters, in a registry of their own. Safe to share between threads."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # when each series began: nobody asks
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "catena_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "catena_request_seconds",
            "Seconds from a request's head to its answer's end.",
            ("route",),
            buckets=_FAST,
            registry=self.registry,
        )
        self._refusals = Counter(
            "catena_refusals", "Requests refused, by code.", ("code",), registry=self.registry
        )
        self._verdicts = Counter(
            "catena_verdicts", "Attestations concluded.", ("verdict",), registry=self.registry
        )
        self._steps = Histogram(
            "catena_attestation_step_seconds",
            "Seconds of each step of an attestation.",
            ("step",),
            buckets=_FAST,
            registry=self.registry,
        )
        self._appends = Counter(
            "catena_log_appends", "Appends to the audit log.", registry=self.registry
        )
        build = Info("catena_build", "What runs.", registry=self.registry)
        build.info({"version": __version__, "schema": str(SCHEMA_VERSION)})
        ProcessCollector(registry=self.registry)
        self._routes: dict[object, str] = {}
        self._counted: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def know(self, routes: dict[object, str], desk: Desk) -> None:
        """The path of each endpoint, as it is written in the code, and who decides."""
        self._routes = routes
        self.registry.register(Queues(desk))

    def request(self, scope: Scope, status: int, seconds: float) -> None:
        """One answered request."""
        route = self._routes.get(scope.get("endpoint"), NO_ROUTE)
        method = scope["method"] if route != NO_ROUTE else NO_ROUTE
        counted = self._counted.get((method, route, status))
        if counted is None:  # finding the two costs more than counting
            counted = self._requests.labels(method, route, str(status)), self._seconds.labels(route)
            self._counted[method, route, status] = counted
        counted[0].inc()
        counted[1].observe(seconds)
        code = scope.get("catena.code")
        if code is not None:
            self._refusals.labels(code).inc()

    def verdict(self, result: AttestResult) -> None:
        """One concluded attestation."""
        self._verdicts.labels(result.verdict).inc()

    def step(self, name: str, seconds: float) -> None:
        """One step of an attestation."""
        self._steps.labels(name).observe(seconds)

    def appended(self) -> None:
        """One append to the log."""
        self._appends.inc()

    def watch(self, state: State) -> None:
        """Ask these when somebody reads."""
        self.registry.register(state)

    def text(self) -> bytes:
        """Everything, as Prometheus reads it (text format 0.0.4)."""
        return generate_latest(self.registry)


class Queues(Family):
    """What waits, and for what."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def describe(self) -> Iterator[Metric]:
        """As ``State``."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All families."""
        workers = self._desk.workers.statistics()
        yield GaugeMetricFamily(
            "catena_workers", "Threads that decide.", value=workers.total_tokens
        )
        yield GaugeMetricFamily(
            "catena_workers_busy", "Threads that are deciding.", value=workers.borrowed_tokens
        )
        yield GaugeMetricFamily(
            "catena_requests_waiting", "Requests that wait for one.", value=workers.tasks_waiting
        )
        yield GaugeMetricFamily(
            "catena_body_bytes", "Bytes of request bodies held.", value=self._desk.bodies.held
        )


class State(Family):
    """What is only looked up."""

    def __init__(
        self,
        *,
        log: TransparencyLog,
        database: Database,
        collector: Collector | None,
        exporters: Exporters | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._database = database
        self._collector = collector
        self._exporters = exporters
        self._clock = clock
        self._lock = threading.Lock()  # guards the two below
        self._nodes: dict[str, int] = {}
        self._counted_at: float | None = None

    def describe(self) -> Iterator[Metric]:
        """Nothing: registering must not ask the database."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All families, also those that have no samples here."""
        yield GaugeMetricFamily(
            "catena_log_entries", "Entries in the audit log.", value=self._log.size
        )
        yield from self._lags()
        pool = self._database.connections()
        connections = GaugeMetricFamily(
            "catena_database_connections", "Connections to the database.", labels=("state",)
        )
        connections.add_metric(("in_use",), pool.in_use)
        connections.add_metric(("idle",), pool.idle)
        yield connections
        nodes = GaugeMetricFamily("catena_nodes", "Nodes in each state.", labels=("state",))
        for state, count in sorted(self._count_nodes().items()):
            nodes.add_metric((state,), count)
        yield nodes

    def _lags(self) -> Iterator[Metric]:
        exports = GaugeMetricFamily(
            "catena_export_lag_entries",
            "Entries that a receiver has not got, by its number in `exports`.",
            labels=("export",),
        )
        reports = self._exporters.status().exports if self._exporters else ()
        for number, report in enumerate(reports):
            exports.add_metric((str(number),), self._log.size - (report.exported or 0))
        yield exports
        cosigning = GaugeMetricFamily(
            "catena_cosigning_lag_entries",
            "Entries beyond the newest checkpoint that has its quorum.",
            labels=(),
        )
        if self._collector is not None:
            lag = self._log.size - (self._collector.status().cosigned_size or 0)
            cosigning.add_metric((), max(lag, 0))
        yield cosigning

    def _count_nodes(self) -> dict[str, int]:
        with self._lock:
            now = self._clock()
            if self._counted_at is None or now >= self._counted_at + RECOUNT:
                with self._database.snapshot() as rows:
                    self._nodes = rows.nodes.count()
                self._counted_at = now
            return self._nodes
