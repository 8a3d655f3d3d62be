"""The trust service that is driven: one made for the occasion, in a folder of its own.

Everything is done with the commands that a person would type. Its processes are watched from outside:
CPU time, memory and open files as the kernel counts them.
"""

from __future__ import annotations

import contextlib
import os
import re
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding

from catena.errors import Unavailable
from catena.formats.dsse import Statement
from catena.keys.envelope import seal
from catena.keys.signer import load_signer
from catena.lab.fleet.boots import RecordedBoot
from catena.lab.fleet.softtpm import SoftwareMaker
from catena.lab.fleet.wire import Target
from catena.lab.operator import Operator
from catena.lab.process import Child, catena_command

TRUST_DOMAIN = "fleet.catena.internal"
ANNOUNCED = re.compile(r"catena trust service at (https://\S+),")
_START_SECONDS = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")


class ServiceSilent(Unavailable):
    """A server that does not say where it listens."""

    code = "service-silent"
    remedy = "Run `catena server run` on the folder by hand, and see what it says."


_RATES = re.compile(r"(?m)^(rate_address|rate_node) = \d+$")


@dataclass(frozen=True, slots=True)
class Used:
    """What processes have used so far: CPU seconds, resident MB and open files of the largest."""

    cpu: float
    rss_mb: float
    files: int


@dataclass(frozen=True, slots=True)
class Service:
    """One or more servers of one folder; ``pids`` is empty for a server that is not ours."""

    target: Target
    pids: tuple[int, ...]

    def used(self) -> Used:
        """As of now."""
        cpu = sum(map(_cpu, self.pids))
        rss = max((_rss(pid) for pid in self.pids), default=0.0)
        return Used(cpu, rss, max((_files(pid) for pid in self.pids), default=0))


@dataclass(frozen=True, slots=True)
class Wanted:
    """How the service is to be made; ``database`` and ``log`` as ``catena server init`` takes them."""

    boots: Sequence[RecordedBoot]
    maker: SoftwareMaker
    database: str = "sqlite:///catena.db"
    log: str = "log"
    servers: int = 1


def make(folder: Path, wanted: Wanted) -> None:
    """Keys, server and references, in an empty folder; the mode is ``open``: nobody is asked."""
    keys, server = folder / "keys", folder / "server"
    operator = Operator(server / "admin.toml")
    operator.run("keys", "init", keys, "--organisation", "catena lab fleet")
    root = folder / "software-maker.pem"
    root.write_bytes(wanted.maker.certificate.public_bytes(Encoding.PEM))
    made = operator.run(
        *("server", "init", server, "--keys", keys, "--listen", "127.0.0.1:0", "--mode", "open"),
        *("--trust-domain", TRUST_DOMAIN, "--ek-roots", f"software={root}"),
        *("--database", wanted.database, "--log", wanted.log),
    )
    _lift_limits(server / "server.toml")
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(made["admin_token"])
    _write_references(folder, keys / "release.key", wanted.boots)


def _lift_limits(settings: Path) -> None:
    """All nodes ask from one address, and more often than any node would."""
    text = settings.read_text(encoding="utf-8")
    settings.write_text(_RATES.sub(r"\1 = 0", text), encoding="utf-8")


def _write_references(folder: Path, key: Path, boots: Sequence[RecordedBoot]) -> None:
    place = folder / "references"
    place.mkdir()
    for number, envelope in enumerate(references(key, boots)):
        (place / f"{number:04d}.dsse.json").write_bytes(envelope)


def references(key: Path, boots: Sequence[RecordedBoot]) -> Iterator[bytes]:
    """What the boots may measure, each document once, in an envelope signed with the key in a file."""
    signer = load_signer(key)
    documents = dict.fromkeys(document for boot in boots for document in boot.documents())
    for kind, predicate in documents:
        statement = Statement(subject=(), predicate_type=kind, predicate=msgspec.Raw(predicate))
        yield seal(signer, statement).encode()


@contextlib.contextmanager
def running(folder: Path, servers: int) -> Iterator[Service]:
    """The servers of a folder that ``make`` made, with its references imported."""
    with ExitStack() as stack:
        children, urls = [], []
        for number in range(servers):
            log = folder / f"server-{number}.out"
            log.write_bytes(b"")
            command = catena_command("server", "run", folder / "server", "--listen", "127.0.0.1:0")
            child = stack.enter_context(Child(f"server {number}", command, log=log))
            children.append(child)
            urls.append(_announced(child))
        _import(folder, urls[0])
        context = ssl.create_default_context(cafile=str(folder / "server/ca.crt"))
        yield Service(Target(tuple(urls), context), tuple(child.pid for child in children))


def _announced(child: Child) -> str:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        child.check()
        found = ANNOUNCED.search(child.log.read_text(errors="replace"))
        if found:
            return found[1]
        time.sleep(0.05)
    raise ServiceSilent("the server does not say where it listens")


def _import(folder: Path, url: str) -> None:
    server = folder / "server"
    operator = Operator(server / "admin.toml")
    access = ("--server", url, "--ca", server / "ca.crt", "--token-file", folder / "token")
    for path in sorted((folder / "references").iterdir()):
        operator.run("reference", "import", path, *access)


def _cpu(pid: int) -> float:
    """User and system time in seconds (proc(5), /proc/PID/stat, fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _rss(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1_000_000


def _files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - counted, not walked
