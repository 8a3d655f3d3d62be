"""The agent's configuration: one TOML file, strict, with a default for all but two settings.

====================  =====================================  ==================================
setting               default                                meaning
====================  =====================================  ==================================
``server``            (needed)                               ``https://HOST:PORT`` of the service
``ca``                (needed)                               PEM file of the cluster CA
``tcti``              ``device:/dev/tpmrm0``                 how to reach the TPM
``runtime_dir``       ``/run/catena``                        where identity and secrets go; tmpfs
``allow_disk``        ``false``                              accept a ``runtime_dir`` on a disk
``interval``          what the server says                   seconds between attestations
``bank``              ``sha256``                             PCR bank to quote
``endorsement_key``   ``auto``                               which EK names the node: ``rsa-2048``,
                                                             ``ecc-p256``, ``ecc-p384``,
                                                             ``rsa-3072``, or the first that the
                                                             vendor certified
``attestation_key``   ``ecc-p256``                           which kind of key signs quotes
``event_log``         ``…/tpm0/binary_bios_measurements``    firmware event log
``ima_log``           ``…/ima/binary_runtime_measurements``  IMA log; used if it exists
``container_record``  ``/run/catena-gate/containers.cel``    the gate's record; used if it exists
``container_index``   none                                   NV indices that hold records instead,
                                                             one table for each tenant, with
                                                             ``nv_index`` and ``record``
``name_hint``         none                                   shown to the person who approves
``sealed_copy``       none                                   file or character device that also
                                                             receives every sealed secret
``audiences``         none                                   third parties to ask tokens for
====================  =====================================  ==================================
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from catena.containers.record import DEFAULT_RECORD
from catena.errors import NotFound, UsageError
from catena.evidence import NvIndex
from catena.formats.nodeapi import Audience, Hint
from catena.formats.recordindex import MAX_INDICES
from catena.ids import HashAlg
from catena.tpm.kinds import KeyKind, NodeKeys

DEFAULT_PATH = Path("/etc/catena/agent.toml")
_SECURITYFS = Path("/sys/kernel/security")


class MissingConfig(NotFound):
    """The configuration file is not there."""

    code = "agent-config-missing"
    remedy = "Write /etc/catena/agent.toml with `server` and `ca`, or give --config."


class InvalidConfig(UsageError):
    """The configuration file says something that makes no sense."""

    code = "agent-config-invalid"
    remedy = "Correct the setting; the manual lists all of them with their defaults."


class IndexedRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One tenant's record: the gate's ``nv_index`` and ``record`` of its gate.toml."""

    nv_index: NvIndex
    record: Path


class AgentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything the agent is told; see the module docstring."""

    server: str
    ca: Path
    tcti: str = "device:/dev/tpmrm0"
    runtime_dir: Path = Path("/run/catena")
    allow_disk: bool = False
    interval: Annotated[int, msgspec.Meta(ge=1, le=86400)] | None = None
    bank: Literal["sha256", "sha384", "sha512"] = "sha256"
    endorsement_key: Literal["auto", "rsa-2048", "ecc-p256", "ecc-p384", "rsa-3072"] = "auto"
    attestation_key: KeyKind = KeyKind.ECC_P256
    event_log: Path = _SECURITYFS / "tpm0/binary_bios_measurements"
    ima_log: Path = _SECURITYFS / "ima/binary_runtime_measurements"
    container_record: Path = DEFAULT_RECORD
    container_index: Annotated[tuple[IndexedRecord, ...], msgspec.Meta(max_length=MAX_INDICES)] = ()
    name_hint: Hint | None = None
    sealed_copy: Path | None = None
    audiences: Annotated[tuple[Audience, ...], msgspec.Meta(max_length=8)] = ()

    @property
    def container_records(self) -> dict[int | None, Path]:
        """Where the records of gates lie, by NV index, None for a PCR. A node has one kind."""
        if not self.container_index:
            return {None: self.container_record}
        return {one.nv_index: one.record for one in self.container_index}

    @property
    def keys(self) -> NodeKeys:
        """The keys of the TPM that the node uses."""
        chosen = None if self.endorsement_key == "auto" else KeyKind(self.endorsement_key)
        return NodeKeys(chosen, self.attestation_key)

    @property
    def hash_alg(self) -> HashAlg:
        """The bank as a hash."""
        return HashAlg(self.bank)


def load(path: Path) -> AgentConfig:
    """Read and check a configuration file. Raises ``MissingConfig`` or ``InvalidConfig``."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise MissingConfig(f"cannot read {path}", got=error.strerror) from error
    try:
        config = msgspec.toml.decode(text, type=AgentConfig, dec_hook=_decode_path)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path}: {error}") from error
    _check_server(config.server)
    if len({one.nv_index for one in config.container_index}) != len(config.container_index):
        raise InvalidConfig(f"{path}: two `container_index` tables have one `nv_index`")
    return config


def _decode_path(kind: type, value: object) -> Path:
    del kind  # `Path` is the only type that msgspec does not know by itself.
    if not isinstance(value, str):
        raise TypeError("a path must be a string")
    path = Path(value)
    if not path.is_absolute():
        raise ValueError("a path must be absolute")
    return path


def _check_server(url: str) -> None:
    parts = urlsplit(url)
    try:
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        port_is_valid = False
    if (
        parts.scheme != "https"
        or not parts.hostname
        or not port_is_valid
        or parts.username is not None
        or parts.path not in {"", "/"}
        or parts.query
        or parts.fragment
    ):
        raise InvalidConfig("`server` is no usable address", expected="https://HOST[:PORT]")
