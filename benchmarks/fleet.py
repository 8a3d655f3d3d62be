"""A fleet's attestations on the real server, over TLS, with SQLite and with PostgreSQL.

Nodes have software keys (``catena.lab.fleet``); those that attest are enrolled by the real API. The rows
of the other known nodes are written straight into the database: they only have to be there. CPU is
what the kernel counts for the server's processes, by the honest attestation; the load generator is a
process of its own, on the same cores, and its CPU is given beside it. "bare" are the signatures alone:
two P-256 verified, one P-256 and two Ed25519 made.

    python benchmarks/fleet.py [-o json] [--seconds N] [--known N] [--database sqlite|postgresql]

Needs the corpus beside the project's folder, and PostgreSQL for its half.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from sqlalchemy import insert

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from appraise.forged import CORPUS
from catena.appraise.policy import default_policy_text
from catena.evidence import Evidence
from catena.formats import nodeapi
from catena.formats.policies import PolicyDocument
from catena.keys import hierarchy
from catena.keys.documents import seal_document
from catena.keys.signer import load_signer
from catena.lab.fleet import service
from catena.lab.fleet.boots import RecordedBoot, recorded_boots
from catena.lab.fleet.driving import Fleet
from catena.lab.fleet.load import Plan
from catena.lab.fleet.node import BootLogs, FleetNode
from catena.lab.fleet.service import Wanted
from catena.lab.fleet.simulation import FleetReport, simulate
from catena.lab.fleet.softtpm import SoftwareMaker, SoftwareTpm, endorsement_keys, utc_now
from catena.lab.fleet.source import SoftwareKeys
from catena.server.folder import database_url
from catena.service.memory import Memory
from catena.store import schema
from catena.store.database import Database
from figures import Figure, Result, cheapest, milliseconds, show
from postgres import PostgreSQL
from recorded import record_boots
from service.fixtures import make_server

TARGET_RATE = 1700
LARGE_LOG = "intel-secl+intel-secl__pkg__tagent__test__eventlog__uefi_event_log.bin"
"""The largest in the corpus with a bank that may be quoted; that machine had Secure Boot off."""
FEW, MANY = 100, 1000
"""Nodes that attest, in a small and in a large fleet."""


@dataclass(frozen=True)
class Options:
    """How long, and among how many known nodes."""

    seconds: float
    known: int
    connections: int


def signatures() -> float:
    """CPU seconds of what no server can do without."""
    key, log = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
    public, message, algorithm = key.public_key(), os.urandom(300), ec.ECDSA(hashes.SHA256())
    signature = key.sign(message, algorithm)

    def hundred() -> None:
        for _ in range(100):
            public.verify(signature, message, algorithm)
            public.verify(signature, message, algorithm)
            key.sign(message, algorithm)
            log.sign(message)
            log.sign(message)

    return cheapest(5, hundred) / 100


def add_known(folder: Path, url: str, count: int) -> None:
    """Rows of nodes that never attest here, written past every check."""
    database = Database.open(database_url(folder / "server", url))
    now = datetime.now(UTC)
    key = os.urandom(120)
    with database._engine.begin() as connection:
        for start in range(0, count, 5000):
            rows = [
                {
                    "id": f"{number:064x}",
                    "name": f"row-{number}",
                    "role": "node",
                    "state": "trusted",
                    "state_reason": "",
                    "ek_public": key * 3,
                    "ak_public": key,
                    "ek_root": "software:row",
                    "mode": "open",
                    "enrolled_at": now,
                    "approved_at": now,
                    "readmitted": False,
                    "reset_count": 1,
                    "restart_count": 0,
                    "clock": number,
                    "last_attested": now,
                    "last_verdict": "trusted",
                }
                for number in range(start, min(start + 5000, count))
            ]
            connection.execute(insert(schema.nodes), rows)
    database.close()


def quiet(phase: str, done: float, total: float) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class Place:
    """One kind of database."""

    name: str
    url: str
    log: str
    servers: int


def places(wanted: str | None, stack: ExitStack) -> Iterator[Place]:
    """SQLite with one process; PostgreSQL with two that share database and log."""
    if wanted in {None, "sqlite"}:
        yield Place("SQLite", "sqlite:///catena.db", "log", 1)
    if wanted in {None, "postgresql"}:
        cluster = PostgreSQL()
        stack.callback(cluster.close)
        for _ in range(2):
            yield Place("PostgreSQL", cluster.new_database(), "database:", 2)


def driven(
    place: Place, known: int, options: Options, boots: tuple[RecordedBoot, ...]
) -> tuple[FleetReport, FleetReport]:
    """A fleet at 100 % of what goes, then at 80 %."""
    nodes = MANY if known else FEW
    maker = SoftwareMaker.make(utc_now())
    fleet = Fleet(nodes, SoftwareKeys(boots, maker), options.connections)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        service.make(folder, Wanted(boots, maker, place.url, place.log, place.servers))
        add_known(folder, place.url, known)
        with service.running(folder, place.servers) as made:
            full = held(simulate(fleet, made, Plan(options.seconds), quiet))
            if not known:
                return full, full
            calm = Plan(options.seconds, rate=0.8 * full.rate)
            return full, held(simulate(fleet, made, calm, quiet))


def held(report: FleetReport) -> FleetReport:
    """A run in which anything went wrong measures nothing."""
    if not report.holds:
        sys.exit(f"wrong answers: {report.wrong} {report.examples}")
    return report


def of_place(place: Place, reports: tuple[FleetReport, ...], bare: float) -> Iterator[Figure]:
    """Its figures: few known nodes, many at full load, many at 80 %."""
    few, full, calm = reports
    name = f"{place.name}, {place.servers} process{'es' if place.servers > 1 else ''}"
    assert few.server_cpu_ms
    assert full.server_cpu_ms
    assert full.server_cpu_busy
    yield milliseconds(f"{name}: server CPU", full.server_cpu_ms / 1000, 0.9, bare)
    yield Figure(
        name=f"{name}: cores for {TARGET_RATE}/s (computed)",
        value=round(full.server_cpu_ms * TARGET_RATE / 1000, 2),
        unit="cores",
        limit=2,
    )
    yield Figure(name=f"{name}: rate, generator beside it", value=full.rate, unit="/s")
    yield Figure(name=f"{name}: cores the server had", value=full.server_cpu_busy, unit="cores")
    yield milliseconds(f"{name}: generator CPU", full.generator_cpu_ms / 1000)
    yield Figure(name=f"{name}: p50 at 80 %", value=calm.latency.p50, unit="ms")
    yield Figure(name=f"{name}: p99 at 80 %", value=calm.latency.p99, unit="ms", limit=250)
    memory = calm.rss_after_mb
    yield Figure(name=f"{name}: memory", value=memory, unit="MB", limit=400)
    ratio = round(full.server_cpu_ms / few.server_cpu_ms, 2)
    yield Figure(name=f"{name}: cost, many nodes to few", value=ratio, unit="x", limit=1.3)


def first_attestations(folder: Path, rounds: int) -> Figure:
    """CPU of a trusted attestation with a whole 65 KB log of a boot that was never seen, in process."""
    log = (CORPUS / "eventlogs" / LARGE_LOG).read_bytes()
    place = folder / "large" / "large"
    place.mkdir(parents=True)
    (place / "eventlog.bin").write_bytes(log)
    [boot] = recorded_boots(folder / "large")
    maker, now = SoftwareMaker.make(utc_now()), utc_now()
    root = folder / "maker.pem"
    root.write_bytes(maker.certificate.public_bytes(service.Encoding.PEM))
    keys = hierarchy.init(folder / "keys", organisation="Bench", now=now)
    server = make_server(
        folder / "server",
        keys,
        (f"software={root}",),
        mode="open",
        rate_address=0,
        rate_node=0,
        log_publish_ms=200,
    )
    verbs, best = server.service, float("inf")
    release = folder / "keys" / "release.key"
    for envelope in service.references(release, [boot]):
        verbs.references.accept(envelope, "benchmark")
    text = re.sub(r"(?m)^\[(secure-boot|user-mode)\].*\n.*\n", "", default_policy_text())
    policy = PolicyDocument(name="no-secure-boot", version=1, text=text)
    verbs.policies.apply(seal_document(policy, (), load_signer(release)), "benchmark")
    for _, ek in zip(range(rounds), endorsement_keys(), strict=False):
        tpm = SoftwareTpm(ek, maker.endorse(ek.public_key(), now), boot.pcrs)
        node = FleetNode(tpm, BootLogs.of(boot))
        challenge = verbs.enrolment.begin(tpm.enrolment())
        node.node_id = challenge.node_id
        verbs.enrolment.finish(tpm.activate(challenge))
        nonce = verbs.attestation.nonce(nodeapi.NonceRequest(node_id=node.node_id)).nonce
        body = msgspec.json.encode(node.evidence(nonce, whole=True))
        verbs.attestation._memory = Memory()
        start = time.process_time()
        result = verbs.attestation.attest(nodeapi.decode(body, Evidence))
        msgspec.json.encode(result)
        best = min(best, time.process_time() - start)
        if result.verdict != "trusted":
            sys.exit(f"a first attestation was refused: {result.reasons}")
    server.opened.close()
    return milliseconds(f"first attestation, {len(log) // 1000} KB log", best, 4)


def figures(options: Options, wanted: str | None) -> Iterator[Figure]:
    """All of them."""
    bare = signatures()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        boots = recorded_boots(record_boots(folder / "boots"))
        yield first_attestations(folder, 20)
        found: dict[str, list[Place]] = {}
        for place in places(wanted, stack):
            found.setdefault(place.name, []).append(place)
        for here in found.values():
            few, _ = driven(here[0], 0, options, boots)
            full, calm = driven(here[-1], options.known, options, boots)
            yield from of_place(here[0], (few, full, calm), bare)


def main() -> None:
    """Parse the command line, measure, print; exit with 1 if a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--seconds", type=float, default=10, help="of each load")
    parser.add_argument("--known", type=int, default=100_000, help="rows of other nodes")
    parser.add_argument("--connections", type=int, default=96)
    parser.add_argument("--database", choices=("sqlite", "postgresql"))
    given = parser.parse_args()
    options = Options(given.seconds, given.known, given.connections)
    result = Result(tuple(figures(options, given.database)))
    if given.output == "json":
        print(msgspec.json.format(msgspec.json.encode(result), indent=2).decode())
    else:
        show(result)
    sys.exit(not all(one.holds for one in result.figures))


if __name__ == "__main__":
    main()
