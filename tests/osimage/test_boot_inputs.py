"""From a disk and a variable store to the ways a machine can boot, and `catena os predict`."""

from __future__ import annotations

import json

import pytest

from catena.cli.main import run
from catena.errors import FormatError
from catena.formats import pe, tcglog
from catena.formats.varstore import VarstoreError
from catena.lab.probe import make_disk
from catena.osimage import boot_inputs as b
from small_images import small_pe

BOOT = b.DEFAULT_BOOT_FILE
OFF = b.Firmware(secure_boot=False, keys={})


def program(kind, version=257, line=b"quiet"):
    magic = b"#### LoaderInfo: systemd-%s %d-test ####\0" % (kind, version)
    sections = ((".text", b"t"), (".sdmagic", magic), (".cmdline", line), (".linux", small_pe()))
    return small_pe(sections)


STUB, LOADER = program(b"stub"), program(b"boot")
ENTRY = b"title x\n# comment\nlinux /k\ninitrd /i\ninitrd /j\noptions a b\noptions c\n"


SECURE_BOOT = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


@pytest.fixture
def disk(tmp_path):
    def make(files):
        place = tmp_path / "disk.img"
        place.unlink(missing_ok=True)
        make_disk(place, "test", files)
        return place

    return make


def test_an_image_in_the_default_place_is_started(disk):
    inputs = b.of_disk(disk({BOOT: STUB}), OFF)
    (path,) = inputs.paths
    assert (path.name, path.loader, path.shim) == ("", None, None)
    assert inputs.partition_table.startswith(b"EFI PART")


def test_a_boot_loader_offers_every_entry(disk):
    files = {BOOT: LOADER, "/EFI/Linux/b.efi": STUB, "/EFI/Linux/a.efi": STUB}
    files |= {"/loader/entries/k.conf": ENTRY, "/k": small_pe(), "/i": b"1", "/j": b"2"}
    paths = b.of_disk(disk({**files, "/loader/loader.conf": b"timeout 0\n"}), OFF).paths
    assert [one.name for one in paths] == ["entry k.conf", "entry a.efi", "entry b.efi"]
    assert {one.loader_configuration for one in paths} == {b"timeout 0\n"}
    assert paths[0].options == r"initrd=\i initrd=\j a b c"
    assert paths[0].initrds == (b"1", b"2")


def test_files_beside_an_image_are_found(disk):
    beside = f"{BOOT}.extra.d"
    addon = small_pe(((".cmdline", b"x"),))
    files = {
        BOOT: STUB,
        f"{beside}/one.cred": b"1",
        f"{beside}/e.raw": b"2",
        f"{beside}/s.sysext.raw": b"3",
        f"{beside}/c.confext.raw": b"4",
        f"{beside}/a.addon.efi": addon,
        "/loader/credentials/all.cred": b"5",
        "/loader/addons/g.addon.efi": addon,
    }
    (path,) = b.of_disk(disk(files), OFF, smbios_line="s=1").paths
    extra = path.sidecar
    assert extra.credentials == (("one.cred", b"1"),)
    assert extra.global_credentials == (("all.cred", b"5"),)
    assert extra.extensions == (("e.raw", b"2"), ("s.sysext.raw", b"3"))
    assert extra.configurations == (("c.confext.raw", b"4"),)
    assert [name for name, _ in extra.addons] == ["a.addon.efi"]
    assert [name for name, _ in extra.global_addons] == ["g.addon.efi"]
    assert extra.smbios_line == "s=1"


def test_names_that_stubs_do_not_take_are_passed_over(disk):
    beside = f"{BOOT}.extra.d"
    files = {BOOT: STUB, f"{beside}/A.CRED": b"1", f"{beside}/.b.cred": b"2"}
    (path,) = b.of_disk(disk({**files, f"{beside}/\u00e9.cred": b"3"}), OFF).paths
    assert path.sidecar.credentials == (("A.CRED", b"1"),)


def test_keys_of_an_entry_may_be_followed_by_tabs(disk):
    entry = b"linux\t/k\ninitrd \t /i\noptions\ta b\n"
    files = {BOOT: LOADER, "/loader/entries/k.conf": entry, "/k": small_pe(), "/i": b"1"}
    (path,) = b.of_disk(disk(files), OFF).paths
    assert (path.options, path.initrds) == (r"initrd=\i a b", (b"1",))


@pytest.mark.parametrize("entry", [b"linux /gone\n", b"linux /k\ninitrd /gone\n", b"title x\n"])
def test_an_entry_whose_files_are_not_there_takes_no_other_with_it(disk, entry):
    files = {BOOT: LOADER, "/EFI/Linux/a.efi": STUB, "/k": small_pe()}
    (path,) = b.of_disk(disk({**files, "/loader/entries/k.conf": entry}), OFF).paths
    assert path.image == pe.parse(STUB)


def test_shim_beside_its_fallback_goes_another_way(disk):
    shim = small_pe(((".sbat", b"sbat,1,SBAT\nshim,4,UEFI shim\n"),))
    files = {BOOT: shim, "/EFI/BOOT/grubx64.efi": STUB}
    (path,) = b.of_disk(disk(files), OFF).paths
    assert path.detour is None
    (path,) = b.of_disk(disk({**files, "/EFI/BOOT/fbx64.efi": STUB}), OFF).paths
    assert "fbx64.efi" in path.detour


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({"/EFI/other.efi": STUB}, "no-boot-file"),
        ({BOOT: LOADER}, "no-boot-file"),
        ({BOOT: LOADER, "/loader/entries/k.conf": b"title x\n"}, "no-boot-file"),
        ({BOOT: LOADER, "/loader/entries/k.conf": b"linux /gone\n"}, "no-boot-file"),
        ({BOOT: b"no image"}, "malformed-pe"),
    ],
)
def test_what_cannot_boot_is_refused_by_name(disk, files, fault):
    with pytest.raises((b.NoBootFile, FormatError)) as caught:
        b.of_disk(disk(files), OFF)
    assert caught.value.code == fault
    assert caught.value.remedy


def test_a_disk_without_a_table_or_an_esp_is_refused(tmp_path, disk):
    blank = tmp_path / "blank.img"
    blank.write_bytes(bytes(1 << 20))
    with pytest.raises(FormatError):
        b.of_disk(blank, OFF)
    damaged = disk({BOOT: STUB})
    with damaged.open("r+b") as image:
        image.seek(1 << 20)
        image.write(bytes(512))
    with pytest.raises(b.NoEsp):
        b.of_disk(damaged, OFF)


def test_secure_boot_is_read_from_a_dump_of_variables(tmp_path):
    with pytest.raises(b.NoBootFile):
        b.firmware_of_dump(tmp_path)
    guid = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
    (tmp_path / f"SecureBoot-{guid}").write_bytes(b"\6\0\0\0\1")
    (tmp_path / f"PK-{guid}").write_bytes(b"\7\0\0\0key")
    (tmp_path / f"Boot0000-{guid}").write_bytes(b"\7\0\0\0x")
    assert b.firmware_of_dump(tmp_path) == b.Firmware(True, {"PK": b"key"})
    (tmp_path / "MokList-605dab50-e046-4300-abb6-3dd810dd8b23").write_bytes(b"\3\0\0\0m")
    assert b.firmware_of_dump(tmp_path).owner_keys


def test_a_store_says_whether_secure_boot_will_be_on(tmp_path):
    from datetime import UTC, datetime

    from catena.keys import hierarchy, varstore

    keys = hierarchy.init(tmp_path / "keys", organisation="T", now=datetime(2030, 1, 1, tzinfo=UTC))
    varstore.enroll(keys, varstore.DEFAULT_TEMPLATE, tmp_path / "on.fd")
    varstore.disable_secure_boot(tmp_path / "on.fd", tmp_path / "off.fd")
    on = b.firmware_of_store((tmp_path / "on.fd").read_bytes())
    off = b.firmware_of_store((tmp_path / "off.fd").read_bytes())
    assert (on.secure_boot, off.secure_boot) == (True, False)
    assert set(on.keys) == {"PK", "KEK", "db"}
    assert on.keys == off.keys
    with pytest.raises(VarstoreError):
        b.firmware_of_store(bytes(100))


def test_a_capture_may_be_a_log(tmp_path):
    from appraise.forged import corpus_boot
    from catena.measure.replay import replay

    log = corpus_boot("B_sb_own_uki").log
    capture = b.read_capture("first.log", log)
    parsed = tcglog.parse(log)
    assert set(capture.pcrs) == set(parsed.banks)
    for bank in parsed.banks:
        assert capture.pcrs[bank][0] == replay(parsed, bank).pcrs[0]
    with pytest.raises(FormatError):
        b.read_capture("x", b"{}")
    with pytest.raises(FormatError):
        b.read_capture("x", b"no log")


@pytest.fixture
def answer(capsys):
    def call(*words):
        status = run(["os", "predict", *map(str, words), "-o", "json"])
        return status, json.loads(capsys.readouterr().out)

    return call


@pytest.fixture
def efivars(tmp_path):
    folder = tmp_path / "efivars"
    folder.mkdir()
    (folder / SECURE_BOOT).write_bytes(b"\6\0\0\0\0")
    return folder


def test_the_command_lists_every_pcr(answer, disk, efivars, capsys):
    words = (
        "--disk",
        disk({BOOT: STUB}),
        "--efivars",
        efivars,
        "--bank",
        "sha1",
        "--bank",
        "sha384",
    )
    status, said = answer(*words)
    assert status == 0
    assert said["banks"] == ["sha1", "sha384"]
    assert list(said["pcrs"]) == [str(pcr) for pcr in range(16)]
    assert set(said["pcrs"]["4"]["values"][0]["digests"]) == {"sha1", "sha384"}
    assert said["pcrs"]["4"]["values"][0]["events"][2]["what"] == "unified kernel image"
    assert said["pcrs"]["0"] == {"values": [], "reason": said["pcrs"]["0"]["reason"]}
    assert run(["os", "predict", *map(str, words)]) == 0
    told = capsys.readouterr().out
    assert "PCR 0   not predicted: firmware measures itself" in told
    assert "if: after enter-initrd" in told


def test_an_image_alone_is_predicted_but_for_the_disk(answer, tmp_path, efivars):
    (tmp_path / "uki.efi").write_bytes(STUB)
    (tmp_path / "a.cred").write_bytes(b"secret")
    status, said = answer(
        *("--uki", tmp_path / "uki.efi", "--efivars", efivars),
        *("--credential", tmp_path / "a.cred"),
    )
    assert status == 0
    assert "give the disk" in said["pcrs"]["5"]["reason"]
    assert said["pcrs"]["12"]["values"][0]["events"][0]["what"] == "credentials"


def test_an_image_may_be_as_large_as_real_ones(answer, tmp_path, efivars):
    """A real kernel has 14 MB: more than any signed document."""
    large = small_pe(
        ((".sdmagic", b"#### LoaderInfo: systemd-stub 252.1 ####\0"), (".linux", bytes(5 << 20)))
    )
    (tmp_path / "uki.efi").write_bytes(large)
    (efivars / SECURE_BOOT).write_bytes(b"\6\0\0\0\1")
    status, said = answer("--uki", tmp_path / "uki.efi", "--efivars", efivars)
    assert status == 0
    assert "no key of db accepts" in said["pcrs"]["4"]["reason"]


def test_boot_variables_are_read_in_their_order(efivars):
    guid = SECURE_BOOT.partition("-")[2]
    for name, data in (
        ("BootOrder", b"\2\0\x0a\0\7\0"),
        ("Boot000A", b"ten"),
        ("Boot0002", b"two"),
    ):
        (efivars / f"{name}-{guid}").write_bytes(bytes(4) + data)
    assert b.firmware_of_dump(efivars).boot_variables == (
        ("BootOrder", b"\2\0\x0a\0\7\0"),
        ("Boot0002", b"two"),
        ("Boot000A", b"ten"),
    )
    (efivars / f"BootOrder-{guid}").unlink()
    assert b.firmware_of_dump(efivars).boot_variables == ()


@pytest.mark.parametrize("words", [(), ("--disk", "a", "--uki", "b")])
def test_either_a_disk_or_an_image_is_needed(answer, efivars, words):
    status, said = answer(*words, "--efivars", efivars)
    assert (status, said["error"]["code"]) == (2, "nothing-to-boot")


def test_variables_are_needed(answer):
    status, said = answer("--uki", "x")
    assert (status, said["error"]["code"]) == (2, "usage")
