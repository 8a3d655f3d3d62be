"""What was examined before changes no verdict: neither a trusted one nor a refusal."""

from __future__ import annotations

import msgspec
import pytest
from forged import (
    SHA256,
    Attest,
    Boot,
    Exchange,
    corpus_boot,
    ima_entry,
    judge,
    references_of,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catena.appraise.logs import AlteredLog, MissingLog
from catena.appraise.quote import ForgedQuote
from catena.appraise.replayed import UnexplainedImaPcr
from catena.errors import CatenaError
from catena.formats.tpm2 import encode_pcr_selection
from catena.ids import QUOTED_PCRS, HashAlg
from changed import replace

BOOTS = (
    "A_nosb_uki",
    "B_sb_own_uki",
    "C_sb_own_sdboot_uki",
    "D_sb_own_uki_creds",
    "G_nosb_sdboot_type1",
    "I_sb_own_uki_smbios",
)
encode = msgspec.json.Encoder(order="deterministic").encode


def said(evidence, references, known=None, **changes):
    """All that an appraisal says, or the refusal in full."""
    try:
        found = judge(evidence, references, known=known, **changes)
    except CatenaError as error:
        return type(error), error.as_dict()
    parts = [encode(getattr(found, part)) for part in ("reasons", "facts", "events")]
    return replace(found, public_key=None), *parts


@pytest.fixture(scope="module")
def examined(boot):
    """Every boot as it was examined before, by name."""
    found = {}
    for name in BOOTS:
        own = corpus_boot(name)
        found[name] = judge(Exchange(own).evidence(), references_of(own)).boot
    return found


@pytest.mark.parametrize("before", BOOTS)
@pytest.mark.parametrize("name", BOOTS)
def test_no_earlier_boot_changes_a_verdict(examined, references, name, before):
    evidence = Exchange(corpus_boot(name)).evidence()
    known = judge(Exchange(corpus_boot(before)).evidence(), references).boot
    assert said(evidence, references, known) == said(evidence, references)
    assert said(evidence, references, examined[before]) == said(evidence, references)


@pytest.mark.parametrize("name", BOOTS)
def test_the_same_boot_is_not_examined_again(name, boot):
    own = corpus_boot(name)
    references, evidence = references_of(own), Exchange(own).evidence()
    first = judge(evidence, references)
    second = judge(evidence, references, known=first.boot)
    assert second.boot is first.boot
    assert second.events is first.events


def test_other_references_are_asked_again(boot, references, exchange):
    known = judge(exchange.evidence(), references).boot
    without = replace(references, releases=())
    assert said(exchange.evidence(), without, known) == said(exchange.evidence(), without)
    assert judge(exchange.evidence(), without, known=known).verdict == "untrusted"


@pytest.mark.parametrize("first", [SHA256, HashAlg.SHA384])
def test_another_bank_is_examined_by_itself(boot, references, first):
    second = HashAlg.SHA384 if first is SHA256 else SHA256
    firmware = Boot(boot.log, None)  # IMA extends padded SHA-1 digests into the other bank
    evidence = quoting(firmware, second)
    known = judge(quoting(firmware, first), references).boot
    assert said(evidence, references, known) == said(evidence, references)
    assert judge(evidence, references, known=known).boot.bank is second


def quoting(boot, bank):
    attest = Attest(selection=encode_pcr_selection(bank, QUOTED_PCRS))
    return Exchange(boot, bank=bank, attest=attest).evidence()


def test_a_grown_ima_log_reuses_the_firmware_alone(boot, references):
    known = judge(Exchange(boot).evidence(), references).boot
    evidence = Exchange(replace(boot, ima=boot.ima * 2)).evidence()
    assert said(evidence, references, known) == said(evidence, references)
    found = judge(evidence, references, known=known).boot
    assert found.firmware is known.firmware
    assert (found.ima_covered, found.ima_ahead) == (known.ima_covered, known.ima_covered)


def measuring(boot, *paths):
    """The boot after IMA has measured more files."""
    more = [ima_entry(b"sha256:\0" + bytes(32), path + b"\0", b"") for path in paths]
    return replace(boot, ima=boot.ima + b"".join(more), values=None)


def test_what_ima_measured_before_is_not_read_again(boot, references):
    first, second = measuring(boot, b"/a"), measuring(boot, b"/a", b"/b", b"/c")
    known = judge(Exchange(first).evidence(), references).boot
    evidence = Exchange(second).evidence()
    assert said(evidence, references, known) == said(evidence, references)
    found = judge(evidence, references, known=known).boot
    assert (known.ima_covered, found.ima_covered) == (3, 5)
    assert all(new is old for new, old in zip(found.runtime, known.runtime, strict=False))
    assert [event.index for event in found.runtime] == list(range(37, 42))
    assert found.ima.size == len(second.ima)


@pytest.mark.parametrize("paths", [(), (b"/x",), (b"/x", b"/b"), (b"/a",), (b"/a", b"/x", b"/b")])
def test_another_ima_log_than_the_known_one_is_judged_by_itself(boot, references, paths):
    """Shorter, as after a reset, or with other entries in the place of known ones."""
    known = judge(Exchange(measuring(boot, b"/a", b"/b")).evidence(), references).boot
    other = measuring(boot, *paths)
    evidence = Exchange(other).evidence()
    assert said(evidence, references, known) == said(evidence, references)
    ahead = Exchange(replace(measuring(other, b"/b"), values=other.pcrs(SHA256))).evidence()
    assert said(ahead, references, known) == said(ahead, references)


def test_a_quote_of_less_than_was_known_covers_less(boot, references):
    longer = measuring(boot, b"/a", b"/b")
    known = judge(Exchange(longer).evidence(), references).boot
    evidence = Exchange(replace(longer, values=boot.values)).evidence()
    found = judge(evidence, references, known=known).boot
    assert (found.ima_covered, found.ima_ahead) == (2, 2)
    assert said(evidence, references, known) == said(evidence, references)


def test_altered_entries_that_were_known_are_refused(boot, references):
    longer = measuring(boot, b"/a")
    known = judge(Exchange(longer).evidence(), references).boot
    swapped = replace(measuring(boot, b"/x"), values=longer.pcrs(SHA256))
    with pytest.raises(UnexplainedImaPcr):
        judge(Exchange(swapped).evidence(), references, known=known)


def test_a_known_log_may_be_absent_but_not_altered(boot, references, exchange):
    evidence = exchange.evidence()
    known = judge(evidence, references).boot
    assert said(evidence, references, known, logs={}) == said(evidence, references)
    for entry in evidence.manifest:
        altered = evidence.logs | {entry.sha256: evidence.logs[entry.sha256] + b"x"}
        with pytest.raises(AlteredLog):
            judge(evidence, references, known=known, logs=altered)
        with pytest.raises(AlteredLog):
            judge(evidence, replace(references), known=known, logs=altered)
    with pytest.raises(MissingLog):
        judge(evidence, references, logs={})


def test_a_known_boot_excuses_no_quote(boot, references, exchange):
    known = judge(exchange.evidence(), references).boot
    evidence = exchange.evidence()
    forged = bytearray(evidence.signature)
    forged[-1] ^= 1
    with pytest.raises(ForgedQuote):
        judge(msgspec.structs.replace(evidence, signature=bytes(forged)), references, known=known)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 9375), mask=st.integers(1, 255), pcr=st.integers(0, 16))
def test_a_changed_log_or_pcr_meets_the_same_verdict(boot, references, position, mask, pcr):
    """The node signs what was altered as its own, which a hostile node can."""
    known = judge(Exchange(boot).evidence(), references).boot
    if pcr == 16:
        changed = bytearray(boot.log)
        changed[position % len(changed)] ^= mask
        other = replace(boot, log=bytes(changed))
    else:
        values = list(boot.values)
        values[pcr] = bytes([values[pcr][0] ^ mask]) + values[pcr][1:]
        other = replace(boot, values=tuple(values))
    altered = Exchange(other).evidence()
    assert said(altered, references, known) == said(altered, references)
