"""Verifying a release: signature, then every digest down to the last block.

The steps follow the chain that a boot follows, each by itself:

1. the manifest is signed by the release key;
2. the UKI is the named file, signed by db, with the named Authenticode and section digests;
3. its command line is the named one and carries the named root hash;
4. the root file system hashes to that root hash;
5. the disk is the named one, and its partitions are found by that root hash;
6. the measurements that the manifest expects are those of this UKI and this disk.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509

from catena.errors import Refusal
from catena.formats import gpt, pe
from catena.formats.gpt import FIRST_USABLE, SECTOR, PartitionTable
from catena.formats.pe import PeImage
from catena.formats.references import ReleaseManifest
from catena.keys.documents import open_document
from catena.keys.signer import PublicKey
from catena.osimage import authenticode, predict, release, uki, verity

MAX_UKI = 1 << 30
_SHOWN = 160


class AlteredRelease(Refusal):
    """A part of a release that is not what its signed manifest says."""

    code = "altered-release"
    remedy = "Do not install this release; obtain it again from its publisher."


def verify_release(
    folder: Path, release_keys: Sequence[PublicKey], db_certificates: Sequence[x509.Certificate]
) -> ReleaseManifest:
    """Verify the release in ``folder`` and return its manifest.

    Raises the errors of ``keys.envelope`` and ``osimage.authenticode``, ``AlteredRelease``,
    ``IncompleteRelease`` or ``FormatError``.
    """
    # (1) the manifest
    envelope = release.read_file(folder / release.MANIFEST)
    manifest = open_document(envelope, release_keys, ReleaseManifest)
    # (2) and (3) the UKI and its command line
    content = release.read_file(folder / release.UKI, MAX_UKI)
    image = _verify_uki(content, manifest, db_certificates)
    # (4) the root file system
    _verify_root(folder / release.ROOT_IMAGE, manifest)
    # (5) the disk
    table = _verify_disk(folder / release.DISK, manifest)
    # (6) the prediction
    _verify_prediction(manifest, image, table)
    return manifest


def _verify_uki(
    content: bytes, manifest: ReleaseManifest, certificates: Sequence[x509.Certificate]
) -> PeImage:
    _same("UKI file", manifest.uki.file_sha256, hashlib.sha256(content).hexdigest())
    image = pe.parse(content)
    authenticode.verify(image, certificates)
    actual = {bank.value: image.authenticode(bank).hex() for bank in predict.BANKS}
    _same("UKI digests", manifest.uki.authenticode, actual)
    _same("UKI sections", manifest.uki.sections, uki.section_digests(image, predict.BANKS))
    line = predict.section_content(image, ".cmdline").decode("ascii", errors="replace")
    _same("command line", manifest.command_line, line)
    words = [word for word in line.split() if word.startswith(release.ROOT_PARAMETER)]
    _same("root parameter", [release.root_parameter(manifest.root)], words)
    return image


def _verify_root(image: Path, manifest: ReleaseManifest) -> None:
    salt = verity.release_salt(manifest.name, manifest.version, release.sha256_of(image))
    tree = verity.build(image, salt=salt, identity=uuid.UUID(int=0))
    _same("root file system", manifest.root, tree.root)


def _verify_disk(path: Path, manifest: ReleaseManifest) -> PartitionTable:
    _same("disk", manifest.disk_sha256, release.sha256_of(path).hex())
    table = gpt.parse(release.read_file(path, FIRST_USABLE * SECTOR))
    expected = set(verity.partition_guids(manifest.root.root_hash))
    missing = expected - {partition.guid for partition in table.partitions}
    _same("partitions", set(), missing)
    return table


def _verify_prediction(manifest: ReleaseManifest, image: PeImage, table: PartitionTable) -> None:
    events = (*predict.release_events(image, table), *predict.module_events(image))
    _same("expected events", manifest.events, events)
    for bank, values in predict.pcr_values(events).items():
        stated = manifest.pcrs.get(bank, {})
        _same(f"expected {bank} PCRs", values, {pcr: stated.get(pcr) for pcr in values})


def _same(what: str, expected: object, got: object) -> None:
    """Refuse a difference. Long values are shown by their beginning."""
    if expected != got:
        raise AlteredRelease(
            f"{what} of the release differs from its manifest",
            expected=ascii(expected)[:_SHOWN],
            got=ascii(got)[:_SHOWN],
        )
