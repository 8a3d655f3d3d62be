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
from catena.measure.verification import EFI_CERT_X509_SHA256
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


def test_old_boot_loaders_pass_the_embedded_line_on(keys):
    passed = f"{LINE.decode()}\0".encode("utf-16-le")
    found = predicted(BootPath("", image(), loader=loader(252)))
    assert only(found[12]) == chain(passed, passed)  # by the loader, then by the stub
    db, _ = db_of(keys)
    signed_ones = BootPath("", signed(keys, image()), loader=signed(keys, loader(252)))
    keyed = predicted(signed_ones, firmware=Firmware(True, {"db": db}))
    assert only(keyed[12]) == chain(passed)  # by the loader only
    assert only(predicted(BootPath("", image(257), loader=loader(257)))[12]) == bytes(32)


def test_loader_configuration_is_measured_by_new_boot_loaders():
    conf = b"timeout 0\n"
    new = BootPath("", image(), loader=loader(257), loader_configuration=conf)
    assert only(predicted(new)[5]) == chain(SEPARATOR, TABLE, conf, *EXIT)
    for version in (252, 254):
        old = replace(new, loader=loader(version))
        assert only(predicted(old)[5]) == chain(SEPARATOR, TABLE, *EXIT)


def test_a_passed_line_keeps_the_blanks_in_front_of_it():
    for version in (252, 254):
        path = BootPath("", image(version, b"  a\tb \n"), loader=loader(version))
        passed = "  a b\0".encode("utf-16-le")
        found = predicted(path)
        assert only(found[12]) == chain(passed, passed)
        assert only(found[9]) == chain(passed, b"the initrd")


def test_an_entry_with_kernel_and_initrds_is_predicted():
    kernel = pe.parse(small_pe())
    options = r"initrd=\a initrd=\b quiet"
    path = BootPath("", kernel, loader=loader(257), options=options, initrds=(b"abc", b"d"))
    found = predicted(path)
    line = f"{options}\0".encode("utf-16-le")
    assert only(found[9]) == chain(line, b"abc\0d")
    for version in (252, 254):  # these leave it to the kernel, which does not pad
        old = predicted(replace(path, loader=loader(version)))
        assert only(old[9]) == chain(line, b"abcd")
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


def addon(line, *sections):
    return pe.parse(small_pe(((".text", line), (".cmdline", line), *sections)))


@pytest.mark.parametrize(
    ("version", "measured"),
    [
        (254, ["g=0", "a=1    b=2", " s=3  t "]),
        (257, ["g=0 a=1 b=2", "s=3  t"]),
    ],
)
def test_lines_of_addons_are_joined_as_real_stubs_did(version, measured):
    """The lines of two boots on real firmware, blanks included."""
    extra = Sidecar(
        addons=(("b.addon.efi", addon(b" b=2")), ("a.addon.efi", addon(b"a=1 \n"))),
        global_addons=(("g.addon.efi", addon(b"g=0")),),
        smbios_line=" s=3  t ",
    )
    found = predicted(BootPath("", image(version), sidecar=extra))
    assert only(found[12]) == chain(*(f"{one}\0".encode("utf-16-le") for one in measured))
    whole = " ".join((LINE.decode(), *measured))
    assert found[9].values[0].events[0].digest(SHA256) == SHA256.digest(
        f"{whole}\0".encode("utf-16-le")
    )


def test_addons_may_bring_microcode_and_initrds():
    """Microcode in front, the last addon's first; initrds behind everything."""
    extra = Sidecar(
        addons=(
            ("a.addon.efi", addon(b"", (".ucode", b"ua"), (".initrd", b"ia"))),
            ("b.addon.efi", addon(b"", (".ucode", b"ub12"))),
        )
    )
    found = predicted(BootPath("", image(257), sidecar=extra))
    assert only(found[12]) == chain(b"ub12", b"ua", b"ia")
    initrd = found[9].values[0].events[1].digest(SHA256)
    osrel = sidecar.archive(".extra", (("os-release", b"ID=x\n"),), sidecar.PUBLIC_MODES)
    assert initrd == SHA256.digest(b"ub12ua\0\0the initrd\0\0" + osrel + b"ia\0\0")
    older = predicted(BootPath("", image(254), sidecar=extra))
    assert only(older[12]) == bytes(32)


@pytest.mark.parametrize(
    ("version", "line", "kept"),
    [
        (252, b"  a b \n", "  a b"),
        (254, b"  a b \n", "  a b"),
        (257, b"  a b \n", "a b"),
        (257, b"a\tb\n", "a b"),
        (252, b"a\0b", "a"),
    ],
)
def test_blanks_around_the_command_line_are_the_stubs_matter(version, line, kept):
    found = predicted(BootPath("", image(version, line)))[9]
    assert found.values[0].events[0].digest(SHA256) == SHA256.digest(
        f"{kept}\0".encode("utf-16-le")
    )


@pytest.mark.parametrize("version", STUBS)
def test_an_empty_command_line_is_measured_by_nobody(version):
    """Neither by the stub, to which an empty section is none, nor by the kernel."""
    found = predicted(BootPath("", image(version, b"")))
    assert [one.what for one in found[9].values[0].events] == ["initrd"]
    assert not any(".cmdline" in one.what for one in found[11].values[0].events)


@pytest.mark.parametrize("version", STUBS)
def test_keys_and_signatures_for_the_system_follow_the_initrd(version):
    """Each in a cpio of its own; of .pcrsig nothing else is measured."""
    extra = ((".pcrsig", b"{}"), (".pcrpkey", b"a key"))
    found = predicted(BootPath("", image(version, extra=extra)))
    files = [("tpm2-pcr-signature.json", b"{}"), ("tpm2-pcr-public-key.pem", b"a key")]
    files += [("os-release", b"ID=x\n")] * (version == 257)
    archives = [sidecar.archive(".extra", (one,), sidecar.PUBLIC_MODES) for one in files]
    assert found[9].values[0].events[1].digest(SHA256) == SHA256.digest(
        b"the initrd\0\0" + b"".join(archives)
    )
    assert not any(".pcrsig" in one.what for one in found[11].values[0].events)


def test_an_image_with_profiles_is_not_guessed():
    extra = ((".profile", b"ID=one\n"), (".profile", b"ID=two\n"))
    found = predicted(BootPath("", image(257, extra=extra)))
    assert all("profiles" in found[pcr].reason for pcr in (9, 11, 12, 13))


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
    """Firmware goes on with something else: nothing may be said of any PCR that follows."""
    db, _ = db_of(keys)
    found = predicted(BootPath("", image()), firmware=Firmware(True, {"db": db}))
    for pcr in (4, 5, 7, 8, 9, 11, 12, 13, 14):
        assert found[pcr].values == ()
        assert found[pcr].reason == (
            "no key of db accepts unified kernel image: it will not be started"
        )


def test_an_addon_that_no_key_accepts_is_passed_over(keys):
    db, _ = db_of(keys)
    extra = Sidecar(
        addons=(("a.addon.efi", signed(keys, addon(b"good=1"))), ("b.addon.efi", addon(b"bad=1")))
    )
    path = BootPath("", signed(keys, image(257)), sidecar=extra)
    found = predicted(path, firmware=Firmware(True, {"db": db}))
    assert only(found[12]) == chain("good=1\0".encode("utf-16-le"))
    assert len(found[4].values[0].events) == 4  # remark, separator, image, one addon


def test_an_image_whose_certificate_dbx_has_will_not_start(keys):
    from cryptography.hazmat.primitives.serialization import Encoding

    db, _ = db_of(keys)
    certificate = keys.certificate(KeyName.DB)
    whole = SignatureEntry(SHIM_LOCK, certificate.public_bytes(Encoding.DER))
    content = SHA256.digest(certificate.tbs_certificate_bytes) + bytes(16)  # at no time
    for kind, entry in (
        (EFI_CERT_X509, whole),
        (EFI_CERT_X509_SHA256, SignatureEntry(SHIM_LOCK, content)),
    ):
        dbx = SignatureList(kind, (entry,)).encode()
        firmware = Firmware(True, {"db": db, "dbx": dbx})
        assert predicted(BootPath("", signed(keys, image())), firmware=firmware)[7].reason


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
        captured = found[pcr].values[0]
        assert captured.digests == {SHA256: value}  # the bank it was captured in
        assert captured.branch == "firmware as captured in board-7"
    # Firmware that is not as captured is still another way for PCRs 2, 3 and 6.
    assert [len(found[pcr].values) for pcr in (0, 1, 2, 3, 6)] == [1, 1, 2, 2, 2]


def test_a_capture_that_the_rules_confirm_is_one_value_in_every_bank():
    found = predicted(capture=Capture("board-7", {SHA256: {2: chain(SEPARATOR)}}))[2]
    assert only(found) == chain(SEPARATOR)
    assert set(found.values[0].digests) == set(BANKS)
    assert found.values[0].branch.startswith("firmware as captured in board-7 or no option ROM")


def test_boot_variables_are_measured_by_content_in_their_order():
    options = (("BootOrder", b"\1\0\0\0"), ("Boot0001", b"one"), ("Boot0000", b"zero"))
    found = predicted(firmware=Firmware(False, {}, boot_variables=options))[1]
    assert only(found) == chain(b"\1\0\0\0", b"one", b"zero", SEPARATOR)
    assert "as they are stored" in found.values[0].branch


def ima_values(**capture):
    values = {pcr: chain(SEPARATOR) for pcr in (0, 1, 2, 3, 6)}
    return predicted(capture=Capture("board-7", {SHA256: values}), **capture)[10].values


def test_kernels_differ_in_imas_first_entry():
    values = {one.branch.rpartition("template ")[2]: one.digests for one in ima_values()}
    built_in = ", SHA-384 and SHA-512 built into the kernel"
    assert set(values) == {
        "the kernel has no IMA",
        *(f"{name}{end}" for name in ("ima-ng", "ima-sig") for end in ("", built_in)),
    }
    assert set(values["the kernel has no IMA"].values()) == {bytes(bank.size) for bank in BANKS}
    for name in ("ima-ng", "ima-sig"):
        late, early = values[name], values[f"{name}{built_in}"]
        assert {bank for bank in BANKS if late[bank] != early[bank]} == {
            HashAlg.SHA384,
            HashAlg.SHA512,
        }


def test_imas_first_entry_is_of_one_way_through_the_boot_at_a_time():
    values = {pcr: chain(SEPARATOR) for pcr in (0, 1, 2, 3, 6)}
    paths = [BootPath(f"entry {n}", image(line=b"%d" % n), loader=loader(257)) for n in range(3)]
    found = predicted(*paths, capture=Capture("board-7", {SHA256: values}))[10]
    assert found.reason is None
    assert len(found.values) == 1 + 3 * 4
    assert len({one.digests[SHA256] for one in found.values}) == 1 + 3 * 2


def test_without_option_roms_nothing_but_separators_is_measured():
    found = predicted()
    for pcr in (2, 3, 6):
        assert only(found[pcr]) == chain(SEPARATOR)
        assert "no option ROM" in found[pcr].values[0].branch


# Shim


def shim_image(generation=4, certificate=b"CRT", denied=b"DENYS"):
    numbers = (len(certificate), len(denied), 16, 16 + len(certificate))
    keys = b"".join(one.to_bytes(4, "little") for one in numbers) + certificate + denied
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


def test_a_newer_level_of_revocation_stays():
    newer = b"sbat,1,2030\nshim,9\n"
    found = shim.measurements(shim_image(), secure_boot=True, stored_level=newer)
    assert found.level == VariableData(SHIM_LOCK, "SbatLevel", newer).encode()
    older = shim.measurements(shim_image(), secure_boot=True, stored_level=b"sbat,1,2021\n")
    assert older.level == VariableData(SHIM_LOCK, "SbatLevel", b"sbat,1,2025\n").encode()


def test_shims_vendor_may_accept_what_db_does_not(keys, tmp_path):
    """As Debian's shim does with Debian's boot loader: measured as an entry of MokListRT."""
    from cryptography.hazmat.primitives.serialization import Encoding

    vendor = hierarchy.init(
        tmp_path / "vendor", organisation="Vendor", now=datetime(2030, 1, 1, tzinfo=UTC)
    )
    certificate = vendor.certificate(KeyName.DB).public_bytes(Encoding.DER)
    first = shim_image(certificate=certificate, denied=hashes(bytes(32)).encode())
    db, entry = db_of(keys, hashes(first.authenticode(SHA256)))
    path = BootPath("", signed(keys, image(257)), shim=first, loader=signed(vendor, loader(257)))
    events = predicted(path, firmware=Firmware(True, {"db": db}))[7].values[0].events[-3:]
    accepted = SignatureEntry(SHIM_LOCK, certificate).encode()
    assert [one.digest(SHA256) for one in events[1:]] == [
        SHA256.digest(VariableData(SHIM_LOCK, "MokListRT", accepted).encode()),
        SHA256.digest(variable("db", entry.encode())),
    ]


def test_a_shim_that_goes_elsewhere_is_not_followed():
    found = predicted(BootPath("", image(), shim=shim_image(), detour="it goes elsewhere"))
    assert {found[pcr].reason for pcr in (4, 5, 9, 11, 14)} == {"it goes elsewhere"}


@pytest.mark.parametrize(
    ("firmware", "generation"), [(OFF, 3), (Firmware(False, {}, owner_keys=True), 4)]
)
def test_a_shim_that_would_measure_more_is_not_guessed(firmware, generation):
    found = predicted(BootPath("", image(), shim=shim_image(generation)), firmware=firmware)
    assert found[14].values == found[7].values == ()
    assert found[14].reason == found[7].reason
