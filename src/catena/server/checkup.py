"""``catena server check``: everything that would stop a server from running, found without running it.

Nothing is changed: no schema step is taken, no certificate renewed, no log repaired or locked, so the
server may run meanwhile. Each finding has the place in ``server.toml`` that it is about. A finding
is an *error* if ``catena server run`` would refuse, or could give out no secrets; a *warning* if a person
should know.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import stat
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
from cryptography import x509

from catena.appraise.certificate import parse_certificate
from catena.errors import CatenaError, ExitCode, Refusal, Unavailable, UsageError
from catena.keys.hierarchy import load_certificate
from catena.keys.signer import PublicKey, Signer, load_public_key, load_signer
from catena.server import config as settings
from catena.server import logplace, run, tls
from catena.server.config import CONFIG_FILE, BadConfig, Config
from catena.server.folder import (
    NONCE_KEY,
    client_tls,
    database_url,
    read_passphrase,
    read_roots,
    split_root,
)
from catena.server.logcheck import check_log
from catena.server.login import issuer_of
from catena.server.run import AddressInUse
from catena.server.settingsfile import SettingsFile
from catena.server.signers import open_signer
from catena.server.storagekeys import check_storage_keys, read_key
from catena.server.webhook import read_secrets
from catena.service.authorities import believed_of, pair
from catena.service.policies import stored_policy
from catena.store.authorities import Authority
from catena.store.database import Database

T = TypeVar("T")
SOON = timedelta(days=30)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a person should look at."""

    severity: Literal["error", "warning"]
    code: str
    message: str
    expected: str | None = None
    got: str | None = None
    remedy: str
    file: str = CONFIG_FILE
    line: int | None = None
    column: int | None = None
    key: str | None = None


class Checkup(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at, and what was found."""

    checked: tuple[str, ...]
    findings: tuple[Finding, ...]
    exit_code: int
    """0, or the highest exit code of an error found."""


class OpenFolder(Refusal):
    """A server's folder that others may write into."""

    code = "open-folder"
    remedy = "Run `chmod go-w` on the folder, and find out who changed what in it."


class MismatchedCertificate(Refusal):
    """A certificate that is not the one of the key it is used with."""

    code = "mismatched-certificate"
    remedy = "Name key and certificate of one pair, as `catena keys init` made them."


class ExpiredCertificate(Refusal):
    """A certificate that is not valid at this time, or not for long."""

    code = "expired-certificate"
    remedy = "Replace the certificate, or set this machine's clock."


class NoAuthority(UsageError):
    """A certificate that may not issue others, where one that may is needed."""

    code = "no-authority"
    remedy = "Name the cluster CA's certificate, ca.crt of the enterprise's key folder."


class StepsPending(Unavailable):
    """A database of an earlier schema."""

    code = "schema-steps-pending"
    remedy = "The server takes them when it starts; `catena server migrate --dry-run` shows them."


class FolderReadOnly(Unavailable):
    """A folder that this user cannot write into."""

    code = "folder-read-only"
    remedy = "Run the check as the server's user; if it is, let it write there."


def check(folder: Path, now: datetime) -> Checkup:
    """Look at a server's folder. Raises ``NoServerFolder``, or ``BadConfig`` for no text at all."""
    found = settings.read(folder)
    findings = _Findings(found)
    if found.settings is None:
        for fault in found.faults:
            error = BadConfig(fault.message, expected=fault.expected, got=fault.got)
            findings.add("error", error, fault.key, at=fault.place, remedy=fault.remedy)
        return findings.checkup(("settings",))
    one = _Check(folder, found.settings, now, findings)
    one.run()
    return findings.checkup(("settings", *one.checked))


class _Findings:
    """What was found so far."""

    def __init__(self, file: SettingsFile[Config]) -> None:
        self._file = file
        self._all: list[Finding] = []
        self._exit = ExitCode.OK

    def add(
        self,
        severity: Literal["error", "warning"],
        error: CatenaError,
        key: str | None = None,
        element: int | None = None,
        *,
        at: tuple[int, int] | None = None,
        remedy: str | None = None,
    ) -> None:
        place = at or (self._file.place(key, element) if key else (None, None))
        self._all.append(
            Finding(
                severity=severity,
                code=error.code,
                message=error.message,
                expected=error.expected,
                got=error.got,
                remedy=remedy or error.remedy,
                line=place[0],
                column=place[1],
                key=key,
            )
        )
        if severity == "error":
            self._exit = max(self._exit, error.exit_code)

    @contextlib.contextmanager
    def catching(self, key: str | None, element: int | None = None) -> Iterator[None]:
        """An error that the block raises is a finding about a setting."""
        try:
            yield
        except CatenaError as error:
            self.add("error", error, key, element)

    def checkup(self, checked: tuple[str, ...]) -> Checkup:
        return Checkup(checked=checked, findings=tuple(self._all), exit_code=int(self._exit))


class _Check:
    """One pass over a folder whose settings can be read."""

    def __init__(self, folder: Path, config: Config, now: datetime, findings: _Findings) -> None:
        self._folder = folder
        self._config = config
        self._now = now
        self._findings = findings
        self.checked: list[str] = []

    def run(self) -> None:
        for name, look in (
            ("folder", self._check_folder),
            ("keys", self._check_keys),
            ("certificates", self._check_certificates),
            ("trust", self._check_trust),
            ("address", self._check_addresses),
            ("database", self._check_database),
        ):
            look()
            self.checked.append(name)

    def _try(self, key: str | None, act: Callable[[], T], element: int | None = None) -> T | None:
        with self._findings.catching(key, element):
            return act()
        return None

    def _check_folder(self) -> None:
        mode = stat.S_IMODE(self._folder.stat().st_mode)
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            error = OpenFolder(
                "others may write into the folder", expected="0755", got=f"{mode:04o}"
            )
            self._findings.add("error", error)
        for path in (self._folder, logplace.beside(self._folder, self._config)):
            if not os.access(path, os.W_OK | os.X_OK):
                self._findings.add(
                    "error", FolderReadOnly("cannot write into the folder", got=str(path))
                )

    def _check_keys(self) -> None:
        config, passphrase = self._config, None
        if config.passphrase_file is not None:
            file = self._folder / config.passphrase_file
            passphrase = self._try("passphrase_file", lambda: read_passphrase(file))
        self._believed = self._rotated()
        self._ca: Signer | None = None
        if not self._believed:
            self._ca = self._try(
                "ca_key", lambda: open_signer(self._folder, config.ca_key, passphrase)
            )
        for one in self._believed:
            self._try(None, lambda: self._check_authority(one, passphrase))  # noqa: B023 - at once
        self._log_key = self._try(
            "log_key", lambda: open_signer(self._folder, config.log_key, passphrase)
        )
        if config.jwt_key is not None:
            named = config.jwt_key
            self._try("jwt_key", lambda: open_signer(self._folder, named, passphrase))
        self._tls_key = self._try(None, lambda: load_signer(self._folder / tls.KEY_FILE))
        self._try(None, lambda: read_key(self._folder / NONCE_KEY))
        self._try(None, lambda: check_storage_keys(self._folder))

    def _rotated(self) -> tuple[Authority, ...]:
        """The authorities that a rotation put in the place of the settings'; none if there was none."""
        url = database_url(self._folder, self._config.database)
        with contextlib.suppress(CatenaError):  # told of when the database is looked at
            if Database.pending(url):
                return ()
            database = Database.open(url)
            try:
                with database.snapshot() as rows:
                    found = rows.authorities.list()
            finally:
                database.close()
            return believed_of(found, self._now)
        return ()

    def _check_authority(self, authority: Authority, passphrase: bytes | None) -> None:
        """One that the database names: its key is where it says, and its certificate is valid."""
        certificate = x509.load_der_x509_certificate(authority.certificate)
        dates = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        self._check_dates(dates, f"the certificate of the CA {authority.sha256[:16]}", None)
        pair(open_signer(self._folder, authority.key, passphrase), certificate)

    def _check_certificates(self) -> None:
        config = self._config
        if not self._believed:
            ca = self._certificate("ca_certificate", Path(config.ca_certificate), self._ca)
            if ca is not None and not _is_authority(ca):
                self._findings.add(
                    "error", NoAuthority("the certificate may not issue others"), "ca_certificate"
                )
        # The server renews its own when it starts: only that it goes with its key matters.
        if (self._folder / tls.CERTIFICATE_FILE).exists():
            self._certificate(None, Path(tls.CERTIFICATE_FILE), self._tls_key, renewed=True)
        for number, name in enumerate(config.names):
            self._try("names", lambda: tls.parse_name(name), number)  # noqa: B023 - called at once

    def _certificate(
        self, key: str | None, path: Path, signer: Signer | None, *, renewed: bool = False
    ) -> x509.Certificate | None:
        certificate = self._try(key, lambda: load_certificate(self._folder / path))
        if certificate is None:
            return None
        if signer is not None and certificate.public_key() != signer.public_key:
            error = MismatchedCertificate(f"{path.name} is the certificate of another key")
            self._findings.add("error", error, key)
        if not renewed:
            dates = certificate.not_valid_before_utc, certificate.not_valid_after_utc
            self._check_dates(dates, path.name, key)
        return certificate

    def _check_dates(
        self,
        dates: tuple[datetime, datetime],
        name: str,
        key: str | None,
        element: int | None = None,
    ) -> None:
        begin, end = dates
        period = f"between {begin:%Y-%m-%d} and {end:%Y-%m-%d}"
        severity: Literal["error", "warning"] = "warning" if element is not None else "error"
        if not begin <= self._now <= end:
            error = ExpiredCertificate(
                f"{name} is not valid now", expected=period, got=f"{self._now:%Y-%m-%d}"
            )
            self._findings.add(severity, error, key, element)
        elif self._now + SOON > end and element is None:
            error = ExpiredCertificate(f"{name} expires soon", got=f"{end:%Y-%m-%d}")
            self._findings.add("warning", error, key)

    def _check_trust(self) -> None:
        """Who may vouch for TPMs, sign releases, cosign and receive."""
        config = self._config
        for number, path in enumerate(config.release_keys):
            self._try("release_keys", lambda: load_public_key(self._folder / path), number)  # noqa: B023
        for number, path in enumerate(config.former_log_keys):
            self._try("former_log_keys", lambda: load_public_key(self._folder / path), number)  # noqa: B023
        for number, text in enumerate(config.ek_roots):
            self._try("ek_roots", lambda: self._check_roots(number, text), number)  # noqa: B023
        for number, target in enumerate(settings.export_targets(config)):
            if (secret := target.secret_file) is not None:
                self._try("exports", lambda: read_secrets(self._folder / secret), number)
        self._try("oidc_issuer", lambda: issuer_of(config))
        for key, named in (
            ("witness_ca", config.witness_ca),
            ("export_ca", config.export_ca),
            ("oidc_ca", config.oidc_ca),
        ):
            self._try(key, lambda: client_tls(self._folder, key, named))  # noqa: B023

    def _check_roots(self, number: int, text: str) -> None:
        kind, path = split_root(text)
        for root in read_roots(kind, self._folder / path):
            # Read as enrolment reads it: some vendors' roots are malformed, and in use.
            certificate = parse_certificate(root.certificate)
            dates = certificate.not_before, certificate.not_after
            self._check_dates(dates, path.name, "ek_roots", number)

    def _check_addresses(self) -> None:
        config = self._config
        for key, address in (("listen", config.listen), ("metrics_listen", config.metrics_listen)):
            if address is not None:
                self._check_address(key, address)

    def _check_address(self, key: str, address: str) -> None:
        try:
            run.listen(address).close()
        except AddressInUse as error:
            self._findings.add(
                "warning", error, key, remedy="That is as it should be while the server runs."
            )
        except CatenaError as error:
            self._findings.add("error", error, key)

    def _check_database(self) -> None:
        """The database, and what only it can tell of: the log that it remembers, the policy."""
        url = database_url(self._folder, self._config.database)
        steps = self._try("database", lambda: Database.pending(url))
        if steps is None:
            return
        if steps:
            error = StepsPending(f"{len(steps)} schema steps are to be taken")
            self._findings.add("warning", error, "database")
            return
        database = self._try("database", lambda: Database.open(url))
        if database is None:
            return
        try:
            self._check_log(database)
            self._check_policy(database)
        finally:
            database.close()

    def _check_log(self, database: Database) -> None:
        if self._log_key is not None:
            key = self._log_key.public_key
            now = self._now
            self._try(
                "log", lambda: check_log(self._folder, self._config, key, database, lambda: now)
            )
        self.checked.append("log")

    def _check_policy(self, database: Database) -> None:
        """The policy in force verifies and compiles."""
        keys: list[PublicKey] = []
        for path in self._config.release_keys:
            with contextlib.suppress(CatenaError):  # told of already
                keys.append(load_public_key(self._folder / path))
        with self._findings.catching("release_keys"):
            with database.snapshot() as rows:
                newest = rows.policies.newest()
            if newest is not None:
                stored_policy(newest, tuple(keys))
        self.checked.append("policy")


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError, ssl.SSLError):
        return False
