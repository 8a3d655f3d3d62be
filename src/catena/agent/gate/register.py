"""The register that holds a gate's record: a PCR, or an NV index that a PCR seals.

Several gates of one node, one for each tenant, have an index each. Whichever starts first after a
boot opens all of them and seals them (``formats.recordindex``); the others find that done. A file lock
makes them take turns.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catena.agent.gate.config import GateConfig
from catena.containers.record.recorder import Extender
from catena.errors import Refusal, Unavailable
from catena.formats.recordindex import RecordIndex, seal_event
from catena.tpm.extender import open_pcr
from catena.tpm.nvindex import NvSpace, open_nv, seal_spaces

_MAX_AUTH = 64
"""Bytes of a TPM2B_AUTH; TPMs take at most a digest."""


class SealLockUnusable(Unavailable):
    """The file by which the gates of a node take turns cannot be had."""

    code = "gate-seal-lock"
    remedy = "`seal_lock` of gate.toml must be a file that root can make, the same for every gate."


class OwnerAuthUnreadable(Unavailable):
    """The file with the owner authorisation cannot be read."""

    code = "gate-owner-auth"
    remedy = "Put the TPM's owner authorisation, 1 to 64 bytes, into the file `owner_auth` names."


class ExposedOwnerAuth(Refusal):
    """Others than its owner may read the file with the owner authorisation."""

    code = "gate-owner-auth-exposed"
    remedy = "chmod 0600 the file; who has read it can remove the NV indices."


@contextmanager
def open_register(config: GateConfig) -> Iterator[Extender]:
    """What the record is extended into, for as long as the ``with`` lasts.

    Raises ``SealLockUnusable``, ``OwnerAuthUnreadable``, ``ExposedOwnerAuth`` and what
    ``tpm.nvindex`` raises.
    """
    if config.nv_index is None:
        with open_pcr(config.tcti, config.pcr) as pcr:
            yield pcr
        return
    _open_all(config)
    with open_nv(config.tcti, space_of(config.nv_index, config.pcr)) as index:
        yield index


def space_of(nv_index: int, pcr: int) -> NvSpace:
    """An index as the TPM is told about it."""
    index = RecordIndex(nv_index, pcr)
    public = index.public(written=False).encode()
    return NvSpace(nv_index, public, index.first, index.later, index.opening)


def _open_all(config: GateConfig) -> None:
    spaces = [space_of(index, config.pcr) for index in config.nv_indices]
    owner = b"" if config.owner_auth is None else _owner_auth(config.owner_auth)
    with _turn(config.seal_lock):
        seal_spaces(config.tcti, config.pcr, seal_event(config.nv_indices), spaces, owner)


def _owner_auth(path: Path) -> bytes:
    """The whole file, without a line's end."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(_MAX_AUTH + 2).rstrip(b"\r\n")
    except OSError as error:
        raise OwnerAuthUnreadable(f"cannot read {path}", got=error.strerror) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ExposedOwnerAuth(f"{path} is open to others", expected="0600", got=f"{mode:04o}")
    if not 0 < len(content) <= _MAX_AUTH:
        raise OwnerAuthUnreadable(f"{path} holds no authorisation", got=f"{len(content)} bytes")
    return content


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        lock = os.open(path, flags, 0o600)
    except OSError as error:
        raise SealLockUnusable(f"cannot use {path}", got=error.strerror) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
