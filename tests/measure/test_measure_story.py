"""Boots told from real logs, and what a forged log cannot make a story say."""

from __future__ import annotations

import csv
import sys

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded_boots import CORPUS, load_boot

from catena.formats import efi, tcglog
from catena.formats.efi import EFI_GLOBAL_VARIABLE, VariableData
from catena.formats.tcglog import NO_ACTION, EventType
from catena.ids import HashAlg
from catena.measure.story import tell
from changed import replace

SHA256 = HashAlg.SHA256
LAPTOPS = {
    "t14": ("R1BET56W", False, 3, 83),
    "t14s": ("N2YET26W ", False, 3, 77),
    "t480s": ("N22ET68W ", True, 3, 0),
}


def _logs():
    if not CORPUS.is_dir():
        return []
    csv.field_size_limit(sys.maxsize)
    lines = (CORPUS / "eventlogs/TRUTH.tsv").read_text().splitlines()
    return [row["file"] for row in csv.DictReader(lines, delimiter="\t")]


@pytest.mark.parametrize("name", _logs())
def test_every_real_log_is_told(corpus, name):
    log = tcglog.parse((corpus / "eventlogs" / name).read_bytes())
    for bank in log.banks:
        story = tell(log, bank)
        text = msgspec.json.encode(story).decode()
        assert text.isprintable()
        assert story.events == len(log.events)


@pytest.mark.parametrize("laptop", LAPTOPS)
def test_a_laptop_is_told_with_its_keys_and_what_ran(corpus, laptop):
    version, secure_boot, images, hashes = LAPTOPS[laptop]
    name = f"Foxboron+sbctl__tests__tpm_eventlogs__{laptop}_eventlog"
    story = tell(tcglog.parse((corpus / "eventlogs" / name).read_bytes()), SHA256)
    assert (story.firmware_version, story.secure_boot) == (version, secure_boot)
    assert len([one for one in story.images if one.pcr == 4]) == images
    assert sum(one.startswith("sha256:") for one in story.keys["dbx"]) == hashes
    assert any("systemd-boot" in one.untrusted_path for one in story.images)
    assert story.partitions
    assert story.problems == ()


def test_an_own_key_boot_is_told_from_keys_to_initrd():
    story = tell(load_boot("D_sb_own_uki_creds").log, SHA256)
    assert story.keys["db"] == ("CN=DTC db,O=DTC Test",)
    (image,) = story.images
    assert image.authorised_by == "CN=DTC db,O=DTC Test (db)"
    assert image.untrusted_path.endswith("BOOTX64.EFI")
    assert list(story.uki_sections) == [".linux", ".osrel", ".cmdline", ".initrd"]
    assert [one.untrusted_words for one in story.extensions] == [
        "Credentials initrd",
        "System extension initrd",
    ]
    assert (len(story.load_options), len(story.initrds)) == (1, 1)
    assert story.disk_guid == "d7c0d15c-0000-4000-8000-000000000001"
    assert [one.name for one in story.partitions] == ["esp"]


def test_a_command_line_from_outside_the_image_is_told():
    story = tell(load_boot("C_sb_own_sdboot_uki").log, SHA256)
    assert story.command_lines == ("console=ttyS0 quiet loglevel=1 root=/dev/ram0 dtc.id=test",)


def test_the_kernel_is_known_to_have_got_the_command_line_if_the_digests_agree():
    story = tell(load_boot("G_nosb_sdboot_type1").log, SHA256)
    (options,) = story.load_options
    assert (options.text,) == story.command_lines
    (unknown,) = tell(load_boot("B_sb_own_uki").log, SHA256).load_options
    assert unknown.text is None


def test_shim_is_told_with_its_level_and_keys(corpus):
    name = "tpm2-software+tpm2-tools__test__integration__fixtures__event-moklisttrusted.bin"
    story = tell(tcglog.parse((corpus / "eventlogs" / name).read_bytes()), SHA256)
    assert story.sbat_level == "sbat,1,2021030218"
    assert any(one.startswith("MokList: ") for one in story.machine_owner_keys)
    assert "search --no-floppy" in story.boot_loader_commands[0]
    assert [one.pcr for one in story.images][:3] == [2, 4, 4]
    assert story.images[2].authorised_by.endswith("(Shim)")


def test_windows_is_named(corpus):
    name = "google+go-attestation__attest__testdata__windows_gcp_shielded_vm.json.decoded0.bin"
    story = tell(tcglog.parse((corpus / "eventlogs" / name).read_bytes()), HashAlg.SHA1)
    assert story.windows > 5
    assert (story.command_lines, story.extensions, story.machine_owner_keys) == ((), (), ())


def test_lines_of_old_boot_loaders_are_proven(corpus):
    """systemd-boot before 251 logged one byte less than it hashed; GRUB before 2.04, no colons."""
    laptop = "Foxboron+sbctl__tests__tpm_eventlogs__t14_eventlog"
    story = tell(tcglog.parse((corpus / "eventlogs" / laptop).read_bytes()), SHA256)
    (line,) = story.command_lines
    assert line.startswith(r"initrd=\amd-ucode.img ")
    assert line.endswith(" rw")
    server = "google+go-eventlog__testdata__eventlogs__tpm__rhel8-uefi.bin"
    story = tell(tcglog.parse((corpus / "eventlogs" / server).read_bytes()), SHA256)
    assert all(story.boot_loader_commands)
    (kernel,) = story.kernel_lines
    assert kernel.startswith("(hd0,gpt2)/boot/vmlinuz-4.18.0-240.22.1.el8_3.x86_64 root=UUID=")


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("google+go-eventlog__testdata__eventlogs__tpm__debian-10.bin", "GCE Virtual Firmware v1"),
        (
            "google+go-eventlog__testdata__eventlogs__tpm__arch-linux-workstation.bin",
            "546bfb1e-1d0c-4055-a4ad-4ef4bf17b83a",
        ),
        ("9elements+tpmtool__pkg__tpm__tests__binary_bios_measurements_tpm12_bios", "G5B1a"),
        ("_selfgen__B_sb_own_uki__eventlog.bin", ""),
    ],
)
def test_a_firmware_version_is_text_or_guid(corpus, name, version):
    log = tcglog.parse((corpus / "eventlogs" / name).read_bytes())
    told = tell(log, SHA256 if SHA256 in log.banks else HashAlg.SHA1).firmware_version
    assert told is not None
    assert told.startswith(version)


def test_another_text_of_firmware_is_not_its_version_by_type(log, edit, measured):
    """Whoever sends the log writes the types: the version's is not looked at."""
    event = measured(0, EventType.EV_S_CRTM_VERSION, b"ACPI DATA\0")
    events = [log.events[0], log.events[2], event, *log.events[3:]]
    assert tell(edit(log, events), SHA256).firmware_version is None


def test_registers_of_a_confidential_vm_follow_other_rules(corpus):
    name = "google+go-eventlog__testdata__eventlogs__ccel__cos-113-intel-tdx.bin"
    story = tell(tcglog.parse((corpus / "eventlogs" / name).read_bytes()), HashAlg.SHA384)
    assert story.format == "ccel"
    assert story.secure_boot is False
    assert (len(story.images), len(story.partitions)) == (2, 12)
    assert "set default=2" in story.boot_loader_commands
    assert not [one for one in story.problems if one.code != "edited-data"]


def problems(log, bank=SHA256):
    return [one.code for one in tell(log, bank).problems]


def test_a_sound_log_has_no_problems(boot):
    assert problems(boot.log) == []


def test_every_fault_of_a_log_is_named(log, edit, measured):
    """Several at once: the story names them all, where `check` stops at the first."""
    events = list(log.events)
    first = next(i for i, e in enumerate(events) if e.type == EventType.EV_SEPARATOR)
    doubled = [*events, events[first], measured(2, EventType.EV_EFI_ACTION, b"late")]
    assert problems(edit(log, doubled)) == ["doubled-separator", "event-after-separator"]
    without = [e for e in events if not (e.pcr == 5 and e.type == EventType.EV_SEPARATOR)]
    assert problems(edit(log, without)) == ["missing-separator"]
    retyped = [replace(e, type=EventType.EV_IPL) if e is events[first] else e for e in events]
    assert problems(edit(log, retyped)) == ["retyped-event"]


RELABELLED = [(5, b"EFI PART"), (7, b"d\0b\0x\0"), (11, b".\0o\0s\0r\0e\0l\0")]


@pytest.mark.parametrize(("pcr", "content"), RELABELLED)
def test_another_type_is_named_and_changes_no_fact(log, edit, pcr, content):
    at = next(i for i, e in enumerate(log.events) if e.pcr == pcr and content in e.data)
    event = replace(log.events[at], type=EventType.EV_ACTION)
    honest = tell(log, SHA256)
    story = tell(edit(log, [*log.events[:at], event, *log.events[at + 1 :]]), SHA256)
    assert ("retyped-event", at) in [(one.code, one.event) for one in story.problems]
    assert msgspec.structs.replace(story, problems=()) == honest


def test_a_forged_locality_and_a_blank_bank_are_named(log, edit, no_action):
    forged = edit(log, [*log.events, no_action(tcglog.STARTUP_LOCALITY + b"\3")])
    assert problems(forged) == ["forged-startup-locality"]
    blank = [
        replace(e, digests={**e.digests, SHA256: bytes(32)}) if e.type != NO_ACTION else e
        for e in log.events
    ]
    assert "never-extended-bank" in problems(edit(log, blank))


def test_an_event_without_a_digest_is_not_called_edited(log, edit):
    at = next(i for i, e in enumerate(log.events) if e.type == EventType.EV_EFI_ACTION)
    event = log.events[at]
    bare = replace(event, digests={k: v for k, v in event.digests.items() if k != SHA256})
    codes = problems(edit(log, [*log.events[:at], bare, *log.events[at + 1 :]]))
    assert codes == ["missing-digest"]


def test_edited_data_is_named_and_believed_nowhere(log, edit):
    at = next(i for i, e in enumerate(log.events) if e.pcr == 7 and b"S\0e\0c\0u\0r\0e\0" in e.data)
    off = replace(log.events[at], data=log.events[at].data[:-1] + b"\0")
    story = tell(edit(log, [*log.events[:at], off, *log.events[at + 1 :]]), SHA256)
    assert [(one.code, one.event) for one in story.problems] == [("edited-data", at)]
    assert story.secure_boot is None
    assert any(one.event == at for one in story.untrusted)


def test_a_variable_measured_twice_is_named(log, edit, measured):
    at = next(i for i, e in enumerate(log.events) if e.type == EventType.EV_SEPARATOR)
    other = VariableData(EFI_GLOBAL_VARIABLE, "SecureBoot", b"\0").encode()
    twice = [
        *log.events[:at],
        measured(7, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, other),
        *log.events[at:],
    ]
    story = tell(edit(log, twice), SHA256)
    assert "contradictory-variable" in [one.code for one in story.problems]
    assert (story.secure_boot, story.keys) == (None, {})


FACTS = (
    *("firmware_version", "secure_boot", "keys", "authorities", "sbat_level", "uki_sections"),
    *("phases", "disk_guid", "partitions"),
)
"""What a story says without the word untrusted."""

LINES = ("boot_loader_commands", "kernel_lines", "command_lines")
"""Which of them a proven line is may be the boot loader's word; what it says is not."""

LIARS = (
    "_selfgen__D_sb_own_uki_creds__eventlog.bin",
    "tpm2-software+tpm2-tools__test__integration__fixtures__event-moklisttrusted.bin",
    "Foxboron+sbctl__tests__tpm_eventlogs__t14_eventlog",
    "google+go-eventlog__testdata__eventlogs__tpm__rhel8-uefi.bin",
    "google+go-eventlog__testdata__eventlogs__ccel__cos-113-intel-tdx.bin",
    "Dstack-TEE+dstack__dstack__cc-eventlog__samples__tpm_eventlog.bin",
)
STORIES = {}


def honest(folder, name):
    """A real log and its story, told once."""
    if name not in STORIES:
        log = tcglog.parse((folder / "eventlogs" / name).read_bytes())
        bank = SHA256 if SHA256 in log.banks else log.banks[0]
        STORIES[name] = (log, bank, tell(log, bank))
    return STORIES[name]


def lie(event, kind, data, flip):
    """The event with another type, other data, or one bit of its data flipped."""
    if NO_ACTION not in {kind, event.type}:
        event = replace(event, type=kind)
    if data is not None:
        return replace(event, data=data)
    if flip and event.data:
        at, content = flip % len(event.data), bytearray(event.data)
        content[at] ^= 1 << flip % 8
        return replace(event, data=bytes(content))
    return event


@pytest.mark.parametrize("name", LIARS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.integers(0, 400),
    change=st.tuples(
        st.sampled_from([0, *map(int, EventType)]),
        st.none() | st.binary(max_size=60),
        st.integers(0, 5000),
    ),
)
def test_retyped_or_edited_events_never_change_what_is_still_claimed(corpus, name, place, change):
    """Types and unhashed data may lie: a fact disappears, or stays what it was."""
    log, bank, told_before = honest(corpus, name)
    event = log.events[place % len(log.events)]
    changed = lie(event, *change)
    events = tuple(changed if one is event else one for one in log.events)
    lied = tell(replace(log, events=events), bank)
    for fact in FACTS:
        told, true = getattr(lied, fact), getattr(told_before, fact)
        if isinstance(true, dict):
            assert told == {} or all(true.get(key) == told[key] for key in told), fact
        elif isinstance(true, tuple):
            assert set(told) <= {*true, "not proven"}, fact
        else:
            assert told in {true, None}, fact
    lines, known = (
        {one for name in LINES for one in getattr(story, name)} for story in (lied, told_before)
    )
    assert lines <= known


def test_boot_options_are_told_in_words():
    story = tell(load_boot("B_sb_own_uki").log, SHA256)
    assert story.boot_options[0] == "BootOrder: 0001, 0000, 0002"
    assert story.boot_options[1].startswith("Boot0001: UEFI QEMU HARDDISK")


def test_a_damaged_boot_option_is_told_in_hex():
    assert efi.boot_variable_text(VariableData(EFI_GLOBAL_VARIABLE, "Boot0001", b"xyz")) == "78797a"
