"""Steps f to h: a log that is not the whole, sound story of the quoted PCRs."""

from __future__ import annotations

import msgspec
import pytest
from forged import (
    CORPUS,
    SHA1,
    SHA256,
    SHA384,
    Boot,
    Exchange,
    codes,
    corpus_boot,
    encode_log,
    ima_entry,
    judge,
    measured,
    rebuilt,
    resign,
    spki,
)

from catena.appraise import logs as logged
from catena.appraise import replayed as r
from catena.appraise.refusal import is_authenticated
from catena.evidence import log_entry, qualifying_data
from catena.formats import ima, tcglog, tpm2
from catena.formats.tcglog import EventType
from catena.measure import grammar
from catena.measure.facts import ContradictoryVariable
from changed import replace


@pytest.fixture
def refused(references):
    def check(boot_or_evidence, refusal, **changes):
        evidence = boot_or_evidence
        if isinstance(evidence, Boot):
            evidence = Exchange(evidence).evidence()
        with pytest.raises(refusal) as caught:
            judge(evidence, references, **changes)
        assert type(caught.value) is refusal
        assert is_authenticated(caught.value)
        return caught.value

    return check


def dropped(pcr: int):
    """Leaves out the last event of a PCR."""

    def change(events):
        last = max(i for i, event in enumerate(events) if event.pcr == pcr)
        return events[:last] + events[last + 1 :]

    return change


# presence


def manifest_of(exchange, manifest, contents):
    """Honest evidence over another manifest."""
    evidence = exchange.evidence()
    old = qualifying_data(evidence.nonce, spki(), evidence.manifest)
    new = qualifying_data(evidence.nonce, spki(), manifest)
    quote = evidence.quote.replace(old, new)
    return resign(evidence, quote=quote, manifest=manifest, logs=contents)


def test_evidence_without_a_boot_log_is_refused(exchange, refused):
    entry = log_entry("ima", exchange.boot.ima)
    evidence = manifest_of(exchange, (entry,), {entry.sha256: exchange.boot.ima})
    refused(evidence, logged.MissingBootLog)


def test_two_boot_logs_are_refused(exchange, refused):
    first, second = log_entry("tcg2", exchange.boot.log), log_entry("tcg2", b"")
    refused(manifest_of(exchange, (first, second), {}), logged.RepeatedLog)


def test_a_log_that_nobody_has_is_refused(exchange, refused):
    refused(exchange.evidence(), logged.MissingLog, logs={})


def test_a_log_that_the_server_held_already_is_used(exchange, references):
    evidence = exchange.evidence()
    bare = msgspec.structs.replace(evidence, logs={})
    assert judge(bare, references, logs=evidence.logs).verdict == "trusted"


def test_a_log_under_anothers_digest_is_refused(exchange, refused):
    evidence = exchange.evidence()
    swapped = dict.fromkeys(evidence.logs, b"")
    refused(evidence, logged.AlteredLog, logs=swapped)


def test_a_manifest_that_lies_about_a_size_is_refused(exchange, refused):
    entry = msgspec.structs.replace(log_entry("tcg2", exchange.boot.log), size=1)
    evidence = manifest_of(exchange, (entry,), {entry.sha256: exchange.boot.log})
    refused(evidence, logged.AlteredLog)


@pytest.mark.parametrize("size", [0, 10, 40, 100, 1000, -1])
def test_a_truncated_boot_log_is_refused(boot, refused, size):
    refused(replace(boot, log=boot.log[:size]), logged.UnreadableLog)


def test_a_truncated_ima_log_is_refused(boot, refused):
    refused(replace(boot, ima=boot.ima[:-1]), logged.UnreadableLog)


def test_a_ccel_is_no_tpm_log(boot, refused):
    ccel = next(
        (
            path.read_bytes()
            for path in sorted((CORPUS / "eventlogs").iterdir())
            if path.suffix != ".tsv" and _format(path) == "ccel"
        ),
        None,
    )
    assert ccel is not None
    error = refused(replace(boot, log=ccel), logged.ForeignLogFormat)
    assert error.got == "ccel"


def _format(path) -> str:
    try:
        return tcglog.parse(path.read_bytes()).format
    except tcglog.FormatError:
        return ""


def test_a_tpm_1_2_log_is_refused(boot, refused):
    event = b"".join((bytes(4), (8).to_bytes(4, "little"), bytes(20), bytes(4)))
    error = refused(replace(boot, log=event), logged.ForeignLogFormat)
    assert error.got == "tcg12"


def test_a_bank_that_the_log_does_not_have_is_refused():
    assert tcglog.parse(_sha1_only_log()).banks == (SHA1,)
    with pytest.raises(logged.UnloggedBank):
        logged.read_logs((log_entry("tcg2", _sha1_only_log()),), _held(_sha1_only_log()), SHA256)


def _sha1_only_log() -> bytes:
    spec = b"Spec ID Event03\0" + bytes(4) + b"\0\2\0\2" + (1).to_bytes(4, "little")
    spec += (4).to_bytes(2, "little") + (20).to_bytes(2, "little") + b"\0"
    head = bytes(4) + (3).to_bytes(4, "little") + bytes(20)
    return head + len(spec).to_bytes(4, "little") + spec


def _held(content: bytes) -> dict[str, bytes]:
    return {log_entry("tcg2", content).sha256: content}


# replay


def test_pcrs_that_were_never_extended_are_refused(boot, refused):
    blank = replace(boot, values=(bytes(32),) * 8 + boot.pcrs(SHA256)[8:])
    refused(blank, r.NeverExtendedPcrs)


def test_an_empty_log_over_zero_pcrs_is_refused(boot, refused):
    empty = Boot(encode_log(boot.log, []), None, (bytes(32),) * 16)
    refused(empty, r.NeverExtendedPcrs)


@pytest.mark.parametrize("pcr", range(16))
def test_a_pcr_that_no_log_explains_is_refused_by_name(boot, refused, pcr):
    values = list(boot.pcrs(SHA256))
    values[pcr] = SHA256.digest(values[pcr])
    error = refused(
        replace(boot, values=tuple(values)),
        r.UnexplainedImaPcr if pcr == 10 else r.UnexplainedPcr,
    )
    assert f"PCR {pcr}" in str(error)


@pytest.mark.parametrize("pcr", [0, 1, 4, 5, 7, 9, 11])
def test_a_log_that_leaves_an_event_out_is_refused(boot, refused, pcr):
    shorter = rebuilt(boot, dropped(pcr))
    refused(replace(shorter, ima=boot.ima, values=boot.values), r.UnexplainedPcr)


def test_an_older_boots_log_does_not_explain_a_new_boot(boot, refused):
    """A reset starts a session whose PCRs only its own log replays to (step e)."""
    newer = rebuilt(boot, lambda events: [*events, measured(12, EventType.EV_IPL, b"x")])
    refused(replace(newer, log=boot.log, values=newer.pcrs(SHA256)), r.UnexplainedPcr)


# IMA's growing log


def grown(boot: Boot, *, ahead: int) -> Boot:
    """A boot whose IMA log holds entries that the quote does not cover."""
    extra = b"".join(
        ima_entry(b"sha256:\0" + bytes([n]) * 32, b"/bin/late\0", b"") for n in range(ahead)
    )
    return replace(boot, ima=boot.ima + extra)


def test_an_ima_log_that_runs_ahead_is_appraised_up_to_the_quote(boot, references):
    appraisal = judge(Exchange(grown(boot, ahead=3)).evidence(), references)
    assert appraisal.verdict == "trusted"
    assert (appraisal.facts.runtime_entries, appraisal.facts.runtime_ahead) == (2, 3)
    assert not any("late" in event.description for event in appraisal.events)


def test_an_ima_log_without_a_prefix_that_fits_is_refused(boot, refused):
    entries = [ima.encode(entry) for entry in ima.parse(boot.ima)]
    refused(replace(boot, ima=b"".join(reversed(entries))), r.UnexplainedImaPcr)
    refused(replace(boot, ima=entries[0]), r.UnexplainedImaPcr)
    refused(replace(boot, ima=b""), r.UnexplainedImaPcr)


def test_sha_1_padded_into_a_better_bank_is_refused(references):
    """What Linux 6.1 does where IMA starts before the bank's hash is there: seen in boot B."""
    exchange = Exchange(corpus_boot("B_sb_own_uki", SHA384), bank=SHA384)
    selection = tpm2.encode_pcr_selection(SHA384, range(16))
    evidence = replace(exchange, attest=replace(exchange.attest, selection=selection)).evidence()
    with pytest.raises(r.UnexplainedImaPcr) as caught:
        judge(evidence, references)
    assert "sha256" in caught.value.remedy


def test_a_used_pcr_10_needs_its_log(boot, refused):
    assert "PCR 10" in str(refused(replace(boot, ima=None), r.UnexplainedPcr))


def test_an_unused_pcr_10_needs_none(boot, references):
    values = list(boot.pcrs(SHA256))
    values[10] = bytes(32)
    for log in (None, b"", boot.ima):
        unused = replace(boot, ima=log, values=tuple(values))
        appraisal = judge(Exchange(unused).evidence(), references)
        assert (appraisal.verdict, appraisal.facts.runtime_entries) == ("trusted", 0)


def test_an_ima_entry_for_another_pcr_is_refused(boot, refused):
    odd = ima_entry(b"sha256:\0" + bytes(32), b"/bin/x\0", b"", pcr=11)
    refused(replace(boot, ima=boot.ima + odd), logged.MisplacedImaEntry)


def test_an_ima_log_of_100_000_entries_is_appraised(boot, references):
    entry = ima_entry(b"sha256:\0" + bytes(32), b"/usr/lib/x86_64-linux-gnu/libmany.so.1\0", b"")
    long = replace(boot, ima=boot.ima + entry * 99_998, values=None)
    facts = judge(Exchange(long).evidence(), references).facts
    assert (facts.runtime_entries, facts.runtime_ahead) == (100_000, 0)


def test_an_ima_log_of_too_many_entries_is_refused(boot, references, refused, monkeypatch):
    monkeypatch.setattr(ima, "MAX_ENTRIES", 4)
    assert judge(Exchange(grown(boot, ahead=2)).evidence(), references).facts.runtime_ahead == 2
    assert "too many" in str(refused(grown(boot, ahead=3), logged.UnreadableLog))


def test_a_proven_ima_entry_without_fields_is_refused(boot, refused):
    bare = ima.encode(ima.ImaEntry(0, 10, b"d" * 20, "ima-ng", b"\1", ()))
    ((_, hashed, _),) = ima.measurements(bare)
    values = list(boot.pcrs(SHA256))
    values[10] = SHA256.digest(values[10] + SHA256.digest(hashed))
    refused(replace(boot, ima=boot.ima + bare, values=tuple(values)), logged.UnreadableLog)


def test_firmware_and_ima_cannot_both_have_extended_pcr_10(boot, refused):
    both = rebuilt(boot, lambda events: [*events, measured(10, EventType.EV_IPL, b"x")])
    refused(
        replace(both, values=(*boot.pcrs(SHA256)[:10], b"\1" * 32, *boot.pcrs(SHA256)[11:])),
        r.UnexplainedPcr,
    )


# grammar and facts refuse what replays


def test_a_doubled_separator_is_refused(boot, refused):
    double = measured(4, EventType.EV_SEPARATOR, bytes(4))
    refused(rebuilt(boot, lambda events: [*events, double]), grammar.DoubledSeparator)


def test_a_missing_separator_is_refused(boot, refused):
    refused(rebuilt(boot, dropped(6)), grammar.MissingSeparator)


def test_a_configuration_after_the_separator_is_refused(boot, refused):
    def again(events):
        return [*events, next(event for event in events if event.pcr == 7)]

    refused(rebuilt(boot, again), grammar.EventAfterSeparator)


def test_a_forged_startup_locality_is_refused(boot, refused):
    told = measured(0, EventType.EV_NO_ACTION, b"StartupLocality\0\7")
    told = replace(told, digests={bank: bytes(bank.size) for bank in told.digests})
    assert isinstance(
        refused(rebuilt(boot, lambda events: [told, *events]), grammar.ForgedStartupLocality),
        grammar.BadGrammar,
    )


def test_a_variable_measured_twice_with_other_content_is_refused(boot, refused):
    def again(events):
        first = next(event for event in events if event.pcr == 7)
        other = measured(7, first.type, first.data[:-1] + b"\0")
        return [other, *events]

    refused(rebuilt(boot, again), ContradictoryVariable)


# opaque events


def test_data_edited_without_its_digest_is_opaque_and_still_claimed_by_digest(boot, references):
    """What an event says counts for nothing; what its digest says is untouched."""

    def edit(events):
        at = next(i for i, event in enumerate(events) if event.pcr == 7)
        return [*events[:at], replace(events[at], data=b"SecureBoot is off"), *events[at + 1 :]]

    honest = judge(Exchange(boot).evidence(), references)
    edited = judge(Exchange(rebuilt(boot, edit)).evidence(), references)
    assert edited.facts.opaque_events == honest.facts.opaque_events + 1
    assert edited.facts.unclaimed_events == 0
    assert not edited.facts.secure_boot
    assert "policy:secure-boot" in codes(edited)
