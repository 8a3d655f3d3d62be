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
from catena.lab.fleet.driving import Fleet
from catena.lab.fleet.load import Plan
from catena.lab.fleet.service import Service, Wanted
from catena.lab.fleet.simulation import FleetReport, simulate
from catena.lab.fleet.softtpm import SoftwareMaker, utc_now
from catena.lab.fleet.source import Progress, SoftwareKeys, Source
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
    tpms: int = 0,
    generators: int = 1,
) -> FleetReport:
    """Simulate the fleet, with software keys or as many TPMs.

    Raises ``ServerSilent``, ``ServiceSilent``, ``UnusableMaker``, ``BootNotRepeated``.
    """
    maker = maker_in(where.maker) if isinstance(where, Given) else _new_maker(tpms)
    with _source(boots, maker, tpms, connections, progress) as source:
        fleet = Fleet(nodes, source, connections)
        with _service(where, boots, maker, progress) as driven:
            return simulate(fleet, driven, plan, progress, generators)


def _new_maker(tpms: int) -> SoftwareMaker:
    if tpms:
        return SoftwareMaker.make(utc_now(), "catena lab: software TPMs")
    return SoftwareMaker.make(utc_now())


@contextlib.contextmanager
def _source(
    boots: tuple[RecordedBoot, ...],
    maker: SoftwareMaker,
    tpms: int,
    connections: int,
    progress: Progress,
) -> Iterator[Source]:
    if not tpms:
        yield SoftwareKeys(boots, maker)
        return
    # Software keys need no TPM library; the first of these says so where it is missing.
    import catena.tpm.failure  # noqa: F401, PLC0415
    from catena.lab.fleet import pool  # noqa: PLC0415

    with pool.pool_of(pool.Wanted(tpms, boots, connections), maker, utc_now(), progress) as made:
        yield made


@contextlib.contextmanager
def _service(
    where: Own | Given, boots: tuple[RecordedBoot, ...], maker: SoftwareMaker, progress: Progress
) -> Iterator[Service]:
    if isinstance(where, Given):
        context = ssl.create_default_context(cafile=str(where.ca))
        yield Service(Target((where.url,), context), ())
        return
    with _made(where, boots, maker, progress) as made:
        yield made


@contextlib.contextmanager
def _made(
    own: Own, boots: tuple[RecordedBoot, ...], maker: SoftwareMaker, progress: Progress
) -> Iterator[Service]:
    with tempfile.TemporaryDirectory(prefix="catena-fleet-") as name:
        folder = Path(name)
        progress("making a trust service", 0, 1)
        service.make(folder, Wanted(boots, maker, own.database, own.log, own.servers))
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
