"""What ``catena lab fleet`` does: a service of its own or another's, a fleet, a report."""

from __future__ import annotations

import contextlib
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from catena.errors import UsageError
from catena.lab.fleet import service
from catena.lab.fleet.boots import RecordedBoot
from catena.lab.fleet.load import Plan
from catena.lab.fleet.service import Service, Wanted
from catena.lab.fleet.simulation import Fleet, FleetReport, Progress, simulate
from catena.lab.fleet.softtpm import SoftwareMaker, utc_now
from catena.lab.fleet.wire import Target

MAKER_KEY, MAKER_CERTIFICATE = "maker.key", "maker.pem"


class UnusableMaker(UsageError):
    """A folder that does not hold the authority of software keys."""

    code = "unusable-maker"
    remedy = "Give --maker a folder that is new, or one that `catena lab fleet` made."


@dataclass(frozen=True, slots=True)
class Own:
    """A service that is made for the occasion."""

    database: str = "sqlite:///catena.db"
    log: str = "log"
    servers: int = 1


@dataclass(frozen=True, slots=True)
class Given:
    """A service that runs already: its address and the CA that vouches for it."""

    url: str
    ca: Path
    maker: Path


def run(
    nodes: int,
    boots: tuple[RecordedBoot, ...],
    plan: Plan,
    where: Own | Given,
    progress: Progress,
    *,
    connections: int,
) -> FleetReport:
    """Simulate the fleet. Raises ``ServerSilent``, ``ServiceSilent``, ``UnusableMaker``."""
    if isinstance(where, Given):
        context = ssl.create_default_context(cafile=str(where.ca))
        fleet = Fleet(nodes, boots, maker_in(where.maker), connections)
        return simulate(fleet, Service(Target((where.url,), context), ()), plan, progress)
    fleet = Fleet(nodes, boots, SoftwareMaker.make(utc_now()), connections)
    with _made(where, fleet, progress) as made:
        return simulate(fleet, made, plan, progress)


@contextlib.contextmanager
def _made(own: Own, fleet: Fleet, progress: Progress) -> Iterator[Service]:
    with tempfile.TemporaryDirectory(prefix="catena-fleet-") as name:
        folder = Path(name)
        progress("making a trust service", 0, 1)
        service.make(folder, Wanted(fleet.boots, fleet.maker, own.database, own.log, own.servers))
        with service.running(folder, own.servers) as made:
            progress("making a trust service", 1, 1)
            yield made


def maker_in(folder: Path) -> SoftwareMaker:
    """The authority kept in a folder; a new one where nothing is. Raises ``UnusableMaker``."""
    key_file, certificate_file = folder / MAKER_KEY, folder / MAKER_CERTIFICATE
    if not folder.exists():
        maker = SoftwareMaker.make(utc_now())
        folder.mkdir(mode=0o700, parents=True)
        key_file.touch(mode=0o600)
        pem = maker.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        key_file.write_bytes(pem)
        certificate_file.write_bytes(maker.certificate.public_bytes(Encoding.PEM))
        return maker
    try:
        key = load_pem_private_key(key_file.read_bytes(), None)
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise UnusableMaker("no authority of software keys here", got=str(folder)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UnusableMaker("not an authority that `catena lab fleet` made", got=str(folder))
    return SoftwareMaker(key, certificate)
