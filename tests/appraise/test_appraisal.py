"""The whole judgement: pure, deterministic, and right about real boots."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest
from forged import (
    CSR_KEY,
    Boot,
    Exchange,
    corpus_boot,
    judge,
    measured,
    rebuilt,
    references_of,
    spki,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catena.appraise.refusal import AttestationRefusal, UnauthenticatedRefusal, is_authenticated
from catena.errors import FormatError, Refusal
from catena.measure.grammar import BadGrammar
from changed import replace

BOOTS = (
    "A_nosb_uki",
    "B_sb_own_uki",
    "C_sb_own_sdboot_uki",
    "D_sb_own_uki_creds",
    "G_nosb_sdboot_type1",
    "I_sb_own_uki_smbios",
)
PLAIN = ("A_nosb_uki", "G_nosb_sdboot_type1")


def test_a_real_boot_that_its_references_describe_is_trusted(boot, references, exchange):
    appraisal = judge(exchange.evidence(), references)
    assert appraisal.verdict == "trusted"
    assert appraisal.reasons == ()
    assert appraisal.csr_spki == spki(CSR_KEY)
    assert appraisal.public_key.public_numbers() == CSR_KEY.public_key().public_numbers()
    assert tuple(appraisal.pcr_values.values()) == boot.values
    assert list(appraisal.pcr_values) == list(range(16))
    assert appraisal.boot_log_sha256 == exchange.evidence().manifest[0].sha256


@pytest.mark.parametrize("name", BOOTS)
def test_every_real_boot_is_explained_by_its_own_references(boot, name):
    """Secure Boot off remains the policy's to refuse, and nothing else is wrong with it."""
    own = corpus_boot(name)
    appraisal = judge(Exchange(own).evidence(), references_of(own))
    assert appraisal.facts.unclaimed_events == 0
    faults = {reason.code for reason in appraisal.reasons}
    assert faults == ({"policy:secure-boot", "policy:user-mode"} if name in PLAIN else set())


@pytest.mark.parametrize("name", BOOTS)
def test_the_same_input_gives_the_same_verdict_byte_for_byte(boot, references, name):
    evidence = Exchange(corpus_boot(name)).evidence()
    first, second = (judge(evidence, references) for _ in range(2))
    encode = msgspec.json.Encoder(order="deterministic").encode
    for part in ("reasons", "facts", "events"):
        assert encode(getattr(first, part)) == encode(getattr(second, part))
    assert replace(first, public_key=None) == replace(second, public_key=None)


def test_the_verdict_does_not_depend_on_the_order_of_references(boot, references):
    evidence = Exchange(corpus_boot("C_sb_own_sdboot_uki")).evidence()
    other = references_of(boot)
    both = replace(references, releases=references.releases + other.releases)
    turned = replace(both, releases=tuple(reversed(both.releases)))
    first, second = judge(evidence, both), judge(evidence, turned)
    assert (first.reasons, first.events) == (second.reasons, second.events)


def test_the_room_knows_no_clock_network_file_or_database():
    """Importing the judgement loads nothing that could make it impure."""
    code = (
        "import sys, catena.appraise.appraisal as a; "
        "bad = {'sqlalchemy', 'httpx', 'uvicorn', 'tpm2_pytss', 'catena.store', 'cel'}; "
        "print(sorted(bad & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def judged_or_refused(evidence, references):
    """The appraisal, or None for evidence that is refused and held against the node."""
    try:
        return judge(evidence, references)
    except Refusal as error:
        if not is_authenticated(error):
            raise
        return None


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 9375), mask=st.integers(1, 255))
def test_no_byte_of_a_boot_log_can_be_changed_to_gain_trust(boot, references, position, mask):
    """The node signs the altered log as its own, which a hostile node can.

    Bytes that no digest covers (types, opaque data) may differ without harm: then the verdict
    rests on the same digests and claims. Everything else is refused or untrusted.
    """
    changed = bytearray(boot.log)
    changed[position % len(changed)] ^= mask
    evidence = Exchange(replace(boot, log=bytes(changed))).evidence()
    honest = judge(Exchange(boot).evidence(), references)
    appraisal = judged_or_refused(evidence, references)
    if appraisal is not None and appraisal.verdict == "trusted":
        assert [e.digest for e in appraisal.events] == [e.digest for e in honest.events]
        assert appraisal.facts.secure_boot


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10_000), mask=st.integers(1, 255))
def test_no_byte_of_an_ima_log_can_be_changed_to_gain_trust(boot, references, position, mask):
    changed = bytearray(boot.ima)
    changed[position % len(changed)] ^= mask
    evidence = Exchange(replace(boot, ima=bytes(changed))).evidence()
    honest = judge(Exchange(boot).evidence(), references)
    appraisal = judged_or_refused(evidence, references)
    assert appraisal is None or [e.digest for e in appraisal.events] == [
        e.digest for e in honest.events
    ]


@given(st.binary(max_size=200))
def test_bytes_that_are_no_quote_never_crash(data):
    evidence = Exchange(Boot(b"", None, (bytes(32),) * 16)).evidence()
    with pytest.raises((Refusal, FormatError)):
        judge(msgspec.structs.replace(evidence, quote=data), None)


def _subclasses(base):
    for subclass in base.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def test_every_refusal_has_its_own_code_and_a_remedy():
    mine = [*_subclasses(AttestationRefusal)]
    codes = [refusal.code for refusal in mine]
    assert len(codes) == len(set(codes))
    for refusal in mine:
        assert refusal.remedy
        assert refusal.authenticated is not issubclass(refusal, UnauthenticatedRefusal)
        if refusal is not UnauthenticatedRefusal:
            assert refusal.step in "abcdef"
            assert refusal.authenticated is (refusal.step in "def")


def test_refusals_of_the_grammar_blame_the_node_and_others_do_not():
    assert is_authenticated(BadGrammar("x"))
    assert not is_authenticated(Refusal("x"))


def test_an_unknown_event_type_is_printed(boot, references):
    odd = rebuilt(boot, lambda events: [*events, measured(12, 0x80000123, b"x")])
    appraisal = judge(Exchange(odd).evidence(), references)
    unknown = next(event for event in appraisal.events if event.pcr == 12)
    assert unknown.type == "0x80000123"
