"""A witness's folder: made by ``catena audit witness init``, opened by ``catena audit witness run``.

::

    witness.toml   name, address, limits, and the logs that are watched
    witness.key    the cosigner's Ed25519 key, 0600
    state/         what it remembers of each log (``audit.witness_state``)
"""

from __future__ import annotations

import ssl
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from catena.audit import cosigned
from catena.audit.checkpoint import require_origin
from catena.audit.witness import WatchedLog, Witness, watch
from catena.audit.witness_state import WitnessState
from catena.errors import NotFound, UsageError
from catena.formats.verifierkey import VerifierKey
from catena.keys.signer import (
    KeyAlgorithm,
    PrivateKeySigner,
    generate_key,
    load_signer,
    write_key,
    write_new,
)
from catena.server.config import BadConfig, Seconds, read_text, split_address, to_toml
from catena.server.folder import read_passphrase

CONFIG_FILE = "witness.toml"
KEY_FILE = "witness.key"
STATE = "state"
DEFAULT_LISTEN = "127.0.0.1:8460"


class NoWitnessFolder(NotFound):
    """A folder that holds no witness."""

    code = "no-witness-folder"
    remedy = "Make one with `catena audit witness init`."


class WitnessExists(UsageError):
    """Something is already where the witness's folder would be."""

    code = "witness-exists"
    remedy = "Choose another folder; a witness that is made over forgets what it signed."


class LogSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One log: its verifier keys; ``origin`` only where it is not the first key's name."""

    keys: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=8)]
    origin: str | None = None


class WitnessConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``witness.toml``; paths are relative to its folder."""

    name: str
    """The cosigner's name, in every signature line."""
    listen: str = DEFAULT_LISTEN
    passphrase_file: str | None = None
    """Opens the key if it is encrypted."""
    tls_certificate: str | None = None
    """PEM chain and key for HTTPS; without them the witness speaks plain HTTP."""
    tls_key: str | None = None
    body_timeout: Seconds = 10
    idle_timeout: Seconds = 15
    max_connections: Annotated[int, msgspec.Meta(ge=1)] = 256
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    logs: Annotated[tuple[LogSetting, ...], msgspec.Meta(max_length=1024)] = ()


@dataclass(frozen=True, slots=True)
class OpenWitness:
    """A folder in use; ``close`` lets another process take it."""

    config: WitnessConfig
    witness: Witness
    tls: ssl.SSLContext | None

    def close(self) -> None:
        """Release the memory."""
        self.witness.state.close()


def init(folder: Path, name: str, listen: str, logs: Sequence[str]) -> VerifierKey:
    """Make a witness's folder with a fresh key; the key that logs and readers are given.

    Raises ``WitnessExists``, ``BadOrigin``, ``BadConfig``, ``BadWatchedLog``.
    """
    require_origin(name)
    split_address(listen)
    config = WitnessConfig(
        name=name, listen=listen, logs=tuple(LogSetting(keys=(text,)) for text in logs)
    )
    watched(config)
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError as error:
        raise WitnessExists("the folder exists already", got=str(folder)) from error
    key = generate_key(KeyAlgorithm.ED25519)
    write_key(folder / KEY_FILE, key)
    write_new(folder / CONFIG_FILE, render(config).encode(), mode=0o644)
    return key_of(folder)


def render(config: WitnessConfig) -> str:
    """The settings as TOML, all of them."""
    flat = msgspec.structs.asdict(config)
    logs = flat.pop("logs")
    head = "# A witness of transparency logs: every setting, with the value in force.\n"
    tables = (f"\n[[logs]]\n{to_toml(one)}" for one in logs)
    return head + to_toml(flat) + "".join(tables)


def load(folder: Path) -> WitnessConfig:
    """Read the folder's settings. Raises ``NoWitnessFolder`` or ``BadConfig``."""
    absent = NoWitnessFolder("not a witness's folder", got=str(folder))
    text = read_text(folder / CONFIG_FILE, absent)
    try:
        config = msgspec.convert(tomllib.loads(text), WitnessConfig)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BadConfig(f"{CONFIG_FILE}: {error}") from error
    if (config.tls_certificate is None) != (config.tls_key is None):
        raise BadConfig(f"{CONFIG_FILE}: tls_certificate and tls_key belong together")
    return config


def key_of(folder: Path) -> VerifierKey:
    """The witness's verifier key, for logs and for readers."""
    config = load(folder)
    return cosigned.cosigner_key(config.name, _signer(folder, config).public_key)


def open_witness(folder: Path, *, now: Callable[[], int]) -> OpenWitness:
    """Open a folder that ``init`` made.

    Raises ``NoWitnessFolder``, ``BadConfig``, ``BadWatchedLog``, ``MissingKey``, ``ExposedKey``,
    ``WitnessInUse``, ``WitnessUnwritable``.
    """
    config = load(folder)
    logs = watched(config)
    signer = _signer(folder, config)
    cosigned.cosigner_key(config.name, signer.public_key)  # refuses what cannot cosign
    context = _context(folder, config)
    state = WitnessState(folder / STATE)
    return OpenWitness(config, Witness(config.name, signer, logs, state, now), context)


def _signer(folder: Path, config: WitnessConfig) -> PrivateKeySigner:
    passphrase = None
    if config.passphrase_file is not None:
        passphrase = read_passphrase(folder / config.passphrase_file)
    return load_signer(folder / KEY_FILE, passphrase)


def watched(config: WitnessConfig) -> dict[str, WatchedLog]:
    """The logs by origin. Raises ``BadConfig`` and ``BadWatchedLog``."""
    logs: dict[str, WatchedLog] = {}
    for number, setting in enumerate(config.logs):
        log = watch(setting.keys, setting.origin)
        if log.origin in logs:
            raise BadConfig(f"{CONFIG_FILE}: logs[{number}] is there twice", got=ascii(log.origin))
        logs[log.origin] = log
    return logs


def _context(folder: Path, config: WitnessConfig) -> ssl.SSLContext | None:
    if config.tls_certificate is None or config.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # logs of other makers ask, too
    try:
        context.load_cert_chain(folder / config.tls_certificate, folder / config.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise BadConfig(f"{CONFIG_FILE}: the TLS certificate or key cannot be used") from error
    return context
