"""What an admitted node holds: identity and opened secrets, in memory-backed files, for a while.

::

    RUNTIME_DIR/
        node.crt -> current/node.crt      links that stay the same from round to round
        node.key -> current/node.key
        secrets  -> current/secrets       one file for each secret, by its name
        tokens   -> current/tokens        AUDIENCE.jwt, AUDIENCE.result.jwt, percent-encoded
        current  -> held.XXXX/            replaced as a whole by one rename
        status.json                       (``agent.status``)
        receipts/                         proof of what was decided (``agent.receipts``)

Certificate and key that a reader finds by resolving ``current`` once belong together.
Directories are 0700, files 0600. ``withdraw`` removes identity and secrets. RUNTIME_DIR has to be a tmpfs:
what was given to a proven boot must not survive it on a disk. It has to be the agent's own, too:
whoever may rename entries in it could hand readers another identity and other secrets.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from catena.agent.identity import Identity
from catena.errors import FormatError, Refusal, Unavailable
from catena.formats.nodeapi import NodeToken, SealedSecret
from catena.ids import HashAlg
from catena.tpm.device import Tpm
from catena.tpm.failure import ForeignSeal, PcrPolicyUnmet

CURRENT = "current"
LINKS = ("node.crt", "node.key", "secrets", "tokens")
_HELD = "held."
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_KEY_SIZE = 32
_MOUNT_DEVICE = 2
_MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})


class SealedElsewhere(Refusal):
    """A secret sealed to another TPM, or altered after sealing."""

    code = "sealed-elsewhere"
    remedy = "Only the TPM that it was sealed to opens it; attest to receive one for this machine."


class WrongBootState(Refusal):
    """A secret sealed to this TPM in another boot state."""

    code = "wrong-boot-state"
    remedy = "The machine booted something else than when the secret was sealed; attest again."


class AlteredSecret(Refusal):
    """A secret whose payload, name or version was changed after sealing."""

    code = "altered-secret"
    remedy = "Attest again; if it happens again, see the trust service's log."


class UnsafeSecretName(Refusal):
    """A secret whose name is no plain file name."""

    code = "unsafe-secret-name"
    remedy = "Rename the secret on the trust service: letters, digits, dot, dash, underscore."


class RuntimeOnDisk(Refusal):
    """The runtime directory is not memory-backed, so keys would outlive the boot."""

    code = "runtime-on-disk"
    remedy = "Use a directory below /run, or set `allow_disk = true` and know why."


class ExposedRuntime(Refusal):
    """Another user made the runtime directory, or may change what is in it."""

    code = "runtime-exposed"
    remedy = "Name a directory that the agent's user owns and nobody else may write to."


class DeliveryFailed(Unavailable):
    """Identity or secrets could not be written or removed."""

    code = "delivery-failed"
    remedy = "Check that the runtime directory exists, is writable and has space left."


def open_sealed(tpm: Tpm, sealed: SealedSecret) -> bytes:
    """The payload of a sealed secret, if this is the TPM and the boot state it was sealed to."""
    try:
        key = tpm.unseal(
            public=sealed.public,
            duplicate=sealed.duplicate,
            seed=sealed.seed,
            bank=_bank(sealed),
            pcrs=sealed.pcrs,
        )
    except ForeignSeal as error:
        raise SealedElsewhere("the secret is sealed to another TPM") from error
    except PcrPolicyUnmet as error:
        raise WrongBootState("the secret is sealed to another boot state") from error
    if len(key) != _KEY_SIZE:
        raise FormatError("the sealed key has a wrong size", got=f"{len(key)} bytes")
    try:
        return AESGCM(key).decrypt(sealed.nonce, sealed.ciphertext, sealed.associated_data())
    except InvalidTag as error:
        raise AlteredSecret("the secret was altered after sealing") from error


@dataclass(slots=True)
class Delivery:
    """The files of one runtime directory. ``held`` maps delivered secrets to their versions."""

    folder: Path
    allow_disk: bool = False
    held: dict[str, int] = field(default_factory=dict)

    def prepare(self) -> None:
        """Make the directory, refuse a disk or an exposed one, remove what an earlier run left."""
        with _failing("prepare"):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _require_own(self.folder)
        if not self.allow_disk and not is_memory_backed(self.folder):
            raise RuntimeOnDisk(f"{self.folder} is not on a tmpfs")
        self.withdraw()

    def has(self, sealed: SealedSecret) -> bool:
        """Whether this version of the secret was delivered already."""
        return self.held.get(sealed.name) == sealed.version

    def deliver(
        self,
        identity: Identity,
        opened: Mapping[str, bytes],
        versions: Mapping[str, int],
        tokens: Sequence[NodeToken] = (),
    ) -> None:
        """Put a new identity in place, with the secrets in ``versions``.

        Those in ``opened`` are new; the others are kept from what is in place. Any secret that
        ``versions`` does not name is gone afterwards.
        """
        fresh = self.folder / f"{_HELD}{secrets.token_hex(8)}"
        with _failing("deliver"):
            try:
                self._write(fresh, identity, opened, versions)
                _write_tokens(fresh / "tokens", tokens)
                self._put_in_place(fresh)
            except BaseException:
                shutil.rmtree(fresh, ignore_errors=True)
                raise
        self.held = dict(versions)

    def withdraw(self) -> bool:
        """Remove identity and secrets; True if there were any."""
        self.held = {}
        with _failing("withdraw"):
            current = self.folder / CURRENT
            had_any = current.is_symlink()
            for link in (current, *(self.folder / name for name in LINKS)):
                link.unlink(missing_ok=True)
            self._remove_held(keep=None)
        return had_any

    def _write(
        self,
        fresh: Path,
        identity: Identity,
        opened: Mapping[str, bytes],
        versions: Mapping[str, int],
    ) -> None:
        for folder in (fresh, fresh / "secrets", fresh / "tokens"):
            folder.mkdir(mode=0o700)
        write_private(fresh / "node.crt", identity.certificate)
        write_private(fresh / "node.key", identity.private_key)
        for name in versions:
            target = fresh / "secrets" / safe_name(name)
            if name in opened:
                write_private(target, opened[name])
            else:
                target.hardlink_to(self.folder / CURRENT / "secrets" / name)

    def _put_in_place(self, fresh: Path) -> None:
        link = self.folder / f"{fresh.name}.link"
        link.symlink_to(fresh.name)
        link.replace(self.folder / CURRENT)
        for name in LINKS:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(Path(CURRENT, name))
        self._remove_held(keep=fresh)

    def _remove_held(self, *, keep: Path | None) -> None:
        for path in self.folder.glob(f"{_HELD}*"):
            if path.is_symlink():
                path.unlink()
            elif path != keep:
                shutil.rmtree(path)


def _write_tokens(folder: Path, tokens: Sequence[NodeToken]) -> None:
    """An audience may be an address: no character of it means anything in a path."""
    for one in tokens:
        name = quote(one.audience, safe="").replace(".", "%2E")
        write_private(folder / f"{name}.jwt", one.jwt_svid.encode())
        write_private(folder / f"{name}.result.jwt", one.result.encode())


def write_private(path: Path, content: bytes) -> None:
    """Create a file that only its owner can read; it must not exist."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)


def copy_sealed(path: Path, sealed: SealedSecret) -> None:
    """Append a sealed secret, still sealed, as one line of JSON to a file or character device."""
    line = msgspec.json.encode(sealed) + b"\n"
    with _failing("copy"):
        # Without blocking: nobody may be reading from the other end of a device.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY
        descriptor = os.open(path, flags, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as stream:
            written = 0
            while written < len(line):
                count = stream.write(line[written:])
                if not count:
                    raise DeliveryFailed(f"nobody takes the sealed copy at {path}")
                written += count


def safe_name(name: str) -> str:
    """``name`` if it is a plain file name. Raises ``UnsafeSecretName``."""
    if not _NAME.fullmatch(name):
        raise UnsafeSecretName("the name of a secret is no file name", got=repr(name[:64]))
    return name


def is_memory_backed(path: Path) -> bool:
    """Whether ``path`` lives on a tmpfs or ramfs (proc(5), mountinfo)."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, source = line.partition(" - ")
        if mount.split()[_MOUNT_DEVICE] == wanted:
            return source.split()[0] in _MEMORY_FILE_SYSTEMS
    return False


def _require_own(folder: Path) -> None:
    """Raises ``ExposedRuntime`` for a link, another user's directory, or one others may write to."""
    found = folder.lstat()
    others_may_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or others_may_write:
        raise ExposedRuntime(
            f"{folder} is not the agent's own directory",
            expected=f"a directory of user {os.geteuid()} that only it may write to",
            got=f"{stat.filemode(found.st_mode)} of user {found.st_uid}",
        )


def _bank(sealed: SealedSecret) -> HashAlg:
    try:
        return HashAlg(sealed.bank)
    except ValueError as error:
        raise FormatError("the secret is sealed to no known PCR bank") from error


@contextmanager
def _failing(verb: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DeliveryFailed(f"cannot {verb} in the runtime directory", got=str(error)) from error
