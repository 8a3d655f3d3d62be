"""CPU time of one attestation on the server, beside what no server can do without.

Measured: from request body to response body (decode, all steps of TRUST, certificate, one
sealed secret, audit append and database commit on real files, encode), on one core, with real
quotes of a software TPM about a real boot. The quotes are made beforehand, so the TPM's and the
node's time is not in the figures.

    python benchmarks/attestation.py [-o json] [--rounds N] [--profile]

Needs swtpm and the corpus of real boots beside the project's folder.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from appraise.forged import corpus_boot
from catena.evidence import Evidence
from catena.formats import nodeapi
from catena.keys import hierarchy
from catena.server.app import build_app
from catena.tpm.device import open_tpm
from service.fixtures import Server, make_server, put_secret
from service.machine import Machine
from swtpm import software_tpm

BOOT = "B_sb_own_uki"
PAGE = bytes(4096)


class Cost(msgspec.Struct, frozen=True):
    """Milliseconds per call."""

    cpu_ms: float
    wall_ms: float


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of one run. ``signature_share`` is the part of ``inline`` CPU spent on
    verifying the two P-256 signatures of an attestation (quote and request).
    """

    quotes: str = "swtpm"
    rounds: int
    boot_log_bytes: int
    ima_log_bytes: int
    request_bytes: int
    inline: Cost
    in_worker_thread: Cost
    bare_limit: Cost
    p256_verify_ms: float
    signature_share: float
    log_entries_per_attestation: int
    idle_server_rss_mb: float


def measure(rounds: int, work: Callable[[int], object]) -> Cost:
    """Mean cost of ``work(i)`` over all rounds."""
    cpu, wall = time.process_time(), time.perf_counter()
    for index in range(rounds):
        work(index)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Cost(round(cpu / rounds * 1000, 3), round(wall / rounds * 1000, 3))


def prepared(server: Server, machine: Machine, rounds: int) -> list[bytes]:
    """Request bodies of a node in its steady state: the server holds the boot log."""
    boot_log = machine.evidence(bytes(56)).manifest[0].sha256
    bodies = []
    for _ in range(rounds):
        evidence = machine.evidence(machine.nonce(server.call))
        logs = {digest: log for digest, log in evidence.logs.items() if digest != boot_log}
        bodies.append(msgspec.json.encode(msgspec.structs.replace(evidence, logs=logs)))
    return bodies


def attest(server: Server, body: bytes) -> bytes:
    """What a route does, without HTTP."""
    result = server.service.attestation.attest(nodeapi.decode(body, Evidence))
    if result.certificate is None or len(result.secrets) != 1:
        raise SystemExit(f"not admitted: {result.reasons}")
    return msgspec.json.encode(result)


async def post(app: Callable[..., object], body: bytes) -> None:
    """One request through the ASGI application."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/attest",
        "raw_path": b"/v1/attest",
        "query_string": b"",
        "root_path": "",
        "scheme": "https",
        "headers": [(b"content-length", str(len(body)).encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    statuses: list[int] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, object]) -> None:
        statuses.append(message.get("status", 200))

    await app(scope, receive, send)
    if set(statuses) != {200}:
        raise SystemExit(f"refused: {statuses}")


def through_app(server: Server, bodies: list[bytes]) -> Cost:
    """The same with routing, body limits, worker thread and access log."""
    app = build_app(server.service, server.opened.config, lambda _: None)
    with asyncio.Runner() as runner:
        runner.run(post(app, bodies[0]))
        return measure(len(bodies) - 1, lambda index: runner.run(post(app, bodies[index + 1])))


def bare_limit(folder: Path, rounds: int) -> tuple[Cost, float]:
    """One P-256 verification and one durable page: what any such server pays."""
    key = ec.generate_private_key(ec.SECP256R1())
    public, message = key.public_key(), os.urandom(200)
    signature = key.sign(message, ec.ECDSA(hashes.SHA256()))

    def verify(_: int) -> None:
        public.verify(signature, message, ec.ECDSA(hashes.SHA256()))

    with (folder / "bare").open("wb", buffering=0) as file:

        def both(index: int) -> None:
            verify(index)
            file.write(PAGE)
            os.fsync(file.fileno())

        return measure(rounds, both), measure(rounds, verify).cpu_ms


def idle_memory(folder: Path) -> float:
    """Resident megabytes of ``catena server run`` after its start."""
    command = [sys.executable, "-m", "catena.cli.main", "server", "run", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        process.stdout.readline()
        time.sleep(0.5)
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        process.terminate()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return round(int(line.split()[1]) / 1024, 1)


def run(folder: Path, rounds: int, *, profile: bool) -> Result:
    """Set everything up and measure it."""
    keys = hierarchy.init(folder / "keys", organisation="Bench", now=datetime.now(UTC))
    boot = corpus_boot(BOOT)
    with software_tpm(folder / "tpm") as tpm, open_tpm(tpm.tcti) as opened:
        roots = tuple(f"software={path}" for path in tpm.root_ca_pem_paths)
        server = make_server(folder / "server", keys, roots)
        machine = Machine(opened, boot)
        machine.measure()
        server.import_references(boot)
        put_secret(server.service, "db-password", "web")
        server.admit(machine)
        machine.attest(server.call)
        for body in prepared(server, machine, 10):
            attest(server, body)
        bodies = prepared(server, machine, rounds)
        profiler = cProfile.Profile()
        if profile:
            profiler.enable()
        inline = measure(rounds, lambda index: attest(server, bodies[index]))
        if profile:
            profiler.disable()
            pstats.Stats(profiler, stream=sys.stderr).sort_stats("cumulative").print_stats(70)
        threaded = through_app(server, prepared(server, machine, rounds))
    server.opened.close()
    bare, verify = bare_limit(folder, rounds)
    return Result(
        rounds=rounds,
        boot_log_bytes=len(boot.log),
        ima_log_bytes=len(boot.ima or b""),
        request_bytes=len(bodies[0]),
        inline=inline,
        in_worker_thread=threaded,
        bare_limit=bare,
        p256_verify_ms=verify,
        signature_share=round(2 * verify / inline.cpu_ms, 3),
        log_entries_per_attestation=3,
        idle_server_rss_mb=idle_memory(server.folder),
    )


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--profile", action="store_true", help="where the time goes, on stderr")
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder), options.rounds, profile=options.profile)
    if options.output == "json":
        print(msgspec.json.format(msgspec.json.encode(result), indent=2).decode())
        return
    for name, value in msgspec.to_builtins(result).items():
        print(f"{name:<28} {value}")


if __name__ == "__main__":
    main()
