"""Building a release: everything that may run on a node, measured beforehand and signed.

Order matters, because each step binds the one before it::

    tree ─ squashfs ─ hash tree ─ command line ─┐
    tree + modules ─ initrd ────────────────────┼─ UKI ─ signature ─ disk ─ prediction ─ manifest
    kernel, stub ───────────────────────────────┘

Equal input gives equal bytes: no dates, no random numbers, no order of directory reads. The folder
appears complete or not at all.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from catena.errors import NotFound, Unavailable, UsageError
from catena.formats import pe
from catena.formats.dsse import Subject
from catena.formats.gpt import PartitionTable
from catena.formats.references import KeySet, ReleaseManifest, Uki
from catena.keys.documents import seal_document
from catena.keys.hierarchy import KeyFolder, KeyName
from catena.osimage import authenticode, disk, initrd, predict, release, rootfs, tool, uki, verity
from catena.osimage.modules import DEFAULT_MODULES
from catena.osimage.tree import Tree
from catena.osimage.verity import HashTree

ARCHITECTURE = "x86-64"
DEFAULT_STUB = Path(tool.EFI_STUB.name)


class ReleaseExists(UsageError):
    """A build would overwrite something; releases are never overwritten."""

    code = "release-exists"
    remedy = "Choose another output folder, or remove the old one."


class MissingInput(NotFound):
    """A file that the release is to be made from does not exist or is not readable."""

    code = "missing-input"
    remedy = "Check the path; `catena os build --help` says what each input is."


class KernelMismatch(UsageError):
    """Modules of another kernel, which this one would refuse to load."""

    code = "kernel-mismatch"
    remedy = "Give the kernel and the modules folder of the same package."


class ReleaseUnwritable(Unavailable):
    """The disk is full, or the folder is not writable."""

    code = "release-unwritable"
    remedy = "Free some space; a build needs about three times the size of the packed tree."


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a release is made from. ``tree`` is the root file system, ``modules`` the folder
    ``lib/modules/VERSION`` of ``kernel``, ``keyset`` the firmware keys to predict PCR 7 for.
    """

    name: str
    version: str
    security_version: int
    kernel: Path
    modules: Path
    tree: Path
    stub: Path = DEFAULT_STUB
    command_line: str = release.DEFAULT_COMMAND_LINE
    module_names: Sequence[str] = DEFAULT_MODULES
    excludes: Sequence[str] = rootfs.DEFAULT_EXCLUDES
    revokes: Sequence[str] = ()
    keyset: KeySet | None = None

    def identity(self) -> bytes:
        """What tells this release from all others, before anything is built."""
        return f"{self.name}\n{self.version}\n".encode()


@dataclass(frozen=True, slots=True)
class _Root:
    """The finished root file system."""

    image: Path
    tree: HashTree


def build(recipe: Recipe, keys: KeyFolder, output: Path) -> ReleaseManifest:
    """Make the release in the new folder ``output`` and return its manifest.

    Raises ``UsageError``, ``NotFound``, ``Unavailable`` and ``FormatError`` subclasses.
    """
    _check(recipe, output)
    tool.require(tool.BUILD_TOOLS)
    try:
        room = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise _unwritable(output, error) from error
    try:
        manifest = _build_in(room, recipe, keys)
        room.chmod(0o755)
        _flush(room)
        room.rename(output)
    except OSError as error:
        raise _unwritable(output, error) from error
    finally:
        shutil.rmtree(room, ignore_errors=True)
    return manifest


def _build_in(room: Path, recipe: Recipe, keys: KeyFolder) -> ReleaseManifest:
    root = _build_root(room, recipe)
    line = release.command_line(recipe.command_line, root.tree.root)
    image = _build_uki(room, recipe, line, keys)
    contents = disk.Contents(
        identity=recipe.identity() + root.tree.root.root_hash.encode(),
        uki=room / release.UKI,
        root_image=root.image,
        tree=root.tree,
    )
    table = disk.build(contents, room / release.DISK, room)
    manifest = _manifest(room, recipe, image, root, table)
    subjects = [
        Subject(name=name, digest={"sha256": release.sha256_of(room / name).hex()})
        for name in release.FILES
    ]
    envelope = seal_document(manifest, subjects, keys.signer(KeyName.RELEASE))
    (room / release.MANIFEST).write_bytes(envelope)
    return manifest


def _build_root(room: Path, recipe: Recipe) -> _Root:
    image = room / release.ROOT_IMAGE
    rootfs.build(Tree(recipe.tree), recipe.excludes, image)
    image.chmod(0o644)
    salt = verity.release_salt(recipe.name, recipe.version, release.sha256_of(image))
    identity = disk.derived_guid(recipe.identity() + salt, "verity")
    return _Root(image, verity.build(image, salt=salt, identity=identity))


def _build_uki(room: Path, recipe: Recipe, line: str, keys: KeyFolder) -> pe.PeImage:
    tree = Tree(recipe.tree)
    parts = (
        uki.Part(".osrel", tree.read(PurePosixPath("/etc/os-release"))),
        uki.Part(".cmdline", line.encode("ascii")),
        uki.Part(".initrd", initrd.build(tree, recipe.modules, recipe.module_names)),
        uki.Part(".linux", recipe.kernel.read_bytes()),
    )
    unsigned = uki.assemble(recipe.stub.read_bytes(), parts)
    signed = authenticode.sign(unsigned, keys.signer(KeyName.DB), keys.certificate(KeyName.DB))
    (room / release.UKI).write_bytes(signed)
    return pe.parse(signed)


def _manifest(
    room: Path,
    recipe: Recipe,
    image: pe.PeImage,
    root: _Root,
    table: PartitionTable,
) -> ReleaseManifest:
    events = (*predict.release_events(image, table), *predict.module_events(image))
    pcrs = predict.pcr_values(events)
    if recipe.keyset is not None:
        for bank, values in pcrs.items():
            values["7"] = recipe.keyset.pcrs[bank]["7"]
    return ReleaseManifest(
        name=recipe.name,
        version=recipe.version,
        security_version=recipe.security_version,
        architecture=ARCHITECTURE,
        kernel=uki.kernel_release(predict.section_content(image, ".linux")),
        command_line=predict.section_content(image, ".cmdline").decode("ascii"),
        uki=Uki(
            authenticode={bank.value: image.authenticode(bank).hex() for bank in predict.BANKS},
            sections=uki.section_digests(image, predict.BANKS),
            file_sha256=release.sha256_of(room / release.UKI).hex(),
            stub=predict.stub_version(image),
        ),
        root=root.tree.root,
        disk_sha256=release.sha256_of(room / release.DISK).hex(),
        revokes=tuple(recipe.revokes),
        events=events,
        pcrs=pcrs,
    )


def _check(recipe: Recipe, output: Path) -> None:
    """Everything that can be refused before work is done."""
    if os.path.lexists(output):
        raise ReleaseExists("the output folder exists already", got=str(output))
    release.check_name(recipe.name)
    release.check_name(recipe.version)
    if recipe.security_version < 0:
        raise UsageError("a security version is not negative", got=f"{recipe.security_version}")
    for path in (recipe.kernel, recipe.stub):
        if not (path.is_file() and os.access(path, os.R_OK)):
            raise MissingInput("no readable file", got=str(path))
    for path in (recipe.modules, recipe.tree):
        if not path.is_dir():
            raise MissingInput("no such folder", got=str(path))
    running = uki.kernel_release(recipe.kernel.read_bytes())
    if recipe.modules.resolve().name != running:
        raise KernelMismatch(
            "modules are for another kernel", expected=running, got=recipe.modules.resolve().name
        )


def _flush(room: Path) -> None:
    """Wait until the release is on disk, before its name is."""
    for path in (*sorted(room.iterdir()), room):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _unwritable(output: Path, error: OSError) -> ReleaseUnwritable:
    reason = "no space left" if error.errno == errno.ENOSPC else str(error.strerror)
    return ReleaseUnwritable(f"cannot write the release: {reason}", got=str(output))
