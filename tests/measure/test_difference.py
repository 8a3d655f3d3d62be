"""What changed between two boots, as sentences that a person can act on."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from fuzz_seeds import db_certificate
from hypothesis import given
from hypothesis import strategies as st
from recorded_boots import CORPUS, load_boot

from catena.formats import efi, tcglog
from catena.formats.references import ExpectedEvent
from catena.formats.tcglog import EventType
from catena.ids import HashAlg
from catena.measure.difference import (
    _keys,
    compare,
    key_changes,
    side_of_log,
    side_of_reference,
)
from catena.measure.images import known_images
from catena.measure.signers import authority
from changed import replace
from small_images import small_pe

SHA256 = HashAlg.SHA256


def small_uki(line, kernel=b"kernel"):
    return small_pe(((".linux", kernel), (".cmdline", line)))


def difference(old, new, **images):
    sides = [side_of_log(name, log, SHA256, **images) for name, log in (("a", old), ("b", new))]
    return compare(*sides, SHA256)


def boots(*names):
    return [load_boot(name).log for name in names]


def test_a_boot_does_not_differ_from_itself(boot):
    found = difference(boot.log, boot.log)
    assert (found.identical, found.changes, found.changed_pcrs) == (True, (), ())
    assert set(found.same_pcrs) >= {0, 1, 2, 3, 4, 5, 6, 7}


def test_credentials_show_where_they_were_measured():
    found = difference(*boots("B_sb_own_uki", "D_sb_own_uki_creds"))
    assert found.changed_pcrs == (9, 12, 13)
    assert [(one.pcr, one.how) for one in found.changes] == [
        (9, "changed"),
        (12, "added"),
        (13, "added"),
    ]
    assert found.changes[1].sentence == (
        "extension 'Credentials initrd' (untrusted words) was added"
    )


def test_enrolled_keys_and_secure_boot_are_told_by_name():
    found = difference(*boots("A_nosb_uki", "B_sb_own_uki"))
    told = {one.subject: one.details for one in found.changes if one.pcr == 7}
    assert told["SecureBoot"] == ("SecureBoot: off → on",)
    assert told["db"] == ("db gained certificate CN=DTC db,O=DTC Test",)
    back = difference(*boots("B_sb_own_uki", "A_nosb_uki"))
    lost = {one.subject: one.details for one in back.changes if one.pcr == 7}
    assert lost["PK"] == ("PK lost certificate CN=DTC PK,O=DTC Test",)


def test_a_boot_loader_in_between_and_its_command_line_are_told():
    found = difference(*boots("B_sb_own_uki", "C_sb_own_sdboot_uki"))
    assert found.changed_pcrs == (4, 12)
    (loader,) = (one for one in found.changes if one.pcr == 4)
    assert loader.details[0] == f"+ {loader.after}"
    assert loader.details[1].endswith("BOOTX64.EFI (untrusted)")
    line = found.changes[-1]
    assert (line.how, line.sentence) == ("added", "command line was added")
    assert line.details[0].startswith("+ console=ttyS0")


def test_words_of_a_command_line_are_told_one_by_one(edit, measured):
    (log,) = boots("C_sb_own_sdboot_uki")
    at = next(i for i, e in enumerate(log.events) if e.pcr == 12)
    line = log.events[at].data.decode("utf-16-le").replace("quiet", "init=/bin/sh")
    other = measured(12, EventType.EV_IPL, line.encode("utf-16-le"))
    found = difference(log, edit(log, [*log.events[:at], other, *log.events[at + 1 :]]))
    (change,) = found.changes
    assert change.details == ("removed `quiet`", "added `init=/bin/sh`")


def test_the_same_measurements_in_another_order_are_told(edit):
    (log,) = boots("B_sb_own_uki")
    places = [i for i, e in enumerate(log.events) if e.pcr == 11]
    events = list(log.events)
    events[places[1]], events[places[3]] = events[places[3]], events[places[1]]
    found = difference(log, edit(log, events))
    assert found.changed_pcrs == (11,)
    assert found.changes


def expected(identifier, pcr, data):
    digests = {SHA256.value: SHA256.digest(data).hex()}
    return ExpectedEvent(id=identifier, pcr=pcr, what=identifier, digests=digests)


def test_a_boot_is_held_against_a_release():
    """A release does not list what every boot measures, so nothing is said of that."""
    (log,) = boots("C_sb_own_sdboot_uki")
    boot = side_of_log("boot", log, SHA256)
    section = next(e for e in log.events if e.pcr == 11)
    events = (
        expected("section-name:.linux", 11, b".linux\0"),
        expected("section:.linux", 11, b"another kernel"),
    )
    release = side_of_reference(
        "release",
        events,
        {"sha256": {"11": "00" * 32, "12": "00" * 32}},
        SHA256,
        command_line="console=ttyS0 quiet",
    )
    found = compare(release, boot, SHA256)
    assert section.pcr == 11
    told = [(one.how, one.sentence) for one in found.changes]
    assert ("changed", "section .linux differs") in told
    line = next(one for one in found.changes if one.pcr == 12)
    assert "added `loglevel=1`" in line.details
    assert not any("separator" in one.sentence for one in found.changes)


def test_images_at_hand_say_which_section_and_which_word():
    old, new = small_uki(b"quiet root=/dev/vda"), small_uki(b"quiet root=/dev/vda init=/bin/sh")
    before, after = known_images([old], SHA256), known_images([new], SHA256)
    (first,), (second,) = before.images, after.images
    told = list(before.compare_images(first, second, after))
    assert told[0].startswith("digest differs from byte 0x")
    assert ".cmdline: added `init=/bin/sh`" in told
    lines = [SHA256.digest(line).hex() for line in (b"quiet root=/dev/vda", b"quiet init=/bin/sh")]
    known = known_images([old, small_uki(b"quiet init=/bin/sh")], SHA256)
    assert list(known.compare_sections(".cmdline", *lines, known)) == [
        ".cmdline: removed `root=/dev/vda`",
        ".cmdline: added `init=/bin/sh`",
    ]


def test_a_binary_section_differs_from_a_byte_on():
    old, new = (
        small_uki(b"x", kernel=b"K" * 5000),
        small_uki(b"x", kernel=b"K" * 4000 + b"L" * 1000),
    )
    before, after = known_images([old], SHA256), known_images([new], SHA256)
    told = list(before.compare_images(*before.images, *after.images, after))
    assert "section .linux differs from byte 0xfa0 (5000 bytes before, 5000 after)" in told


def test_an_image_that_nobody_measured_explains_nothing():
    known = known_images([small_uki(b"x")], SHA256)
    assert list(known.compare_images("00" * 32, "11" * 32, known)) == []
    (log,) = boots("B_sb_own_uki")
    found = difference(log, log, images=known)
    assert found.unmeasured_images == tuple(known.images)
    (section,) = (one for one, held in known.sections.items() if held.startswith(b"x"))
    assert known.strangers([section]) == ()


def real_pairs():
    """Each real log beside the next in the list: machines that have little in common."""
    names = sorted(p.name for p in (CORPUS / "eventlogs").glob("*") if p.suffix != ".tsv")
    return list(pairwise(names))


@pytest.mark.parametrize(("old", "new"), real_pairs())
def test_any_two_real_logs_are_compared(corpus, old, new):
    logs = [tcglog.parse((corpus / "eventlogs" / name).read_bytes()) for name in (old, new)]
    for bank in {*logs[0].banks} & {*logs[1].banks}:
        found = compare(*(side_of_log("log", one, bank) for one in logs), bank)
        assert {one.pcr for one in found.changes} == set(found.changed_pcrs)
        assert found.identical == (not found.changes)
        assert msgspec.json.encode(found).decode().isprintable()


NAMES = st.lists(st.sampled_from(["CN=a", "CN=b", "CN=c", "sha256:11", "sha256:22"]), max_size=5)


@given(old=NAMES, new=NAMES)
def test_key_changes_name_exactly_what_came_and_went(old, new):
    told = key_changes("db", old, new)
    for name in set(new) - set(old):
        assert any("gained" in line and name in line for line in told)
    for name in set(old) - set(new):
        assert any("lost" in line and name in line for line in told)
    if set(old) == set(new) and len(old) == len(new) and sorted(old) == sorted(new):
        assert told == ("db has the same entries in another order, or with other owners' GUIDs",)


def test_many_hashes_are_counted():
    hashes = [f"sha256:{number:064x}" for number in range(200)]
    assert key_changes("dbx", [], hashes) == ("dbx gained 200 hashes",)


@given(st.binary(max_size=40))
def test_whatever_a_log_says_is_printable(data):
    (log,) = boots("B_sb_own_uki")
    last = replace(log.events[-1], data=data, pcr=12)
    found = difference(log, replace(log, events=(*log.events[:-1], last)))
    assert msgspec.json.encode(found).decode().isprintable()


@pytest.mark.parametrize("pair", [("B_sb_own_uki", "I_sb_own_uki_smbios")])
def test_boots_that_measured_the_same_are_identical(pair):
    assert difference(*boots(*pair)).identical


def test_an_authority_is_named_as_the_story_names_it():
    der = db_certificate().public_bytes(Encoding.DER)
    bare = efi.VariableData(efi.SHIM_LOCK, "Shim", der)
    assert _keys(bare) == (authority(bare),) != ("unreadable",)
