"""The inputs of a prediction: what a machine will boot, and with which firmware.

Everything here is content, already read; where it comes from is ``osimage.boot_inputs``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from catena.formats.pe import PeImage
from catena.ids import HashAlg

CAPTURED_PCRS = (0, 1, 2, 3, 6)
"""What firmware measures of itself and its settings."""

Files = tuple[tuple[str, bytes], ...]
"""Names and contents."""


@dataclass(frozen=True, slots=True)
class Firmware:
    """Secure Boot as the firmware will find it.

    ``keys`` holds the content of PK, KEK, db and dbx, which are measured as empty if absent, and of
    dbt and dbr, which are measured if they are there.
    ``owner_keys`` is true if shim's variables hold something: then it measures more than its own.
    ``sbat_level`` is shim's revocation level from an earlier boot. ``boot_variables`` are BootOrder
    and each Boot#### that it names, in its order; none before firmware's first boot.
    """

    secure_boot: bool
    keys: Mapping[str, bytes]
    owner_keys: bool = False
    sbat_level: bytes = b""
    boot_variables: Files = ()


@dataclass(frozen=True, slots=True)
class Capture:
    """What firmware measured of itself in an earlier boot of such a machine, by bank and PCR."""

    name: str
    pcrs: Mapping[HashAlg, Mapping[int, bytes]]


@dataclass(frozen=True, slots=True)
class Sidecar:
    """Files beside a unified kernel image, and those for every image of the ESP (``global_…``).

    ``smbios_line`` is the OEM string ``io.systemd.stub.kernel-cmdline-extra``.
    """

    credentials: Files = ()
    global_credentials: Files = ()
    extensions: Files = ()
    configurations: Files = ()
    addons: tuple[tuple[str, PeImage], ...] = ()
    global_addons: tuple[tuple[str, PeImage], ...] = ()
    smbios_line: str | None = None


@dataclass(frozen=True, slots=True)
class BootPath:
    """One way through the boot. ``name`` says which, if there are several.

    ``shim`` and ``loader`` come before ``image``, which is a unified kernel image or, with
    ``options`` and ``initrds``, a plain kernel. ``loader_configuration`` is loader.conf.
    ``detour`` says why ``shim`` will not start what follows it.
    """

    name: str
    image: PeImage
    shim: PeImage | None = None
    loader: PeImage | None = None
    loader_configuration: bytes | None = None
    options: str | None = None
    initrds: tuple[bytes, ...] = ()
    sidecar: Sidecar = field(default_factory=Sidecar)
    detour: str | None = None


@dataclass(frozen=True, slots=True)
class BootInputs:
    """All that a prediction rests on; ``partition_table`` is UEFI_GPT_DATA of the boot disk."""

    firmware: Firmware
    paths: tuple[BootPath, ...]
    partition_table: bytes | None = None
    capture: Capture | None = None
