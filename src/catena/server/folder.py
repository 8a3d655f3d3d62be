"""A server's folder: made by ``catena server init``, opened by ``catena server run``.

::

    server.toml    settings                      admin.toml    how the command line finds it
    catena.db      database                      log/          transparency log
    tls.key .crt   TLS identity                  ca.crt        what clients trust
    evidence/      what the log names by digest
    nonce.key      authenticates nonces          storage.key   encrypts secrets at rest (``storagekeys``)
    roots/         who may vouch for TPMs        release-N.pub who may publish references
    checkpoint.cosigned   the newest checkpoint with a quorum of witnesses (``cosigning``)
    exports/       how far each receiver of the log's entries is (``exporting``)

The keys of the cluster CA and of the log stay in
the enterprise's key folder; ``server.toml`` names them.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from catena import __version__
from catena.appraise.certificate import parse_certificate
from catena.appraise.endorsement import EndorsementKind, TrustRoot, TrustRoots
from catena.appraise.policy import compile_policy, default_policy_text
from catena.audit import evidence
from catena.audit.evidence import EvidenceStore
from catena.audit.log import TransparencyLog
from catena.audit.reader import LogReader
from catena.audit.storage import LogAtItsEnd
from catena.errors import FormatError, LogInconsistent, UsageError
from catena.formats import endorsements
from catena.keys.hierarchy import load_certificate
from catena.keys.signer import (
    PublicKey,
    Signer,
    load_public_key,
)
from catena.server import config as settings
from catena.server import logplace, tls
from catena.server.access import to_stderr
from catena.server.config import BadConfig, Config
from catena.server.cosigning import Collector
from catena.server.crl import CRL_PATH
from catena.server.exporting import Exporters
from catena.server.issuer import IssuerKeys
from catena.server.lifecycle import Lifecycle
from catena.server.login import issuer_of
from catena.server.owned import read_owned
from catena.server.rounds import Rounds
from catena.server.signers import open_signer
from catena.server.storagekeys import read_key, read_storage_keys
from catena.server.webhook import read_secrets
from catena.service import trust
from catena.service.authorities import Authorities, Issuing, Rotation, pair
from catena.service.journal import Journal
from catena.service.login import Issuer, Login
from catena.service.pseudonyms import Pseudonyms
from catena.service.setting import ServerKeys, Setting
from catena.service.stopwatch import unobserved
from catena.service.trust import TrustService
from catena.service.vault import KeyRing
from catena.service.vouching import Vouching
from catena.store.database import Database
from catena.store.logstate import LogState
from catena.store.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from catena.server.metrics import Metrics

NONCE_KEY = "nonce.key"
CA_FILE = tls.CA_FILE

_SQLITE = "sqlite:///"
_MAX_PASSPHRASE = 4096


class BadRoot(UsageError):
    """A file of TPM roots that holds no certificates, or has an unknown kind."""

    code = "bad-ek-root"
    remedy = "Give certificates (PEM or DER) as [vendor|enterprise|software=]FILE."


class UnrememberedLog(LogInconsistent):
    """The database has never seen the log that the settings name."""

    code = "log-unremembered"
    remedy = "Check `log` and `log_origin` in server.toml; a log and its database belong together."


@dataclass(frozen=True, slots=True)
class OpenServer:
    """A folder in use; ``close`` lets another process take it."""

    folder: Path
    config: Config
    service: TrustService
    log: TransparencyLog
    database: Database
    tls: tls.Identity
    collector: Collector | None = None
    """Asks the witnesses, once it is started; None if there are none."""
    exporters: Exporters | None = None
    """Send entries on, once they are started; None if nobody gets them."""
    people: Login | None = None
    """Lets people in whom an OpenID provider vouches for; None if none does."""
    metrics: Metrics | None = None
    """Counts, if somebody may read it."""

    rounds: tuple[Rounds, ...] = ()
    """Notice silent nodes, and judge known ones again, once they are started."""

    def tell(self, lifecycle: Lifecycle) -> None:
        """Write down that it is open, and what that took."""
        if self.database.steps:
            lifecycle.migrated(tuple(step.version for step in self.database.steps))
        lifecycle.started(
            version=__version__, pid=os.getpid(), schema=SCHEMA_VERSION, log_size=self.log.size
        )

    def close(self) -> None:
        """Release log and database."""
        for one in self.rounds:
            one.stop()
        if self.collector is not None:
            self.collector.stop()
        if self.exporters is not None:
            self.exporters.stop()
        self.log.close()
        self.service.setting.evidence.close()
        self.database.close()


def open_server(
    folder: Path, *, now: Callable[[], datetime], random: Callable[[int], bytes]
) -> OpenServer:
    """Open a folder that ``init`` made, and renew its TLS certificate.

    Raises ``NoServerFolder``, ``BadConfig``, ``MissingKey``, ``ExposedKey``, what the database
    and the log raise (``SchemaMismatch``, ``LogRewound``, ``LogAtItsEnd`` …), and a ``PolicyError``.
    """
    config = settings.load(folder)
    issuer = _issuer(folder, config)
    passphrase = None
    if config.passphrase_file is not None:
        passphrase = read_passphrase(folder / config.passphrase_file)
    log_signer = open_signer(folder, config.log_key, passphrase)
    keys = ServerKeys(
        nonce=read_key(folder / NONCE_KEY), storage=KeyRing(lambda: read_storage_keys(folder))
    )
    roots = load_roots(folder, config)
    policy = compile_policy(default_policy_text())
    release_keys = tuple(load_public_key(folder / path) for path in config.release_keys)
    database = Database.open(database_url(folder, config.database))
    authorities = _authorities(folder, config, passphrase, database)
    tls_identity = tls.Identity(folder, config.names, authorities, now)
    tls_identity.renew()
    authorities.issuing(now())  # a key that is not there is missed now, not by the first node
    log = _open_log(folder, config, log_signer, database, now)
    journal = Journal(log, log_signer, database, Pseudonyms(database, random))
    rotation = Rotation(authorities, journal, database)

    def authorities_changed() -> None:
        tls_identity.renew()
        rotation.tell(now())

    authorities.on_change(authorities_changed)
    rotation.tell(now())
    metrics = _metrics(config)
    if metrics is not None:
        journal.on_append(metrics.appended)
    setting = Setting(
        database=database,
        journal=journal,
        evidence=EvidenceStore(logplace.beside(folder, config) / evidence.FOLDER),
        authorities=authorities,
        keys=keys,
        roots=roots,
        policy=policy,
        release_keys=release_keys,
        former_log_keys=tuple(load_public_key(folder / one) for one in config.former_log_keys),
        trust_domain=config.trust_domain,
        mode=config.mode,
        open_role=config.open_role,
        security_floor=config.security_floor,
        container_pcr=config.container_pcr,
        container_indices=config.container_indices,
        interval=config.interval,
        intervals=settings.role_intervals(config),
        missed_intervals=config.missed_intervals,
        demand_poll=config.demand_poll,
        certificate_lifetime=timedelta(seconds=config.certificate_lifetime),
        vouching=_vouching(folder, config, passphrase),
        token_longest=timedelta(days=config.token_max_days),
        observe=metrics.step if metrics else unobserved,
        crl_url=None if config.public_url is None else config.public_url.rstrip("/") + CRL_PATH,
        now=now,
        random=random,
    )
    collector = _collector(folder, config, log.reader, log_signer.public_key, now)
    if collector is not None:
        log.on_publish(collector.wake)
    exporters = _exporters(folder, config, log.reader, log_signer.public_key)
    if exporters is not None:
        log.on_publish(exporters.wake)
    service = trust.build(setting)
    return OpenServer(
        folder,
        config,
        service,
        log,
        database,
        tls_identity,
        collector,
        exporters,
        rounds=(
            Rounds(service.staleness.notice, "noticing silent nodes"),
            Rounds(service.rejudging.judge, "judging nodes again"),
        ),
        people=None if issuer is None else Login(setting, issuer),
        metrics=metrics,
    )


def _authorities(
    folder: Path, config: Config, passphrase: bytes | None, database: Database
) -> Authorities:
    """The cluster CA: of the settings, until it is rotated. Raises what opening its key raises."""

    def open_key(named: str) -> Signer:
        return open_signer(folder, named, passphrase)

    def founding() -> Issuing:
        certificate = load_certificate(folder / config.ca_certificate)
        return pair(open_key(config.ca_key), certificate)

    return Authorities(founding, database, open_key)


def _vouching(folder: Path, config: Config, passphrase: bytes | None) -> Vouching | None:
    """Who signs tokens for third parties. Raises ``UnusableKey`` and what opening the key raises."""
    if config.jwt_key is None:
        return None
    return Vouching(
        signer=open_signer(folder, config.jwt_key, passphrase),
        audiences=frozenset(config.jwt_audiences),
        lifetime=timedelta(seconds=min(config.jwt_lifetime, config.certificate_lifetime)),
        trust_domain=config.trust_domain,
    )


def _issuer(folder: Path, config: Config) -> Issuer | None:
    """Who vouches for people. Raises ``BadConfig``."""
    keys = None
    if config.oidc_issuer is not None:
        keys = IssuerKeys(config.oidc_issuer, client_tls(folder, "oidc_ca", config.oidc_ca))
    return issuer_of(config, keys)


def _metrics(config: Config) -> Metrics | None:
    """Counters, only made and imported if somebody may read them."""
    if config.metrics_listen is None:
        return None
    from catena.server.metrics import Metrics  # noqa: PLC0415 - see above

    return Metrics()


def _exporters(folder: Path, config: Config, log: LogReader, key: PublicKey) -> Exporters | None:
    """Who sends entries on, not started yet.

    Raises ``BadConfig``; ``MissingKey``, ``ExposedKey`` or ``BadWebhookSecret`` for a webhook's secret.
    """
    targets = settings.export_targets(config)
    for target in targets:
        if target.secret_file is not None:
            read_secrets(folder / target.secret_file)
    if not targets:
        return None
    return Exporters(
        log,
        key,
        targets,
        origin=config.log_origin,
        name=config.names[0],
        folder=folder,
        write=to_stderr,
        tls=client_tls(folder, "export_ca", config.export_ca),
    )


def _collector(
    folder: Path, config: Config, log: LogReader, key: PublicKey, now: Callable[[], datetime]
) -> Collector | None:
    """Who asks the witnesses, not started yet. Raises ``BadConfig``."""
    addresses = settings.witness_addresses(config)
    if not addresses:
        return None
    return Collector(
        log,
        key,
        addresses,
        config.witness_quorum,
        folder,
        now=lambda: int(now().timestamp()),
        write=to_stderr,
        tls=client_tls(folder, "witness_ca", config.witness_ca),
    )


def client_tls(folder: Path, setting: str, path: str | None) -> ssl.SSLContext | None:
    """Who is trusted by an address that the server calls; None: the system's roots. Raises ``BadConfig``."""
    if path is None:
        return None
    try:
        return ssl.create_default_context(cafile=folder / path)
    except (OSError, ssl.SSLError) as error:
        raise BadConfig(f"{setting} holds no certificates: {path}") from error


def database_url(folder: Path, url: str) -> str:
    """The database's URL with a relative SQLite path made absolute."""
    path = url.removeprefix(_SQLITE)
    if path == url or path.startswith("/"):
        return url
    return f"{_SQLITE}{folder.resolve() / path}"


def split_root(text: str) -> tuple[EndorsementKind, Path]:
    """``KIND=FILE``, or ``FILE`` for an enterprise's own root. Raises ``BadRoot``."""
    kind, separator, path = text.partition("=")
    if not separator:
        return EndorsementKind.ENTERPRISE, Path(text)
    try:
        return EndorsementKind(kind), Path(path)
    except ValueError as error:
        raise BadRoot("unknown kind of TPM root", got=ascii(kind[:40])) from error


def read_roots(kind: EndorsementKind, path: Path) -> tuple[TrustRoot, ...]:
    """The certificates of a PEM bundle, or the one of a DER file. Raises ``BadRoot``."""
    try:
        return tuple(_root(kind, der) for der in endorsements.split(path.read_bytes()))
    except (OSError, ValueError, FormatError) as error:
        raise BadRoot(f"{path} holds no certificates that can be read", got=str(error)) from error


def _root(kind: EndorsementKind, der: bytes) -> TrustRoot:
    certificate = parse_certificate(der)
    return TrustRoot(certificate.subject_text, kind, certificate.der)


def load_roots(folder: Path, config: Config) -> TrustRoots:
    """Everything that may vouch for a TPM. Raises ``BadRoot``."""
    named = (split_root(text) for text in config.ek_roots)
    roots = tuple(root for kind, path in named for root in read_roots(kind, folder / path))
    return TrustRoots(roots=roots, pinned=frozenset(config.pinned_eks))


def _open_log(
    folder: Path,
    config: Config,
    signer: Signer,
    database: Database,
    now: Callable[[], datetime],
) -> TransparencyLog:
    """The log, which must contain what the database remembers of it."""
    state = remembered_log(database, config.log_origin)
    require_going_on(state)
    log = logplace.open_log(folder, config, signer, database, now, remembered=state.checkpoint)
    if config.log_publish_ms:
        log.publish_behind(config.log_publish_ms / 1000)
    return log


def remembered_log(database: Database, origin: str) -> LogState:
    """What the database remembers of a log. Raises ``UnrememberedLog``."""
    with database.snapshot() as rows:
        state = rows.log_states.get(origin)
    if state is None:
        raise UnrememberedLog("the database does not know this log", got=origin)
    return state


def require_going_on(state: LogState) -> None:
    """Refuse a log that another one goes on for. Raises ``LogAtItsEnd``."""
    if state.successor is not None:
        raise LogAtItsEnd("this log has ended", got=f"goes on in {state.successor!a}")


def read_passphrase(path: Path) -> bytes:
    """The first line of a file that only its owner may touch."""
    return read_owned(path, _MAX_PASSPHRASE).split(b"\n", 1)[0]
