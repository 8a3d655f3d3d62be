from __future__ import annotations

import shutil

import msgspec
import pytest

from catena.formats.dsse import Subject
from catena.formats.references import ReleaseManifest
from catena.keys.documents import open_document, seal_document
from catena.keys.envelope import ForgedEnvelope, UntrustedSigner
from catena.keys.hierarchy import KeyName
from catena.osimage import release
from catena.osimage.authenticode import ForeignSigner, UnsignedImage
from catena.osimage.release import IncompleteRelease
from catena.osimage.verify import AlteredRelease, verify_release

SUBJECT = [Subject(name="x", digest={"sha256": "00"})]


@pytest.fixture
def copy(built, tmp_path):
    return shutil.copytree(built[0], tmp_path / "copy")


@pytest.fixture
def verify(keys):
    def check(folder):
        return verify_release(
            folder, [keys.public_key(KeyName.RELEASE)], [keys.certificate(KeyName.DB)]
        )

    return check


def flip(path, at):
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def reseal(folder, keys, **fields):
    """What an insider with the release key could publish."""
    path = folder / release.MANIFEST
    public = keys.public_key(KeyName.RELEASE)
    manifest = open_document(path.read_bytes(), [public], ReleaseManifest)
    changed = msgspec.structs.replace(manifest, **fields)
    path.write_bytes(seal_document(changed, SUBJECT, keys.signer(KeyName.RELEASE)))


def test_finished_release_verifies(built, verify):
    folder, manifest = built
    assert verify(folder) == manifest


@pytest.mark.parametrize("name", [*release.FILES, release.MANIFEST])
def test_missing_file_is_named(copy, verify, name):
    (copy / name).unlink()
    with pytest.raises(IncompleteRelease, match=name):
        verify(copy)


@pytest.mark.parametrize(
    ("name", "what"),
    [(release.UKI, "UKI file"), (release.ROOT_IMAGE, "root file system"), (release.DISK, "disk")],
)
@pytest.mark.parametrize("at", [0, 3000, -1])
def test_flipped_bit_in_any_file_is_refused(copy, verify, name, what, at):
    path = copy / name
    flip(path, at % path.stat().st_size)
    with pytest.raises(AlteredRelease, match=what):
        verify(copy)


def test_manifest_altered_after_signing_is_refused(copy, verify):
    path = copy / release.MANIFEST
    envelope = msgspec.json.decode(path.read_bytes())
    payload = envelope["payload"]
    envelope["payload"] = ("A" if payload[40] != "A" else "B").join((payload[:40], payload[41:]))
    path.write_bytes(msgspec.json.encode(envelope))
    with pytest.raises(ForgedEnvelope):
        verify(copy)


def test_strangers_are_not_believed(built, keys):
    release_key, db = keys.public_key(KeyName.RELEASE), keys.certificate(KeyName.DB)
    with pytest.raises(UntrustedSigner):
        verify_release(built[0], [keys.public_key(KeyName.LOG)], [db])
    with pytest.raises(ForeignSigner):
        verify_release(built[0], [release_key], [keys.certificate(KeyName.KEK)])


def test_unsigned_kernel_image_is_refused_even_if_the_manifest_names_it(copy, keys, verify):
    from catena.formats import pe

    image = pe.parse((copy / release.UKI).read_bytes())
    stripped = bytearray(image.data[: image.certificates_at])
    stripped[image.security_at : image.security_at + 8] = bytes(8)
    (copy / release.UKI).write_bytes(stripped)
    import hashlib

    manifest = verify_manifest(copy, keys)
    uki = msgspec.structs.replace(manifest.uki, file_sha256=hashlib.sha256(stripped).hexdigest())
    reseal(copy, keys, uki=uki)
    with pytest.raises(UnsignedImage):
        verify(copy)


def verify_manifest(folder, keys):
    sealed = (folder / release.MANIFEST).read_bytes()
    return open_document(sealed, [keys.public_key(KeyName.RELEASE)], ReleaseManifest)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("UKI digests", lambda m: {"uki": _uki(m, authenticode={"sha256": "00"})}),
        ("UKI sections", lambda m: {"uki": _uki(m, sections={})}),
        ("command line", lambda m: {"command_line": m.command_line + " init=/bin/sh"}),
        ("root parameter", lambda m: {"root": msgspec.structs.replace(m.root, data_blocks=99)}),
        ("root file system", lambda m: {"name": "other"}),
        ("expected events", lambda m: {"events": m.events[1:]}),
        ("expected sha256 PCRs", lambda m: {"pcrs": {**m.pcrs, "sha256": {}}}),
    ],
)
def test_manifest_that_contradicts_its_files_is_refused(copy, keys, verify, what, change):
    reseal(copy, keys, **change(verify_manifest(copy, keys)))
    with pytest.raises(AlteredRelease, match=what):
        verify(copy)


def _uki(manifest, **fields):
    return msgspec.structs.replace(manifest.uki, **fields)
