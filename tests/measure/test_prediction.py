"""Predictions from small images: right where they can be, and honest where they cannot.

That real boots measure what is predicted is for ``tests/boot/test_prediction.py`` to show.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import reduce
from pathlib import PurePosixPath

import pytest
from recorded_boots import load_boot

from catena.formats import efi, pe, varstore
from catena.formats.efi import (
    EFI_CERT_SHA256,
    EFI_CERT_X509,
    EFI_GLOBAL_VARIABLE,
    IMAGE_SECURITY_DATABASE,
    SHIM_LOCK,
    SignatureEntry,
    SignatureList,
    VariableData,
)
from catena.ids import HashAlg
from catena.keys import hierarchy
from catena.keys.hierarchy import KeyName
from catena.measure import shim, sidecar
from catena.measure.boot_path import BootInputs, BootPath, Capture, Firmware, Sidecar
from catena.measure.prediction import PHASES, predict
from catena.measure.stub import STUBS, program
from catena.osimage import authenticode, cpio
from changed import replace
from small_images import small_pe

BANKS = tuple(HashAlg)[:4]
SHA256 = HashAlg.SHA256
OFF = Firmware(secure_boot=False, keys={})
TABLE = b"EFI PART and so on"
LINE = b"console=ttyS0 quiet"


def image(version=252, line=LINE, extra=(), kernel=None):
    magic = b"#### LoaderInfo: systemd-stub %d.1-test ####\0" % version
    return pe.parse(
        small_pe(
            (
                *((".text", b"\xc3" * 64), (".sdmagic", magic), (".sbat", b"sbat,1\n")),
                *((".osrel", b"ID=x\n"), (".cmdline", line), (".initrd", b"the initrd")),
                *((".linux", kernel or small_pe()), *extra),
            )
        )
    )


def loader(version):
    magic = b"#### LoaderInfo: systemd-boot %d.1-test ####\0" % version
    return pe.parse(small_pe(((".text", b"\x90" * 9), (".sdmagic", magic))))


def predicted(*paths, firmware=OFF, capture=None, table=TABLE):
    inputs = BootInputs(firmware, paths or (BootPath("", image()),), table, capture)
    return {one.pcr: one for one in predict(inputs, BANKS).pcrs}


def chain(*contents, bank=SHA256):
    return reduce(
        lambda value, one: bank.digest(value + bank.digest(one)), contents, bytes(bank.size)
    )


def extended(*digests, bank=SHA256):
    return reduce(lambda value, one: bank.digest(value + one), digests, bytes(bank.size))


def only(prediction, bank=SHA256):
    (value,) = prediction.values
    assert prediction.reason is None
    return value.digests[bank]


CALLING, SEPARATOR = b"Calling EFI Application from Boot Option", bytes(4)
EXIT = (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success")


@pytest.mark.parametrize("bank", BANKS)
def test_a_direct_boot_is_predicted_in_every_bank(bank):
    found = predicted()
    uki = image()
    inner = pe.parse(uki.content(uki.section(".linux")))
    starts = [bank.digest(one) for one in (CALLING, SEPARATOR)]
    assert only(found[4], bank) == extended(
        *starts, uki.authenticode(bank), inner.authenticode(bank), bank=bank
    )
    assert only(found[5], bank) == chain(SEPARATOR, TABLE, *EXIT, bank=bank)
    line = f"{LINE.decode()}\0".encode("utf-16-le")
    assert only(found[9], bank) == chain(line, b"the initrd", bank=bank)
    assert {only(found[pcr], bank) for pcr in (8, 12, 13, 14, 15)} == {bytes(bank.size)}


def test_every_pcr_is_listed_with_values_or_a_reason():
    found = predicted(table=None)
    assert list(found) == list(range(16))
    assert all(one.values or one.reason for one in found.values())
    assert "give the disk" in found[5].reason
    assert "capture" in found[0].reason
    assert found[10].reason == "IMA's first entry is over PCRs 0–9; unknown: 0, 1, 5"


def test_secure_boot_off_is_predicted_from_the_real_store():
    """PCR 7 of the two recorded boots without Secure Boot, from their variable stores."""
    for name in ("A_nosb_uki", "G_nosb_sdboot_type1"):
        boot = load_boot(name)
        store = boot_folder(name) / "vars.fd"
        values = {one.name: one.data for one in varstore.parse(store.read_bytes())}
        firmware = Firmware(False, {key: values[key] for key in ("PK", "db") if values.get(key)})
        found = predict(BootInputs(firmware, (BootPath("", image()),)), boot.log.banks)
        (value,) = found.pcrs[7].values
        assert all(value.digests[bank] == boot.pcr(7, bank) for bank in boot.log.banks)


def boot_folder(name):
    from recorded_boots import CORPUS

    return CORPUS / "boots" / name


@pytest.mark.parametrize("version", STUBS)
def test_sections_are_measured_in_the_stubs_own_order(version):
    uki = image(version, extra=((".ucode", b"microcode"),))
    events = predicted(BootPath("", uki))[11].values[0].events
    names = [one.what.removeprefix("name of section ") for one in events[::2]]
    known = [name for name in STUBS[version].sections if uki.section(name) is not None]
    assert names == known
    assert (".sbat" in names) == (version > 252)
    assert (".ucode" in names) == (version == 257)


def test_boot_phases_are_branches_of_pcr_11():
    values = predicted()[11].values
    assert [one.branch for one in values] == [
        "as the kernel starts",
        *(f"after {phase}" for phase in PHASES),
    ]
    assert values[1].digests[SHA256] == SHA256.digest(
        values[0].digests[SHA256] + SHA256.digest(b"enter-initrd")
    )


@pytest.mark.parametrize("version", [251, 253, 999])
def test_a_stub_that_no_boot_has_confirmed_is_not_guessed(version):
    found = predicted(BootPath("", image(version)))
    for pcr in (4, 9, 11, 12, 13):
        assert found[pcr].values == ()
        assert f"systemd-stub {version}.1-test" in found[pcr].reason
    assert found[7].values


def test_a_boot_loader_that_no_boot_has_confirmed_is_not_guessed():
    found = predicted(BootPath("", image(), loader=loader(251)))
    assert "systemd-boot 251" in found[4].reason
    assert found[11].values


def test_several_entries_are_branches():
    one, other = image(line=b"one"), image(line=b"other")
    paths = [
        BootPath(f"entry {name}", uki, loader=loader(257))
        for name, uki in (("one", one), ("other", other))
    ]
    found = predicted(*paths)
    assert [value.branch for value in found[4].values] == ["entry one", "entry other"]
    assert found[4].values[0].digests != found[4].values[1].digests
    assert [value.branch for value in found[5].values] == [""]  # both leave it the same
    assert len(found[11].values) == 2 * (1 + len(PHASES))


def test_old_boot_loaders_pass_the_embedded_line_on():
    passed = f"{LINE.decode()}\0".encode("utf-16-le")
    found = predicted(BootPath("", image(), loader=loader(252)))
    assert only(found[12]) == chain(passed, passed)  # by the loader, then by the stub
    keyed = Firmware(True, {"db": b""})
    assert only(predicted(BootPath("", image(), loader=loader(252)), firmware=keyed)[12]) == chain(
        passed
    )
    assert only(predicted(BootPath("", image(257), loader=loader(257)))[12]) == bytes(32)


def test_loader_configuration_is_measured_by_new_boot_loaders():
    conf = b"timeout 0\n"
    new = BootPath("", image(), loader=loader(257), loader_configuration=conf)
    assert only(predicted(new)[5]) == chain(SEPARATOR, TABLE, conf, *EXIT)
    assert only(predicted(replace(new, loader=loader(252)))[5]) == chain(SEPARATOR, TABLE, *EXIT)


def test_an_entry_with_kernel_and_initrds_is_predicted():
    kernel = pe.parse(small_pe())
    options = r"initrd=\a initrd=\b quiet"
    path = BootPath("", kernel, loader=loader(257), options=options, initrds=(b"abc", b"d"))
    found = predicted(path)
    line = f"{options}\0".encode("utf-16-le")
    assert only(found[9]) == chain(line, b"abc\0d")
    assert only(found[12]) == chain(line)
    assert only(found[11].__class__(11, found[11].values[:1])) == bytes(32)


def test_addons_and_smbios_add_to_the_command_line():
    addon = pe.parse(small_pe(((".text", b"a"), (".cmdline", b"addon=1\n"))))
    extra = Sidecar(addons=(("a.addon.efi", addon),), smbios_line="smbios=1")
    found = predicted(BootPath("", image(257), sidecar=extra))
    added = [f"{one}\0".encode("utf-16-le") for one in ("addon=1", "smbios=1")]
    assert only(found[12]) == chain(*added)
    assert [event.what for event in found[4].values[0].events][
        3
    ] == "addon a.addon.efi of the image"
    assert found[9].values[0].events[0].digest(SHA256) == SHA256.digest(
        f"{LINE.decode()} addon=1 smbios=1\0".encode("utf-16-le")
    )
    # Version 252 knows neither.
    assert only(predicted(BootPath("", image(252), sidecar=extra))[12]) == bytes(32)


def test_how_old_stubs_join_several_addons_is_not_guessed():
    addon = pe.parse(small_pe(((".text", b"a"), (".cmdline", b"addon=1"))))
    extra = Sidecar(addons=(("a.addon.efi", addon), ("b.addon.efi", addon)))
    found = predicted(BootPath("", image(254), sidecar=extra))
    assert "several addons" in found[12].reason


@pytest.mark.parametrize(
    ("version", "line", "kept"),
    [(252, b"  a b \n", "  a b"), (257, b"  a b \n", "a b"), (254, b"a b\n", "a b")],
)
def test_blanks_around_the_command_line_are_the_stubs_matter(version, line, kept):
    found = predicted(BootPath("", image(version, line)))[9]
    assert found.values[0].events[0].digest(SHA256) == SHA256.digest(
        f"{kept}\0".encode("utf-16-le")
    )


@pytest.mark.parametrize(("version", "line"), [(254, b" a"), (252, b"a\x07b")])
def test_a_command_line_that_no_boot_has_shown_is_not_guessed(version, line):
    found = predicted(BootPath("", image(version, line)))
    assert found[9].values == ()
    assert found[9].reason


# Sidecars: digests that systemd-stub 252 and 257 measured in real boots


def test_archives_are_byte_for_byte_those_of_the_stub():
    secret, public = sidecar.SECRET_MODES, sidecar.PUBLIC_MODES
    made = {
        "4c2883de133d": (".extra/credentials", (("one.cred", b"a credential"),), secret),
        "400f0750398c": (".extra/sysext", (("e.sysext.raw", b"raw"),), public),
        "e4106e031202": (".extra/confext", (("c.confext.raw", b"conf"),), public),
    }
    for measured, parts in made.items():
        assert SHA256.digest(sidecar.archive(*parts)).hex()[:12] == measured
    assert sidecar.archive(".extra/credentials", (), secret) == b""


def test_archives_unpack_to_what_went_in():
    files = (("b.cred", b"2"), ("a.cred", b"one"))
    wire = sidecar.archive(".extra/credentials", files, sidecar.SECRET_MODES)
    assert cpio.read_files(wire) == {
        PurePosixPath(f"/.extra/credentials/{name}"): content for name, content in files
    }


def test_credentials_change_pcrs_9_and_12_and_no_other():
    with_them = predicted(
        BootPath("", image(), sidecar=Sidecar(credentials=(("one.cred", b"a credential"),)))
    )
    changed = [pcr for pcr, one in predicted().items() if one.values != with_them[pcr].values]
    assert {9, 12} <= set(changed)
    assert not {4, 5, 7, 13} & {
        pcr for pcr in changed if only_digests(predicted()[pcr]) != only_digests(with_them[pcr])
    }


def only_digests(prediction):
    return [one.digests for one in prediction.values]


# Secure Boot


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys") / "keys"
    return hierarchy.init(folder, organisation="Test", now=datetime(2030, 1, 1, tzinfo=UTC))


def signed(keys, one):
    wire = authenticode.sign(one.data, keys.signer(KeyName.DB), keys.certificate(KeyName.DB))
    return pe.parse(wire)


def db_of(keys, *before):
    from cryptography.hazmat.primitives.serialization import Encoding

    certificate = keys.certificate(KeyName.DB).public_bytes(Encoding.DER)
    entry = SignatureEntry(SHIM_LOCK, certificate)
    lists = (*before, SignatureList(EFI_CERT_X509, (entry,)))
    return efi.encode_signature_lists(lists), entry


def hashes(*digests):
    return SignatureList(EFI_CERT_SHA256, tuple(SignatureEntry(SHIM_LOCK, one) for one in digests))


def variable(name, data):
    own = name.startswith("db")
    guid = IMAGE_SECURITY_DATABASE if own else EFI_GLOBAL_VARIABLE
    return VariableData(guid, name, data).encode()


def test_each_key_that_lets_an_image_run_is_measured_once(keys):
    db, entry = db_of(keys)
    firmware = Firmware(True, {"PK": b"p", "db": db})
    path = BootPath("", signed(keys, image(257)), loader=signed(keys, loader(257)))
    value = only(predicted(path, firmware=firmware)[7])
    assert value == chain(
        variable("SecureBoot", b"\1"),
        variable("PK", b"p"),
        variable("KEK", b""),
        variable("db", db),
        variable("dbx", b""),
        SEPARATOR,
        variable("db", entry.encode()),
    )


def test_an_image_may_be_accepted_by_its_digest(keys):
    plain = image()
    digest = plain.authenticode(SHA256)
    db, _ = db_of(keys, hashes(digest))
    found = predicted(BootPath("", plain), firmware=Firmware(True, {"db": db}))[7]
    last = found.values[0].events[-1]
    assert last.digest(SHA256) == SHA256.digest(
        variable("db", SignatureEntry(SHIM_LOCK, digest).encode())
    )


def test_an_image_that_no_key_accepts_will_not_start(keys):
    db, _ = db_of(keys)
    found = predicted(BootPath("", image()), firmware=Firmware(True, {"db": db}))[7]
    assert found.values == ()
    assert found.reason == "no key of db accepts unified kernel image: it will not be started"


def test_an_image_that_dbx_names_will_not_start(keys):
    good = signed(keys, image())
    db, _ = db_of(keys)
    dbx = efi.encode_signature_lists((hashes(b"\1" * 32, good.authenticode(SHA256)),))
    path = BootPath("", good)
    assert predicted(path, firmware=Firmware(True, {"db": db}))[7].values
    assert predicted(path, firmware=Firmware(True, {"db": db, "dbx": dbx}))[7].reason


# Firmware's own measurements


def test_a_capture_fills_what_firmware_measures_of_itself():
    values = {pcr: bytes([pcr]) * 32 for pcr in (0, 1, 2, 3, 6)}
    found = predicted(capture=Capture("board-7", {SHA256: values}))
    for pcr, value in values.items():
        assert only(found[pcr]) == value
        assert found[pcr].values[0].branch == "firmware as captured in board-7"
        assert list(found[pcr].values[0].digests) == [SHA256]  # the bank it was captured in
    assert [one.branch.rpartition("template ")[2] for one in found[10].values] == [
        "ima-ng",
        "ima-sig",
    ]


def test_without_option_roms_nothing_but_separators_is_measured():
    found = predicted()
    for pcr in (2, 3, 6):
        assert only(found[pcr]) == chain(SEPARATOR)
        assert "no option ROM" in found[pcr].values[0].branch


# Shim


def shim_image(generation=4):
    keys = (3).to_bytes(4, "little") + (5).to_bytes(4, "little")
    keys += (16).to_bytes(4, "little") + (19).to_bytes(4, "little") + b"CRTDENYS"
    levels = bytes(4) + (8).to_bytes(4, "little") + (20).to_bytes(4, "little")
    levels += b"sbat,1,2025\n\0" + b"sbat,1,2026\n\0"
    sbat = f"sbat,1,SBAT\nshim,{generation},UEFI shim\n".encode()
    sections = ((".text", b"s"), (".sbat", sbat), (".vendor", keys), (".levels", levels))
    found = pe.parse(small_pe(sections))
    names = {".vendor": ".vendor_cert", ".levels": ".sbatlevel"}  # too long for a section header
    renamed = tuple(replace(one, name=names.get(one.name, one.name)) for one in found.sections)
    return replace(found, sections=renamed)


def test_shim_is_told_by_its_generation():
    assert (program(shim_image()).kind, program(shim_image()).version) == ("shim", 4)
    assert program(pe.parse(small_pe())).kind == "other"


def test_shims_own_keys_and_level_are_measured():
    found = predicted(BootPath("", image(), shim=shim_image()))
    certificate = SignatureList(EFI_CERT_X509, (SignatureEntry(SHIM_LOCK, b"CRT"),)).encode()
    assert only(found[14]) == chain(certificate, b"DENYS", b"\1")
    (value,) = found[7].values
    level = VariableData(SHIM_LOCK, "SbatLevel", shim.FIRST_LEVEL).encode()
    assert value.events[-1].digest(SHA256) == SHA256.digest(level)


def test_shim_revokes_only_under_secure_boot():
    for secure_boot, level in ((True, b"sbat,1,2025\n"), (False, shim.FIRST_LEVEL)):
        found = shim.measurements(shim_image(), secure_boot=secure_boot)
        assert found.level == VariableData(SHIM_LOCK, "SbatLevel", level).encode()


@pytest.mark.parametrize(
    ("firmware", "generation"), [(OFF, 3), (Firmware(False, {}, owner_keys=True), 4)]
)
def test_a_shim_that_would_measure_more_is_not_guessed(firmware, generation):
    found = predicted(BootPath("", image(), shim=shim_image(generation)), firmware=firmware)
    assert found[14].values == found[7].values == ()
    assert found[14].reason == found[7].reason
