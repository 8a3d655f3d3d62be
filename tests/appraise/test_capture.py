from __future__ import annotations

import hashlib

import pytest
from forged import NODE, SHA1, SHA256, SHA384, Exchange, corpus_boot, judge, measured, rebuilt

from catena.appraise.capture import UncapturableBank, capture_firmware
from catena.appraise.reference import build_references
from catena.errors import FormatError
from catena.formats.tcglog import EventType
from catena.ids import HashAlg
from catena.measure.grammar import DoubledSeparator


def capture(boot, *banks):
    return capture_firmware(boot.log, banks, name="ovmf", version="2022.11", node=NODE)


def test_a_capture_holds_what_firmware_measured_of_itself(boot):
    found = capture(boot, SHA256, SHA384)
    assert [event.id for event in found.events] == [f"#{n}" for n in (1, 2, 3, 10, 11, 12, 13)]
    assert {event.pcr for event in found.events} == {0, 1}
    assert all(set(event.digests) == {"sha256", "sha384"} for event in found.events)
    assert found.boot_log_sha256 == hashlib.sha256(boot.log).hexdigest()


@pytest.mark.parametrize("bank", [SHA256, SHA384])
def test_a_capture_states_the_values_that_the_tpm_held(bank):
    boot = corpus_boot("B_sb_own_uki", bank)
    stated = capture(boot, bank).pcrs[bank]
    assert stated == {str(pcr): boot.values[pcr].hex() for pcr in (0, 1, 2, 3, 6)}


def test_a_capture_describes_later_boots_of_the_same_firmware(boot):
    references = build_references(firmware=(capture(boot, SHA256),))
    for name in ("B_sb_own_uki", "C_sb_own_sdboot_uki", "D_sb_own_uki_creds"):
        appraisal = judge(Exchange(corpus_boot(name)).evidence(), references)
        assert appraisal.facts.firmware == "ovmf-2022.11"


def test_a_capture_does_not_describe_other_firmware(boot):
    references = build_references(firmware=(capture(boot, SHA256),))
    appraisal = judge(Exchange(corpus_boot("A_nosb_uki")).evidence(), references)
    assert appraisal.facts.firmware == ""
    assert "firmware-mismatch" in [reason.code for reason in appraisal.reasons]


def test_only_the_banks_asked_for_are_captured(boot):
    """Digests of a bank that nothing quoted are whatever the sender liked."""
    found = capture(boot, SHA256)
    assert set(found.pcrs) == {"sha256"}
    assert all(set(event.digests) == {"sha256"} for event in found.events)


@pytest.mark.parametrize("banks", [(), (SHA1,), (SHA256, SHA1), (HashAlg.SHA512,)])
def test_a_weak_or_absent_bank_is_not_captured(boot, banks):
    with pytest.raises(UncapturableBank):
        capture(boot, *banks)


def test_an_unsound_log_is_not_captured(boot):
    bad = rebuilt(boot, lambda e: [*e, measured(0, EventType.EV_SEPARATOR, bytes(4))])
    with pytest.raises(DoubledSeparator):
        capture(bad, SHA256)


def test_bytes_that_are_no_log_are_not_captured():
    with pytest.raises(FormatError):
        capture_firmware(b"", (SHA256,), name="x", version="1", node=NODE)
