"""The gate's configuration: one TOML file, strict.

===================  ====================================  =========================================
setting              default                               meaning
===================  ====================================  =========================================
``policy``           (needed)                              signed container policy
``policy_keys``      (needed)                              PEM public keys that may sign it
``images``           ``["/var/lib/catena/images"]``        image stores: OCI layouts, and content
                                                           stores of containerd
``socket``           ``/run/catena-gate/gate.sock``        where the wrapper asks
``runtime_dir``      ``/run/catena-gate``                  checked configurations; root's only, tmpfs
``record``           ``/run/catena-gate/containers.cel``   the record of this boot
``tcti``             ``device:/dev/tpmrm0``                how to reach the TPM
``pcr``              ``15``                                PCR that records are extended into, or
                                                           that seals the NV indices of records
``nv_index``         none                                  NV index that holds the record instead:
                                                           this gate's, one of ``nv_indices``
``nv_indices``       ``[]``                                the NV indices of all gates of the node, in
                                                           the order of the server's
                                                           ``container_indices``
``seal_lock``        ``/run/catena-gate.lock``             file by which the gates of a node take turns
                                                           to open the NV indices
``owner_auth``       none                                  file with the TPM's owner authorisation,
                                                           private; needed once to define NV indices,
                                                           if it is not empty
``runtime``          ``/usr/sbin/runc``                    the one real runtime that may be run
``runtime_root``     ``/run/runc``                         its state, if a call names no ``--root``
``strict``           ``false``                             hash every file again at every start
``uids``             ``[0]``                               users who may ask, beside no other
``workers``          ``8``                                 questions at the same time
``queue``            ``128``                               questions that wait; more are refused
``request_seconds``  ``60``                                longest time for one question
===================  ====================================  =========================================

The record belongs to one boot, as the PCR does: a tmpfs is the right place for it.

**A tenant** is a gate of its own: another ``socket``, ``runtime_dir``, ``record``, ``nv_index`` and, most
likely, ``policy``. All tenants of a node have the same ``pcr`` and ``nv_indices``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from catena.containers.record import DEFAULT_RECORD
from catena.errors import NotFound, UsageError
from catena.evidence import NvIndex
from catena.formats.recordindex import MAX_INDICES

DEFAULT_PATH = Path("/etc/catena/gate.toml")
_RUN = Path("/run/catena-gate")
Paths = Annotated[tuple[Path, ...], msgspec.Meta(min_length=1, max_length=32)]


class MissingGateConfig(NotFound):
    """The configuration file is not there."""

    code = "gate-config-missing"
    remedy = "Write /etc/catena/gate.toml with `policy` and `policy_keys`, or give --config."


class InvalidGateConfig(UsageError):
    """The configuration file says something that makes no sense."""

    code = "gate-config-invalid"
    remedy = "Correct the setting; the manual lists all of them with their defaults."


class GateConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything the gate is told; see the module docstring."""

    policy: Path
    policy_keys: Paths
    images: Paths = (Path("/var/lib/catena/images"),)
    socket: Path = _RUN / "gate.sock"
    runtime_dir: Path = _RUN
    record: Path = DEFAULT_RECORD
    tcti: str = "device:/dev/tpmrm0"
    pcr: Literal[8, 9, 11, 12, 13, 14, 15] = 15
    nv_index: NvIndex | None = None
    nv_indices: Annotated[tuple[NvIndex, ...], msgspec.Meta(max_length=MAX_INDICES)] = ()
    seal_lock: Path = Path("/run/catena-gate.lock")
    owner_auth: Path | None = None
    runtime: Path = Path("/usr/sbin/runc")
    runtime_root: Path = Path("/run/runc")
    strict: bool = False
    uids: Annotated[tuple[int, ...], msgspec.Meta(min_length=1, max_length=16)] = (0,)
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8
    queue: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 128
    request_seconds: Annotated[int, msgspec.Meta(ge=1, le=100)] = 60


def load(path: Path) -> GateConfig:
    """Read and check a configuration file. Raises ``MissingGateConfig`` or ``InvalidGateConfig``."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise MissingGateConfig(f"cannot read {path}", got=error.strerror) from error
    try:
        config = msgspec.toml.decode(text, type=GateConfig, dec_hook=_decode_path)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidGateConfig(f"{path}: {error}") from error
    _check_indices(config)
    return config


def _check_indices(config: GateConfig) -> None:
    """A gate uses a PCR, or one of the indices that the node has. Raises ``InvalidGateConfig``."""
    named = config.nv_indices
    if len(set(named)) != len(named):
        raise InvalidGateConfig("`nv_indices` names an NV index twice", got=_shown(named))
    if config.nv_index is None and named:
        raise InvalidGateConfig(
            "`nv_indices` without `nv_index`: which of them is this gate's?", got=_shown(named)
        )
    if config.nv_index is not None and config.nv_index not in named:
        raise InvalidGateConfig(
            "`nv_index` is none of `nv_indices`, which lists those of all gates of this node",
            expected=_shown(named) or "a list",
            got=_shown((config.nv_index,)),
        )


def _shown(indices: tuple[int, ...]) -> str:
    return ", ".join(f"{index:#010x}" for index in indices)


def _decode_path(kind: type, value: object) -> Path:
    del kind  # `Path` is the only type that msgspec does not know by itself.
    if not isinstance(value, str) or not value.startswith("/"):
        raise ValueError("a path must be absolute")
    return Path(value)
