"""``server.toml``: every setting of the trust service, read strictly.

Paths are relative to the server's folder unless absolute. The file holds no secret: private
keys and symmetric keys are named by path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from catena.audit import cosigned
from catena.audit.cosigned import MAX_WITNESSES, BadQuorum, BadWitness, WitnessAddress
from catena.errors import ExitCode, NotFound, UsageError
from catena.formats.containerlog import CONTAINER_PCR
from catena.formats.nodeapi import Audience
from catena.formats.recordindex import MAX_INDICES
from catena.formats.tpm2nv import NV_FIRST, NV_LAST
from catena.server import export_target, settingsfile
from catena.server.export_target import BadExport, ExportTarget
from catena.server.settingsfile import Fault, SettingsFile
from catena.service.setting import Mode

CONFIG_FILE = "server.toml"
_WITNESS_URL = re.compile(r"https?://[A-Za-z0-9._\[\]:-]+(/[A-Za-z0-9._~/-]*)?")

_INTERVAL = re.compile(r"([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)=([0-9]{1,5})")
MAX_INTERVAL = 86_400

NvIndices = Annotated[
    tuple[Annotated[int, msgspec.Meta(ge=NV_FIRST, le=NV_LAST)], ...],
    msgspec.Meta(max_length=MAX_INDICES),
]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=86_400)]


class NoServerFolder(NotFound):
    """A folder that holds no server."""

    code = "no-server-folder"
    remedy = "Make one with `catena server init`."


class BadConfig(UsageError):
    """A server.toml that cannot be read or holds a wrong value."""

    code = "bad-config"
    exit_code = ExitCode.USAGE
    remedy = (
        "Correct the file: `catena server check` shows all that is wrong with a server.toml; the manual "
        "lists every setting."
    )


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings, with their defaults.

    ``listen`` is HOST:PORT (``[::1]:8440`` for IPv6). ``names`` are what the TLS certificate
    says. ``max_body`` bounds one request body, ``body_budget`` all that are being read, both
    in bytes.
    """

    listen: str
    names: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    trust_domain: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,254}\Z")]
    mode: Mode = Mode.APPROVE
    open_role: str = "node"
    security_floor: Annotated[int, msgspec.Meta(ge=0)] = 0
    """The lowest security version of a release that is admitted."""
    container_pcr: Literal[8, 9, 11, 12, 13, 14, 15] = CONTAINER_PCR
    """The PCR into which the nodes' container gates measure."""
    container_indices: NvIndices = ()
    """NV indices that hold the nodes' container records instead, one for each tenant, in the order in
    which every gate.toml names them. ``container_pcr`` then seals them."""
    interval: Seconds = 30
    intervals: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()
    """Other intervals of roles, ``ROLE=SECONDS`` each."""
    missed_intervals: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 4
    """So many without an attestation make a trusted node stale."""
    demand_poll: Annotated[int, msgspec.Meta(ge=0, le=86_400)] = 10
    """Seconds between two questions of an agent whether it is to attest now; 0: it asks never."""
    certificate_lifetime: Annotated[int, msgspec.Meta(ge=60, le=86_400)] = 600
    public_url: (
        Annotated[
            str, msgspec.Meta(pattern=r"^https?://[A-Za-z0-9._\[\]:-]+(/[A-Za-z0-9._~/-]*)?\Z")
        ]
        | None
    ) = None
    """Where everybody reaches this server: certificates name the CRL below it. Plain HTTP is right for
    a CRL, which is signed, if verifiers do not follow HTTPS."""
    database: str = "sqlite:///catena.db"
    log: str = "log"
    """Where the audit log lies: a folder, ``database:`` for the one above, or object storage as
    ``s3+https://HOST/BUCKET/PREFIX``. Several servers may share the latter two."""
    log_origin: str
    log_public: bool = False
    """Whether the log below ``/log`` may be read without a token. It names nodes and what they ran."""
    log_s3_credentials: str | None = None
    """A file with access key and secret key, a line each, that only its owner may read."""
    log_s3_region: str = "us-east-1"
    log_publish_ms: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 200
    """How long after an append its readers may have to wait for it; 0: the append waits."""
    ca_key: str
    ca_certificate: str
    log_key: str
    former_log_keys: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()
    """Public keys of logs that ended: what the server signed with them for itself still counts."""
    passphrase_file: str | None = None
    """Opens ``ca_key`` and ``log_key`` if they are encrypted."""
    release_keys: tuple[str, ...] = ()
    ek_roots: tuple[str, ...] = ()
    """PEM bundles of TPM vendors' and enterprise roots."""
    pinned_eks: tuple[str, ...] = ()
    """Node ids (SHA-256 of the EK's public area) that need no certificate."""
    witnesses: tuple[str, ...] = ()
    """Who cosigns the log: address and key, ``URL KEY``, the key as its operator gives it."""
    witness_quorum: Annotated[int, msgspec.Meta(ge=0, le=MAX_WITNESSES)] = 0
    """How many of them a checkpoint needs to count as cosigned."""
    witness_ca: str | None = None
    """PEM certificates that HTTPS witnesses are trusted by, instead of the system's."""
    exports: Annotated[tuple[str, ...], msgspec.Meta(max_length=8)] = ()
    """Who gets the log's entries as they are appended: ``KIND ADDRESS`` each (``export_target``)."""
    export_ca: str | None = None
    """PEM certificates that HTTPS receivers are trusted by, instead of the system's."""
    jwt_key: str | None = None
    """A P-256 key that signs tokens of nodes for third parties; none: there are no such tokens."""
    jwt_audiences: Annotated[tuple[Audience, ...], msgspec.Meta(max_length=64)] = ()
    """Whom nodes may have tokens for."""
    jwt_lifetime: Annotated[int, msgspec.Meta(ge=60, le=3600)] = 300
    """Seconds; never longer than ``certificate_lifetime``."""
    token_max_days: Annotated[int, msgspec.Meta(ge=1, le=3650)] = 365
    """How long a token may live that an admin makes."""
    oidc_issuer: str | None = None
    """The OpenID provider that vouches for people: its https address, exactly as it names itself."""
    oidc_client_id: str | None = None
    """What catena is called there; a public client."""
    oidc_roles: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()
    """Who gets which role: ``CLAIM=VALUE ROLE`` each; the first that fits counts."""
    oidc_name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_:./-]{1,100}\Z")] = "sub"
    """The claim that people are named by in the log."""
    oidc_lifetime: Annotated[int, msgspec.Meta(ge=60, le=86_400)] = 3600
    """Seconds that a login counts."""
    oidc_ca: str | None = None
    """PEM certificates that the provider is trusted by, instead of the system's."""
    max_body: Annotated[int, msgspec.Meta(ge=65_536)] = 24 * 1024 * 1024
    body_budget: Annotated[int, msgspec.Meta(ge=65_536)] = 128 * 1024 * 1024
    body_timeout: Seconds = 30
    idle_timeout: Seconds = 15
    """Seconds a connection may be open without sending a request."""
    max_connections: Annotated[int, msgspec.Meta(ge=1)] = 512
    max_listeners: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 32
    """How many may follow the events of this server at once."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    """Threads that decide; more only help while the disk is waited for."""
    queue_timeout: Seconds = 20
    """Seconds that a request waits for one of them before it is told to come again."""
    rate_address: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 4000
    """Requests a second from one address, or from a whole network behind it; 0: no limit."""
    rate_node: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 30
    """Attestations a minute of one node, and at least two in an ``interval``; 0: no limit."""
    metrics_listen: str | None = None
    """HOST:PORT for Prometheus, over plain HTTP without authentication; none: no metrics."""
    drain_delay: Annotated[int, msgspec.Meta(ge=0, le=600)] = 0
    """Seconds after a signal to stop in which requests are still taken: time for a load balancer to
    see that ``/readyz`` says no."""
    grace: Annotated[int, msgspec.Meta(ge=1, le=600)] = 10
    """Seconds that running requests then have to finish."""


def load(folder: Path) -> Config:
    """Read the folder's settings. Raises ``NoServerFolder`` or ``BadConfig`` for the first fault."""
    found = read(folder)
    if found.settings is None:
        first = found.faults[0]
        hint = f"; {first.remedy}" if first.remedy else ""
        raise BadConfig(
            f"{CONFIG_FILE}:{first.place}: {first.message}{hint}",
            expected=first.expected,
            got=first.got,
        )
    return found.settings


def read(folder: Path) -> SettingsFile[Config]:
    """The folder's settings, or all that is wrong with them. Raises ``NoServerFolder``, ``BadConfig``."""
    absent = NoServerFolder("not a server folder", got=str(folder))
    text = read_text(folder / CONFIG_FILE, absent)
    found = settingsfile.read(text, Config)
    if found.settings is None:
        return found
    faults = tuple(
        Fault(
            place=found.place(key, element),
            key=key,
            message=error.message,
            expected=error.expected,
            got=error.got,
        )
        for key, element, error in _contradictions(found.settings)
    )
    return SettingsFile(None, faults, found.places) if faults else found


def _contradictions(config: Config) -> Iterator[tuple[str, int | None, BadConfig]]:
    """What is wrong beyond each setting's type: key, number of the element, and what."""
    rules: tuple[tuple[str, Callable[[], object]], ...] = (
        ("listen", lambda: split_address(config.listen)),
        ("metrics_listen", lambda: split_address(config.metrics_listen or config.listen)),
        ("container_indices", lambda: _require_distinct(config.container_indices)),
    )
    for key, rule in rules:
        yield from _broken(key, None, rule)
    # Refused now, not when the first checkpoint is to be cosigned or the first entry sent.
    for key, parse, texts, whole in (
        ("intervals", _interval, config.intervals, role_intervals),
        ("witnesses", _require_witness, config.witnesses, witness_addresses),
        ("exports", _export, config.exports, export_targets),
    ):
        broken = [
            one
            for number, text in enumerate(texts)
            for one in _broken(key, number, lambda: parse(number, text))  # noqa: B023 - used at once
        ]
        yield from broken or _broken(key, None, lambda: whole(config))  # noqa: B023 - as above


def _broken(
    key: str, element: int | None, rule: Callable[[], object]
) -> list[tuple[str, int | None, BadConfig]]:
    try:
        rule()
    except BadConfig as error:
        return [(key, element, error)]
    return []


def _require_distinct(indices: tuple[int, ...]) -> None:
    if len(set(indices)) != len(indices):
        raise BadConfig("`container_indices` names an NV index twice")


def read_text(path: Path, absent: NotFound) -> str:
    """A file of settings. Raises ``absent`` if it is not there, ``BadConfig``."""
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise absent from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"cannot read {path.name}") from error


def role_intervals(config: Config) -> dict[str, int]:
    """Seconds between two attestations by role. Raises ``BadConfig``."""
    pairs = [_interval(number, text) for number, text in enumerate(config.intervals)]
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadConfig("`intervals` names a role twice")
    return found


def _interval(number: int, text: str) -> tuple[str, int]:
    match = _INTERVAL.fullmatch(text)
    if match is None or not 1 <= int(match[2]) <= MAX_INTERVAL:
        raise BadConfig(
            f"intervals[{number}] is not a role's interval",
            expected=f"ROLE=SECONDS, 1 to {MAX_INTERVAL}",
            got=ascii(text[:80]),
        )
    return match[1], int(match[2])


def witness_addresses(config: Config) -> tuple[WitnessAddress, ...]:
    """The witnesses, with a quorum they can reach. Raises ``BadConfig``."""
    if not config.witnesses and not config.witness_quorum:
        return ()
    pairs = [_split_witness(number, text) for number, text in enumerate(config.witnesses)]
    try:
        policy = cosigned.policy([key for _, key in pairs], config.witness_quorum)
    except (BadWitness, BadQuorum) as error:
        raise BadConfig(f"witnesses: {error}") from error
    urls = (url.rstrip("/") for url, _ in pairs)
    return tuple(map(WitnessAddress, urls, policy.witnesses))


def export_targets(config: Config) -> tuple[ExportTarget, ...]:
    """Who gets the log's entries. Raises ``BadConfig``."""
    targets = tuple(_export(number, text) for number, text in enumerate(config.exports))
    if len(set(map(str, targets))) != len(targets):
        raise BadConfig("`exports` names a target twice")
    return targets


def _export(number: int, text: str) -> ExportTarget:
    try:
        return export_target.parse(text)
    except BadExport as error:
        raise BadConfig(
            f"exports[{number}]: {error.message}",
            expected=error.expected,
            got=error.got,
        ) from error


def _require_witness(number: int, text: str) -> None:
    """One witness by itself. Raises ``BadConfig``."""
    _, key = _split_witness(number, text)
    try:
        cosigned.policy([key], 1)
    except BadWitness as error:
        raise BadConfig(f"witnesses[{number}]: {error}") from error


def _split_witness(number: int, text: str) -> tuple[str, str]:
    url, _, key = text.partition(" ")
    if not _WITNESS_URL.fullmatch(url) or not key:
        raise BadConfig(
            f"witnesses[{number}] is not an address and a key",
            expected="https://HOST[:PORT][/PATH] NAME+KEYID+KEY",
            got=ascii(text[:120]),
        )
    return url, key


def render(config: Config) -> str:
    """The settings as TOML, all of them, so that a reader sees what can be set."""
    return "# The catena trust service: every setting, with the value in force.\n" + to_toml(config)


def to_toml(value: msgspec.Struct | Mapping[str, object]) -> str:
    """Flat settings as TOML; those that are None become comments."""
    lines = (
        f"# {name} =" if setting is None else f"{name} = {msgspec.json.encode(setting).decode()}"
        # JSON strings, numbers, booleans and arrays of them are TOML values, too.
        for name, setting in msgspec.to_builtins(value).items()
    )
    return "\n".join(lines) + "\n"


def split_address(listen: str) -> tuple[str, int]:
    """HOST:PORT as a pair. Raises ``BadConfig``."""
    host, separator, port = listen.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65535:
        raise BadConfig("not an address to listen on", expected="HOST:PORT", got=listen[:80])
    return host.strip("[]"), int(port)
