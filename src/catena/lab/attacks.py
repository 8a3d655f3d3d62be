"""The attack gallery: what an attacker with the machine in hand tries, and where it ends.

Every attack is on a real machine of the lab. One that boots something else *holds* if the chain
stopped it at the expected place **and** the log shows that no certificate was issued and no
secret was released because of it.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import msgspec

from catena.errors import CatenaError, NotFound
from catena.formats import gpt, pe
from catena.formats.nodeapi import SealedSecret
from catena.ids import HashAlg
from catena.keys.hierarchy import open_folder
from catena.keys.varstore import disable_secure_boot
from catena.lab import container_attacks, esp, swtpm
from catena.lab.outcomes import Attack, Outcome, Where, require
from catena.lab.running import Lab, Node
from catena.lab.workspace import AGENT_STARTED, NODE
from catena.osimage.disk import ROOT_X86_64_TYPE

_BOOT_SECONDS = 180.0
_FIRMWARE_REFUSAL = ("Access Denied", "Security Violation")
_KERNEL_SPEAKS = ("Linux version", "EFI stub:")
_CORRUPTED = "is corrupted"
_SQUASHFS_INODE_TABLE = 64
"""Offset of inode_table_start in the superblock (squashfs 4.0)."""
_INTO_INODE_TABLE = 100
_UKI_PATH = "EFI/BOOT/BOOTX64.EFI"
_GRANTS = ("certificate", "secret-release")


_first_machine = threading.Lock()
"""Attacks may run side by side; there is only one first machine, with one TPM."""


def _unsigned_uki(lab: Lab) -> Outcome:
    """The release's UKI without its signature, on the release's disk."""
    machine = "attack-unsigned-uki"
    disk = _copy_disk(lab, machine)
    unsigned = esp.unsigned(_release_uki(lab))
    esp.replace_file(disk, _UKI_PATH, unsigned)
    lab.start_machine(machine, disk=disk)
    try:
        console = lab.wait_for_console(
            machine,
            lambda text: any(said in text for said in (*_FIRMWARE_REFUSAL, *_KERNEL_SPEAKS)),
            seconds=_BOOT_SECONDS,
            what="answer of the firmware",
        )
    finally:
        lab.unit(machine).stop()
    spoke = any(said in lab.console(machine) for said in _KERNEL_SPEAKS)
    require("an unsigned kernel image booted", held=not spoke)
    require("the machine came up", held=_never_attested(lab, machine))
    return Outcome("unsigned-uki", "firmware", _line_with(console, _FIRMWARE_REFUSAL))


def _flipped_bit(lab: Lab) -> Outcome:
    """One bit of the root partition, in the table of inodes that every boot reads."""
    machine = "attack-flipped-bit"
    disk = _copy_disk(lab, machine)
    partition = esp.partition(disk, ROOT_X86_64_TYPE).first_lba * gpt.SECTOR
    with disk.open("r+b") as image:
        image.seek(partition + _SQUASHFS_INODE_TABLE)
        place = partition + int.from_bytes(image.read(8), "little") + _INTO_INODE_TABLE
        image.seek(place)
        byte = image.read(1)[0]
        image.seek(place)
        image.write(bytes([byte ^ 0x10]))
    lab.start_machine(machine, disk=disk)
    try:
        console = lab.wait_for_console(
            machine,
            lambda text: _CORRUPTED in text or AGENT_STARTED in text,
            seconds=_BOOT_SECONDS,
            what="answer of the kernel",
        )
        require("the kernel read a changed block", held=_CORRUPTED in console)
        lab.wait_off(machine, seconds=_BOOT_SECONDS)
    finally:
        lab.unit(machine).stop()
    require(
        "the machine came up from a changed root file system", held=_never_attested(lab, machine)
    )
    return Outcome("flipped-bit", "kernel (dm-verity)", _line_with(console, (_CORRUPTED,)))


def _unreleased_uki(lab: Lab) -> Outcome:
    """A UKI signed with our own db, command line changed: the insider's or yesterday's image."""
    keys = open_folder(lab.workspace.keys)
    rogue = esp.resigned_with(_release_uki(lab), b" systemd.log_level=info", keys)
    disk = _copy_disk(lab, NODE)
    esp.replace_file(disk, _UKI_PATH, rogue)
    digest = pe.parse(rogue).authenticode(HashAlg.SHA256).hex()
    node = _boot_until_untrusted(lab, disk=disk)
    named = [found for found in node["reasons"] if found.get("digest") == digest]
    require("the verdict does not name the unreleased image's digest", held=bool(named))
    return Outcome("unreleased-uki", "attestation", f"{named[0]['message']} ({digest[:12]}…)")


def _secure_boot_off(lab: Lab) -> Outcome:
    """Secure Boot switched off in the variable store; everything else untouched."""
    varstore = lab.workspace.machine_folder(NODE) / "secure-boot-off.fd"
    varstore.unlink(missing_ok=True)
    disable_secure_boot(lab.workspace.varstore, varstore)
    node = _boot_until_untrusted(lab, varstore=varstore)
    named = [found for found in node["reasons"] if "SecureBoot" in found["message"]]
    require("no reason names the variable SecureBoot", held=bool(named))
    # The sentence about the variable itself, not the one about the key set as a whole.
    closest = next((found for found in named if found["code"] == "unclaimed-event"), named[0])
    return Outcome("secure-boot-off", "attestation", str(closest["message"]))


def _moved_disk(lab: Lab) -> Outcome:
    """The disk in another machine, and the first machine's sealed secret in both TPMs."""
    machine = "attack-moved-disk"
    known = {node["id"] for node in lab.nodes()}
    lab.start_machine(machine)
    try:
        stranger = lab.wait_stranger(machine, known, seconds=_BOOT_SECONDS)
    finally:
        lab.unit(machine).stop()
    require("an unknown TPM was trusted", held=stranger["state"] != "trusted")
    require("an unknown TPM got a certificate", held=stranger["certificate_expires"] is None)
    elsewhere = _try_to_open(lab, machine)
    with _first_machine:
        at_home_unbooted = _try_to_open(lab, NODE)
    require(f"the other TPM answered {elsewhere}", held=elsewhere == "sealed-elsewhere")
    require(
        f"the TPM on the bench: {at_home_unbooted}", held=at_home_unbooted == "wrong-boot-state"
    )
    seen = (
        f"new TPM waits for approval; secret: {elsewhere} there, "
        f"{at_home_unbooted} in its own TPM without the boot"
    )
    return Outcome("moved-disk", "enrolment and TPM", seen)


MACHINES = (
    Attack(
        "unsigned-uki",
        "put an unsigned kernel image on the ESP",
        "firmware refuses it, nothing boots",
        _unsigned_uki,
        where=Where.ELSEWHERE,
    ),
    Attack(
        "flipped-bit",
        "flip one bit of the root partition",
        "the kernel refuses the block, the node never attests",
        _flipped_bit,
        where=Where.ELSEWHERE,
    ),
    Attack(
        "unreleased-uki",
        "boot an image signed by our db that is in no release",
        "boots, untrusted, the unclaimed digest is named",
        _unreleased_uki,
    ),
    Attack(
        "secure-boot-off",
        "switch Secure Boot off in the variable store",
        "boots, untrusted, the variable is named",
        _secure_boot_off,
    ),
    Attack(
        "moved-disk",
        "move the disk to a machine with another TPM",
        "not enrolled, no certificate, sealed secret stays shut",
        _moved_disk,
        where=Where.ELSEWHERE,
    ),
)


GALLERY = (*container_attacks.GALLERY, *MACHINES)
"""Every attack; those on the first machine while it runs come first."""


class NoSuchAttack(NotFound):
    """No attack has this name."""

    code = "no-such-attack"
    remedy = f"Attacks: {', '.join(attack.name for attack in GALLERY)}, or all."


def named(name: str) -> tuple[Attack, ...]:
    """The attacks that ``name`` or ``all`` stands for. Raises ``NoSuchAttack``."""
    found = tuple(attack for attack in GALLERY if name in {attack.name, "all"})
    if not found:
        raise NoSuchAttack("no such attack", got=ascii(name[:80]))
    return found


def run(attack: Attack, lab: Lab) -> Outcome:
    """Run one attack against a lab whose server runs and whose first node has joined.

    For an attack on the first machine it must run (``first_machine_on``). Raises
    ``AttackSucceeded`` if the chain did not hold.
    """
    if attack.where is Where.ON_FIRST:  # trusted until it is attacked, and granted what it asks
        return attack.run(lab)
    on_first = attack.where is Where.INSTEAD_OF_FIRST
    before = _grants(lab, to_first=on_first)
    with _first_machine if on_first else nullcontext():
        outcome = attack.run(lab)
    granted = _grants(lab, to_first=on_first)
    require(f"the log shows grants: {before} before, {granted} after", held=granted == before)
    return outcome


@contextmanager
def first_machine_on(lab: Lab) -> Iterator[None]:
    """The first machine, running and attested; off afterwards."""
    unit = lab.unit(NODE)
    with _first_machine:
        if not unit.running():
            before = lab.last_attested(NODE)
            lab.start_machine(NODE)
            lab.wait_attested(NODE, since=before, seconds=_BOOT_SECONDS)
        try:
            yield
        finally:
            unit.stop()


def _grants(lab: Lab, *, to_first: bool) -> int:
    """How many certificates and secrets the log has recorded as handed out.

    Either to the first machine or to all others: machines are attacked side by side.
    """
    words = ("--key", lab.workspace.keys / "log.pub", "--entries")
    listed = lab.operator.run("audit", "verify", lab.workspace.log, *words)
    return sum(
        entry["kind"] in _GRANTS and (entry["node"] == NODE) is to_first
        for entry in listed["entries"]
    )


def _boot_until_untrusted(
    lab: Lab, *, disk: Path | None = None, varstore: Path | None = None
) -> Node:
    before = lab.last_attested(NODE)
    lab.start_machine(NODE, disk=disk, varstore=varstore)
    try:
        listed = lab.wait_attested(NODE, since=before, seconds=_BOOT_SECONDS)
    finally:
        lab.unit(NODE).stop()
    node = lab.node(NODE) or listed
    require("the changed machine was found trusted", held=node["last_verdict"] == "untrusted")
    require("the changed machine keeps its standing", held=node["state"] == "untrusted")
    return node


def _never_attested(lab: Lab, machine: str) -> bool:
    """Whether no agent ever started there: no line of it on the console."""
    return AGENT_STARTED not in lab.console(machine)


def _try_to_open(lab: Lab, machine: str) -> str:
    """Try the first node's sealed secret in a machine's TPM on the bench; the error's code."""
    # Only this attack needs the TPM library, which a host may lack.
    from catena.agent.delivery import open_sealed  # noqa: PLC0415
    from catena.tpm.device import open_tpm  # noqa: PLC0415

    text = lab.workspace.sealed_copy(NODE).read_bytes().splitlines()[0]
    sealed = msgspec.json.decode(text, type=SealedSecret)
    folder = lab.workspace.machine_folder(machine).absolute()
    with swtpm.bench(folder / "tpm", folder / "bench.log") as tcti, open_tpm(tcti) as tpm:
        try:
            open_sealed(tpm, sealed)
        except CatenaError as error:
            return error.code
    return "opened"


def _copy_disk(lab: Lab, machine: str) -> Path:
    folder = lab.workspace.machine_folder(machine)
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / "attacked-disk.img"
    shutil.copyfile(lab.workspace.disk, copy)
    return copy


def _release_uki(lab: Lab) -> bytes:
    return (lab.workspace.release / "uki.efi").read_bytes()


def _line_with(text: str, words: tuple[str, ...]) -> str:
    return next(
        (line.strip() for line in text.splitlines() if any(word in line for word in words)), ""
    )[:160]
