from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from catena.errors import ExitCode, Refusal
from catena.formats import efi, tcglog
from catena.formats.efi import SignatureEntry, SignatureList, VariableData
from catena.formats.tcglog import STARTUP_LOCALITY, Event, EventType
from catena.ids import HashAlg
from catena.measure import grammar
from catena.measure.grammar import check
from changed import replace

SHA256 = HashAlg.SHA256
EVENTLOGS = Path(__file__).resolve().parents[2].parent / "shared/corpus/eventlogs"


def _separator(log, pcr):
    return next(e.index for e in log.events if e.pcr == pcr and e.type == EventType.EV_SEPARATOR)


def test_every_real_boot_is_accepted_in_every_bank(boot):
    for bank in boot.log.banks:
        check(boot.log, bank)


# Logs of real machines that break a rule, and why the rule stands.
REFUSED = {
    # UEFI programs measured as option ROMs behind the separator of PCR 2
    "Dstack-TEE+dstack__dstack__cc-eventlog__samples__tpm_eventlog.bin": "event-after-separator",
    "keylime+rust-keylime__keylime-push-model-agent__test-data__uefi_log.bin": (
        "event-after-separator"
    ),
    # platform settings measured behind the separator of PCR 1
    "keylime+keylime__test__data__create-mb-policy__binary_bios_measurements": (
        "event-after-separator"
    ),
    "tpm2-software+tpm2-tss__test__data__fapi__eventlog__binary_measurements_pc_client.b64"
    ".decoded0.bin": "event-after-separator",
    # "DMA Protection Disabled" in PCR 7
    "intel+trustauthority-client-for-go__go-tpm__test_data__binary_bios_measurements20": (
        "event-after-separator"
    ),
    # a firmware blob of four zero bytes: indistinguishable from a retyped separator
    "google+go-eventlog__testdata__eventlogs__tpm__glinux-alex.bin": "retyped-event",
    # only PCR 7 is ever closed
    "google+go-attestation__attest__testdata__sb_cert_eventlog": "missing-separator",
    # OpenPOWER: no UEFI at all
    "kgoldman+acs__acs__tpm2bios.log": "extended-no-action",
    "open-power+skiboot__hdata__test__op920.wsp.heap.decoded0.bin": "event-after-separator",
    # TXT's own log, and pieces of logs made for other tests
    "intel-secl+intel-secl__pkg__tagent__test__eventlog__txt-logs.bin": "never-extended-bank",
    "intel-secl+intel-secl__pkg__tagent__test__eventlog__txt_heap_info.bin.decoded0.bin": (
        "never-extended-bank"
    ),
    "google+go-attestation__attest__eventlog_test.go.decoded0.bin": "never-extended-bank",
    "tpm2-software+tpm2-tss__test__data__fapi__eventlog__specid-vendordata.b64.decoded0.bin": (
        "never-extended-bank"
    ),
    **{
        f"tpm2-software+tpm2-tools__test__integration__fixtures__{name}.bin": "missing-separator"
        for name in ("event", "event-uefiaction", "event-uefiservices", "event-uefivar")
    },
}
MALFORMED = "tpm2-software+tpm2-tools__test__integration__fixtures__specid-vendordata.bin"


def _names():
    if not EVENTLOGS.is_dir():
        return []
    csv.field_size_limit(sys.maxsize)
    rows = csv.DictReader((EVENTLOGS / "TRUTH.tsv").read_text().splitlines(), delimiter="\t")
    return [
        row["file"] for row in rows if row["format"] == "crypto-agile" and row["file"] != MALFORMED
    ]


@pytest.mark.parametrize("name", _names())
def test_logs_of_real_machines_are_accepted_or_refused_for_a_known_reason(name, corpus):
    log = tcglog.parse((EVENTLOGS / name).read_bytes())
    bank = SHA256 if SHA256 in log.banks else log.banks[0]
    expected = "ccel-as-tpm-log" if log.format == "ccel" else REFUSED.get(name)
    try:
        check(log, bank)
        code = None
    except Refusal as refused:
        code = refused.code
    assert code == expected


def test_ccel_offered_as_tpm_log_is_refused(log):
    with pytest.raises(grammar.CcelAsTpmLog):
        check(replace(log, format="ccel"), SHA256)


def test_bank_the_log_does_not_know_is_refused(log):
    with pytest.raises(grammar.NeverExtendedBank):
        check(log, HashAlg.SHA512)


def test_bank_of_blank_digests_is_refused(log, edit):
    blank = [replace(e, digests={**e.digests, SHA256: bytes(32)}) for e in log.events]
    with pytest.raises(grammar.NeverExtendedBank):
        check(edit(log, blank), SHA256)


def test_bank_that_only_the_system_extended_is_refused(log, edit):
    def late(event):
        digests = {b: d for b, d in event.digests.items() if b != SHA256 or event.pcr > 7}
        return replace(event, digests=digests)

    with pytest.raises(grammar.NeverExtendedBank):
        check(edit(log, map(late, log.events)), SHA256)


def test_empty_log_is_refused(log, edit):
    with pytest.raises(grammar.NeverExtendedBank):
        check(edit(log, []), SHA256)


def test_event_that_skips_the_quoted_bank_is_refused(log, edit):
    event = log.events[8]
    digests = {bank: digest for bank, digest in event.digests.items() if bank != SHA256}
    partial = edit(log, [*log.events[:8], replace(event, digests=digests), *log.events[9:]])
    with pytest.raises(grammar.MissingDigest) as refused:
        check(partial, SHA256)
    assert refused.value.index == 8
    check(partial, HashAlg.SHA384)


@pytest.mark.parametrize("index", range(1, 25))
def test_measurement_hidden_as_no_action_is_refused(log, edit, index):
    hidden = replace(log.events[index], type=EventType.EV_NO_ACTION)
    events = [*log.events[:index], hidden, *log.events[index + 1 :]]
    with pytest.raises(grammar.ExtendedNoAction) as refused:
        check(edit(log, events), SHA256)
    assert refused.value.index == index


def test_digest_of_another_bank_does_not_hide_in_a_no_action(log, edit, no_action):
    ghost = no_action(b"")
    ghost.digests[HashAlg.SHA1] = b"g" * 20
    with pytest.raises(grammar.ExtendedNoAction):
        check(edit(log, [*log.events, ghost]), SHA256)


@pytest.mark.parametrize("locality", [0, 3, 4])
def test_startup_locality_at_the_start_is_accepted(log, edit, no_action, locality):
    told = no_action(STARTUP_LOCALITY + bytes([locality]))
    check(edit(log, [log.events[0], told, *log.events[1:]]), SHA256)


@pytest.mark.parametrize("data", [b"", b"\1", b"\2", b"\5", b"\xff", b"\3\0", b"\0\3"])
def test_impossible_startup_locality_is_refused(log, edit, no_action, data):
    told = no_action(STARTUP_LOCALITY + data)
    with pytest.raises(grammar.ForgedStartupLocality):
        check(edit(log, [log.events[0], told, *log.events[1:]]), SHA256)


def test_startup_locality_of_another_pcr_is_refused(log, edit, no_action):
    told = no_action(STARTUP_LOCALITY + b"\3", pcr=1)
    with pytest.raises(grammar.ForgedStartupLocality):
        check(edit(log, [log.events[0], told, *log.events[1:]]), SHA256)


@pytest.mark.parametrize("place", [2, 5, 20, 37])
def test_startup_locality_after_pcr_0_was_extended_is_refused(log, edit, no_action, place):
    told = no_action(STARTUP_LOCALITY + b"\3")
    with pytest.raises(grammar.ForgedStartupLocality):
        check(edit(log, [*log.events[:place], told, *log.events[place:]]), SHA256)


def test_startup_locality_told_twice_is_refused(log, edit, no_action):
    told = no_action(STARTUP_LOCALITY + b"\3")
    with pytest.raises(grammar.ForgedStartupLocality):
        check(edit(log, [log.events[0], told, told, *log.events[1:]]), SHA256)


@pytest.mark.parametrize("pcr", range(8))
def test_missing_separator_is_refused(log, edit, pcr):
    at = _separator(log, pcr)
    with pytest.raises(grammar.MissingSeparator, match=f"PCR {pcr}$"):
        check(edit(log, [*log.events[:at], *log.events[at + 1 :]]), SHA256)


@pytest.mark.parametrize("pcr", range(8))
def test_doubled_separator_is_refused(log, edit, pcr):
    separator = log.events[_separator(log, pcr)]
    with pytest.raises(grammar.DoubledSeparator):
        check(edit(log, [*log.events, separator]), SHA256)


@pytest.mark.parametrize("pcr", range(8))
def test_separator_retyped_as_something_else_is_refused(log, edit, pcr):
    at = _separator(log, pcr)
    disguised = replace(log.events[at], type=EventType.EV_EFI_ACTION)
    with pytest.raises(grammar.RetypedEvent) as refused:
        check(edit(log, [*log.events[:at], disguised, *log.events[at + 1 :]]), SHA256)
    assert refused.value.index == at


@pytest.mark.parametrize("index", [1, 4, 10, 14, 22, 24])
def test_measurement_retyped_as_a_separator_is_refused(log, edit, index):
    disguised = replace(log.events[index], type=EventType.EV_SEPARATOR, data=bytes(4))
    with pytest.raises(grammar.RetypedEvent):
        check(edit(log, [*log.events[:index], disguised, *log.events[index + 1 :]]), SHA256)


def test_separator_written_after_an_error_is_refused(log, edit, measured):
    at = _separator(log, 5)
    failed = measured(5, EventType.EV_SEPARATOR, b"\1\0\0\0")
    with pytest.raises(grammar.ErrorSeparator):
        check(edit(log, [*log.events[:at], failed, *log.events[at + 1 :]]), SHA256)


def test_separator_of_older_firmware_is_accepted(log, edit, measured):
    old = [
        measured(e.pcr, e.type, b"\xff" * 4) if e.type == EventType.EV_SEPARATOR else e
        for e in log.events
    ]
    check(edit(log, old), SHA256)


@pytest.mark.parametrize(
    ("pcr", "event_type"),
    [
        (0, EventType.EV_POST_CODE),
        (0, EventType.EV_EFI_PLATFORM_FIRMWARE_BLOB),
        (1, EventType.EV_PLATFORM_CONFIG_FLAGS),
        (2, EventType.EV_EFI_BOOT_SERVICES_DRIVER),
        (3, EventType.EV_EFI_ACTION),
        (4, EventType.EV_EFI_BOOT_SERVICES_DRIVER),
        (5, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG),
        (6, EventType.EV_COMPACT_HASH),
        (7, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG),
        (7, EventType.EV_EFI_ACTION),
    ],
)
def test_event_after_the_separator_is_refused(log, edit, measured, pcr, event_type):
    late = measured(pcr, event_type, b"late")
    with pytest.raises(grammar.EventAfterSeparator) as refused:
        check(edit(log, [*log.events, late]), SHA256)
    assert refused.value.index == len(log.events)


@pytest.mark.parametrize(
    ("pcr", "event_type"),
    [
        (1, EventType.EV_EFI_VARIABLE_BOOT),
        (4, EventType.EV_EFI_BOOT_SERVICES_APPLICATION),
        (4, EventType.EV_EFI_ACTION),
        (5, EventType.EV_EFI_GPT_EVENT),
        (5, EventType.EV_EVENT_TAG),
        (7, EventType.EV_EFI_VARIABLE_AUTHORITY),
        (8, EventType.EV_IPL),
        (14, EventType.EV_SEPARATOR),
    ],
)
def test_event_that_belongs_after_the_separator_is_accepted(log, edit, measured, pcr, event_type):
    check(edit(log, [*log.events, measured(pcr, event_type, b"late")]), SHA256)


OWNER = efi.EFI_GLOBAL_VARIABLE
DATABASE = efi.encode_signature_lists(
    [SignatureList(efi.EFI_CERT_SHA256, (SignatureEntry(OWNER, bytes(32)),))]
)


@pytest.mark.parametrize(
    "variable",
    [
        VariableData(efi.EFI_GLOBAL_VARIABLE, "SecureBoot", b"\1"),
        VariableData(efi.EFI_GLOBAL_VARIABLE, "PK", b""),
        VariableData(efi.EFI_GLOBAL_VARIABLE, "AuditMode", b"\1"),
        VariableData(efi.IMAGE_SECURITY_DATABASE, "db", DATABASE),
        VariableData(efi.IMAGE_SECURITY_DATABASE, "dbx", b""),
    ],
)
def test_key_configuration_dressed_as_an_authority_is_refused(log, edit, measured, variable):
    dressed = measured(7, EventType.EV_EFI_VARIABLE_AUTHORITY, variable.encode())
    with pytest.raises(grammar.EventAfterSeparator):
        check(edit(log, [*log.events, dressed]), SHA256)


def test_every_refusal_has_its_own_code_and_a_remedy():
    kinds = grammar.BadGrammar.__subclasses__()
    codes = {kind.code for kind in kinds}
    assert len(codes) == len(kinds) == 10
    assert all(kind.remedy and kind.exit_code == ExitCode.UNTRUSTED for kind in kinds)


def test_sha1_log_without_padding_is_checked_the_same(log, edit):
    old = [
        Event(e.index, e.pcr, e.type, {HashAlg.SHA1: e.digests[HashAlg.SHA1]}, e.data, e.offset)
        for e in log.events
    ]
    check(replace(edit(log, old), format="tcg12", banks=(HashAlg.SHA1,)), HashAlg.SHA1)
