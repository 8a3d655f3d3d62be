"""Where a lab keeps its things: one folder, by default ``.catena`` in the current one.

::

    .catena/
    ├── keys/        the enterprise's keys (never leave this folder)
    ├── firmware/    variable stores and the key set reference
    ├── tree/        the root file system before it became a release
    ├── release/     the signed release: manifest, UKI, disk
    ├── containers/  publishers' keys, the container policy, images, the data disk
    ├── vendor/      the authority that certifies the lab's TPMs
    ├── server/      the trust service: settings, database, transparency log
    ├── machines/    one folder a machine: TPM state, variables, console
    └── run/         what is running now
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from catena.errors import UsageError
from catena.lab.machine import GUEST_SERVER, Hardware
from catena.lab.swtpm import Vendor
from catena.lab.tree import Cache

SERVER = "server"
"""The name of the trust service's unit; machines have other names."""

NODE = "node-1"
"""The lab's first machine, and the name a person gives it when approving it."""

ROLE = "worker"
SECRET = "db-password"  # noqa: S105 - the name of a secret, not one
RELEASE = "lab"
TRUST_DOMAIN = "lab.catena.internal"
AGENT_STARTED = '{"event":"started"'
"""What the agent prints on the console when it starts."""

SEALED_PORT = "/dev/virtio-ports/catena.sealed"


_MARK = ".catena-lab"
_MACHINE_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")


class NotALab(UsageError):
    """A folder that holds something, and not a lab."""

    code = "not-a-lab"
    remedy = "Give --dir a folder that is new or empty, or one that `catena lab` made."


class BadMachineName(UsageError):
    """A machine's name is the name of a folder and of a unit, and cannot be just anything."""

    code = "bad-machine-name"
    remedy = "Use up to 40 small letters, digits and dashes, such as node-2."


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folders of one lab; ``interval`` is seconds between attestations."""

    folder: Path
    cache: Cache
    interval: int = 30

    def found(self) -> None:
        """Make the folder, or recognise one that was made so. Raises ``NotALab``."""
        if self.folder.exists() and any(self.folder.iterdir()):
            if not (self.folder / _MARK).exists():
                raise NotALab("this folder holds something that is no lab", got=str(self.folder))
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / _MARK).write_text("`catena lab demo` deletes everything in this folder.\n")

    def clear(self) -> None:
        """Delete everything in a lab's folder. Raises ``NotALab`` before anything is lost."""
        self.found()
        for entry in self.folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != _MARK:
                entry.unlink()

    @property
    def keys(self) -> Path:
        """Enterprise keys."""
        return self.folder / "keys"

    @property
    def varstore(self) -> Path:
        """Firmware variables with exactly the enterprise's keys, Secure Boot on."""
        return self.folder / "firmware" / "vars.fd"

    @property
    def keyset(self) -> Path:
        """The signed key set reference that ``keys enroll`` wrote beside the store."""
        return self.folder / "firmware" / "keyset.dsse.json"

    @property
    def tree(self) -> Path:
        """The root file system tree."""
        return self.folder / "tree"

    @property
    def release(self) -> Path:
        """The release folder."""
        return self.folder / "release"

    @property
    def disk(self) -> Path:
        """The release's disk image; never written to by a machine."""
        return self.release / "disk.img"

    @property
    def containers(self) -> Path:
        """Publishers' keys, the container policy, and the images on the data disk."""
        return self.folder / "containers"

    @property
    def container_policy(self) -> Path:
        """The signed container policy, which the release holds too."""
        return self.containers / "policy.dsse.json"

    @property
    def data_disk(self) -> Path:
        """The second disk of every machine; never written to by one."""
        return self.containers / "data.img"

    @property
    def server(self) -> Path:
        """The trust service's folder."""
        return self.folder / "server"

    @property
    def profile(self) -> Path:
        """What ``server init`` wrote for the operator: address, CA, token file."""
        return self.server / "admin.toml"

    @property
    def log(self) -> Path:
        """The transparency log."""
        return self.server / "log"

    @property
    def vendor(self) -> Vendor:
        """The lab's TPM vendor."""
        return Vendor((self.folder / "vendor").absolute())

    @property
    def run(self) -> Path:
        """State of running units."""
        return self.folder / "run"

    def machine_folder(self, name: str) -> Path:
        """The folder of one machine. Raises ``BadMachineName``."""
        if _MACHINE_NAME.fullmatch(name) is None or name == SERVER:
            raise BadMachineName("a machine cannot have this name", got=ascii(name[:80]))
        return self.folder / "machines" / name

    def sealed_copy(self, name: str) -> Path:
        """Where a machine's sealed secrets (ciphertext) are copied for exercises."""
        return self.machine_folder(name) / "sealed.json"

    def orders(self, name: str) -> Path:
        """The pipe that leads to a running machine's port for orders."""
        return self.machine_folder(name) / "orders"

    def hardware(
        self, name: str, port: int, *, disk: Path | None = None, varstore: Path | None = None
    ) -> Hardware:
        """A machine of this lab; other ``disk`` and ``varstore`` are for attacks."""
        return Hardware(
            name=name,
            folder=self.machine_folder(name).absolute(),
            disk=(disk or self.disk).absolute(),
            varstore=(varstore or self.varstore).absolute(),
            vendor=self.vendor,
            server_port=port,
            sealed_copy=self.sealed_copy(name).absolute(),
            data_disk=self.data_disk.absolute(),
            orders=self.orders(name).absolute(),
        )


def guest_server_url() -> str:
    """The trust service's address as guests see it."""
    address, port = GUEST_SERVER
    return f"https://{address}:{port}"
