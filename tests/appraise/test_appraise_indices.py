"""Container records in NV indices: what holds, and every way in which it can fail to."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest

from appraise import forged
from appraise.forged import AK_KEY, Exchange, judge, key, references_of, resign, spki
from appraise.gatelog import BANKS, POLICY, SHA256, SHA384, Recording, container_policy
from catena.appraise import indices
from catena.appraise.indices import (
    AlteredIndex,
    ForeignIndexSigner,
    ForgedIndexCertificate,
    IndexBank,
    IndexBeforeQuote,
    IndexNotTpmGenerated,
    IndexOfAnotherBoot,
    NotAnIndexCertificate,
    PartialIndex,
    RelabelledIndex,
    RepeatedIndex,
    UnboundIndex,
    UncertifiedIndex,
    UnexpectedIndex,
    UnexplainedSeal,
    UnrecordedIndex,
    UnsealedIndex,
)
from catena.appraise.logs import MisplacedLog, RepeatedLog
from catena.appraise.recorded import AlteredRecord, ForeignRecord, UnexplainedRecord
from catena.appraise.refusal import is_authenticated
from catena.appraise.replayed import UnexplainedPcr
from catena.errors import FormatError
from catena.evidence import IndexCertificate, log_entry, qualifying_data
from catena.formats import tpm2
from catena.formats.recordindex import ATTRIBUTES, RecordIndex, seal_event
from catena.formats.tpm2nv import TPM_ST_ATTEST_NV, TpmaNv
from changed import replace

ONE, TWO = 0x01800F00, 0x01800F01
FIRST, SECOND = RecordIndex(ONE, 15), RecordIndex(TWO, 15)
OTHER_POLICY = container_policy(2)


def recording_in(index: RecordIndex) -> Recording:
    return Recording(base={SHA256: index.base}, pcr=None, nv_index=index.index)


def sealed(*names: int):
    """PCR 15 with the seal of these indices, in SHA-256 and SHA-384."""
    event = seal_event(names)
    return tuple(bank.digest(bytes(bank.size) + bank.digest(event)) for bank in BANKS)


UNSEALED = tuple(bytes(bank.size) for bank in BANKS)


def certified(index: RecordIndex, value: bytes, **changes) -> forged.Attest:
    """What the TPM says of an index; the fields of a quote's body hold that of a certificate."""
    name = changes.pop("name", index.public(written=True).name())
    offset = changes.pop("offset", 0)
    body = tpm2.sized2b(name) + offset.to_bytes(2, "big")
    fields = {"type": TPM_ST_ATTEST_NV, "selection": body, "digest": value, "clock": 1_000_001}
    return forged.Attest(**{**fields, **changes})


@dataclass
class Node:
    """A node with two tenants; each part can be bent before ``evidence`` is made."""

    boot: forged.Boot
    records: dict[int, Recording | None]
    seal: tuple[bytes, bytes] = sealed(ONE, TWO)
    bent: dict[int, dict] = field(default_factory=dict)
    """Changes of the certificate of an index."""
    uncertified: tuple[int, ...] = ()
    data: dict[int, bytes] = field(default_factory=dict)
    """A record's bytes instead of those that were extended."""
    more: tuple = ()
    """More lines of the manifest, of empty logs."""
    private: object = AK_KEY
    bank: object = SHA256

    def evidence(self):
        boot = replace(self.boot, container_values=self.seal)
        if self.bank is not SHA256:
            boot = replace(boot, values=None, ima=None)
        attest = replace(forged.Attest(), selection=tpm2.encode_pcr_selection(self.bank, range(16)))
        plain = Exchange(boot, bank=self.bank, attest=attest).evidence()
        contents = {
            index: self.data.get(index, one.data)
            for index, one in self.records.items()
            if one is not None
        }
        lines = [log_entry("containers", data, index) for index, data in contents.items()]
        manifest = (*plain.manifest, *lines, *self.more)
        extra = qualifying_data(plain.nonce, spki(), manifest)
        values = SHA256.digest(b"".join(plain.pcrs))
        return resign(
            plain,
            quote=replace(attest, extra=extra, digest=values).encode(),
            manifest=manifest,
            logs={
                **plain.logs,
                **{one.sha256: data for one, data in zip(lines, contents.values(), strict=True)},
                **{one.sha256: b"" for one in self.more},
            },
            indices=tuple(self._certificates(extra)) or msgspec.UNSET,
        )

    def _certificates(self, extra: bytes):
        for index, one in self.records.items():
            if index in self.uncertified:
                continue
            place = RecordIndex(index, 15)
            changes = {"extra": extra, **self.bent.get(index, {})}
            value = changes.pop("value", place.base if one is None else one.values[SHA256])
            wire = certified(place, value, **changes).encode()
            signature = forged.signature(wire, self.private)
            yield IndexCertificate(nv_index=index, attest=wire, signature=signature)


@pytest.fixture(scope="session")
def expecting(boot):
    """References of a server that expects two tenants' records."""
    return references_of(boot, container_policies=(POLICY,), container_indices=(ONE, TWO))


@pytest.fixture
def node(boot) -> Node:
    first = recording_in(FIRST).begun().create().exec()
    second = recording_in(SECOND).begun().create("db-1").deny()
    return Node(boot, {ONE: first, TWO: second})


def test_records_of_two_tenants_are_judged_apart_and_counted_together(node, expecting):
    found = judge(node.evidence(), expecting)
    assert (found.verdict, found.reasons) == ("trusted", ())
    facts = found.facts
    assert (facts.container_records, facts.containers_started, facts.containers_refused) == (
        8,
        2,
        1,
    )
    assert (facts.container_policy, facts.gate_restarts) == ("acme-containers@1", 0)
    assert (facts.container_publishers, facts.container_images_total) == (("acme",), 1)
    assert [(one.nv_index, one.record.account.started) for one in found.boot.indexed] == [
        (ONE, 1),
        (TWO, 1),
    ]
    assert found.boot.record is None


def test_what_one_tenant_ran_unverified_makes_the_node_untrusted(node, expecting):
    node.records[TWO].create("evil", publisher="guest")
    found = judge(node.evidence(), expecting)
    assert [one.code for one in found.reasons] == ["container-unverified", "policy:containers"]
    assert "record 4 of NV index 0x01800f01" in found.reasons[0].message
    assert found.facts.containers_unverified == 1


def test_tenants_may_have_policies_of_their_own(boot):
    policies = (POLICY, OTHER_POLICY)
    references = references_of(boot, container_policies=policies, container_indices=(ONE, TWO))
    first = recording_in(FIRST).begun().create()
    second = recording_in(SECOND).gate_start().in_force(OTHER_POLICY).create()
    facts = judge(Node(boot, {ONE: first, TWO: second}).evidence(), references).facts
    assert facts.container_policy == "acme-containers@1, acme-containers@2"
    second = recording_in(SECOND).gate_start()
    facts = judge(Node(boot, {ONE: first, TWO: second}).evidence(), references).facts
    assert facts.container_policy == ""


def test_a_record_may_run_ahead_of_its_index(node, expecting):
    value = node.records[ONE].values[SHA256]
    node.bent[ONE] = {"value": value}
    node.records[ONE].create("later")
    assert judge(node.evidence(), expecting).facts.containers_started == 2


def test_a_tenant_whose_gate_has_not_started_ran_nothing(node, expecting):
    node.records[TWO] = None
    assert judge(node.evidence(), expecting).facts.container_records == 4


def test_a_node_on_which_no_gate_has_started_ran_nothing(boot, expecting):
    found = judge(Node(boot, {}, seal=UNSEALED).evidence(), expecting)
    assert (found.verdict, found.facts.container_records, found.boot.indexed) == ("trusted", 0, ())


def test_only_new_records_are_read_again(node, expecting):
    known = judge(node.evidence(), expecting).boot
    same = judge(node.evidence(), expecting, known=known).boot
    assert same is known
    node.records[TWO].create("db-2")
    later = judge(node.evidence(), expecting, known=known)
    assert later.boot.indexed[0].record is known.indexed[0].record
    fresh = judge(node.evidence(), expecting)
    assert (later.facts, later.boot.indexed) == (fresh.facts, fresh.boot.indexed)


def test_another_value_is_another_question(node, expecting):
    known = judge(node.evidence(), expecting).boot
    node.bent[ONE] = {"value": bytes(32)}
    with pytest.raises(UnexplainedRecord):
        judge(node.evidence(), expecting, known=known)


# Certificates ------------------------------------------------------------------------------

CERTIFICATES = {
    "magic": ({"magic": 0xFF544348}, IndexNotTpmGenerated),
    "a quote": ({"type": tpm2.TPM_ST_ATTEST_QUOTE}, FormatError),
    "another type": ({"type": 0x8019}, NotAnIndexCertificate),
    "another AK": (
        {"signer": forged.qualified_signer(forged.ecc_public(key(5)))},
        ForeignIndexSigner,
    ),
    "another hierarchy": (
        {"signer": forged.qualified_signer(hierarchy=tpm2.RH_OWNER)},
        ForeignIndexSigner,
    ),
    "an old nonce": ({"extra": SHA256.digest(b"an earlier exchange")}, UnboundIndex),
    "no nonce": ({"extra": b""}, UnboundIndex),
    "another reset": ({"resets": 8}, IndexOfAnotherBoot),
    "an earlier reset": ({"resets": 6}, IndexOfAnotherBoot),
    "another restart": ({"restarts": 1}, IndexOfAnotherBoot),
    "an earlier time": ({"clock": 999_999}, IndexBeforeQuote),
    "the other index": ({"name": SECOND.public(written=True).name()}, RelabelledIndex),
    "never written": ({"name": FIRST.public(written=False).name()}, AlteredIndex),
    "another seal": ({"name": RecordIndex(ONE, 14).public(written=True).name()}, AlteredIndex),
    "no name": ({"name": b""}, AlteredIndex),
    "from its middle": ({"offset": 1}, PartialIndex),
    "a part": ({"value": bytes(31)}, PartialIndex),
    "trailing bytes": ({"tail": b"\0"}, FormatError),
    "another value": ({"value": SHA256.digest(b"x")}, UnexplainedRecord),
    "zeros": ({"value": bytes(32)}, UnexplainedRecord),
}


@pytest.mark.parametrize(("changes", "error"), CERTIFICATES.values(), ids=CERTIFICATES)
def test_a_certificate_with_anything_else_is_refused(node, expecting, changes, error):
    node.bent[ONE] = changes
    with pytest.raises(error) as caught:
        judge(node.evidence(), expecting)
    if error is not FormatError:
        assert type(caught.value) is error
        assert is_authenticated(caught.value)
        assert caught.value.remedy


@pytest.mark.parametrize(
    "changes",
    [
        {"attributes": ATTRIBUTES | TpmaNv.WRITTEN | TpmaNv(1 << 2)},
        {"attributes": (ATTRIBUTES | TpmaNv.WRITTEN) & ~TpmaNv.CLEAR_STCLEAR},
        {"attributes": (ATTRIBUTES | TpmaNv.WRITTEN) & ~TpmaNv.NT_EXTEND},
        {"auth_policy": b""},
        {"auth_policy": SHA256.digest(b"anybody")},
        {"size": 64},
        {"name_alg": SHA384},
    ],
)
def test_an_index_that_could_be_rewritten_is_refused(node, expecting, changes):
    public = replace(FIRST.public(written=True), **changes)
    node.bent[ONE] = {"name": public.name()}
    with pytest.raises(AlteredIndex):
        judge(node.evidence(), expecting)


def test_a_certificate_signed_by_another_key_is_refused(node, expecting):
    node.private = key(5)
    with pytest.raises(ForgedIndexCertificate):
        judge(node.evidence(), expecting)


def test_a_certificate_with_another_signature_hash_is_refused(node, expecting):
    evidence = node.evidence()
    first, second = evidence.indices
    weak = replace(first, signature=forged.signature(first.attest, alg=SHA384))
    with pytest.raises(ForgedIndexCertificate, match="hash"):
        judge(msgspec.structs.replace(evidence, indices=(weak, second)), expecting)


def test_every_byte_of_a_certificate_counts(node, expecting):
    evidence = node.evidence()
    first, second = evidence.indices
    for place in range(len(first.attest)):
        wire = bytearray(first.attest)
        wire[place] ^= 1
        bad = replace(first, attest=bytes(wire))
        with pytest.raises((indices.AttestationRefusal, FormatError)):
            judge(msgspec.structs.replace(evidence, indices=(bad, second)), expecting)


def test_one_index_certified_twice_is_refused(node, expecting):
    evidence = node.evidence()
    first, _ = evidence.indices
    with pytest.raises(RepeatedIndex):
        judge(msgspec.structs.replace(evidence, indices=(first, first)), expecting)


# Records and indices that are kept back ----------------------------------------------------


@pytest.mark.parametrize("missing", [(ONE,), (TWO,), (ONE, TWO)])
def test_an_index_that_was_sealed_cannot_be_kept_back(node, expecting, missing):
    node.uncertified = missing
    with pytest.raises(UncertifiedIndex):
        judge(node.evidence(), expecting)


def test_neither_index_nor_record_can_be_kept_back(node, expecting):
    del node.records[TWO]
    with pytest.raises(UncertifiedIndex):
        judge(node.evidence(), expecting)


def test_an_index_with_records_that_are_kept_back_is_refused(node, expecting):
    node.bent[ONE] = {"value": node.records[ONE].values[SHA256]}
    node.records[ONE] = None
    with pytest.raises(UnrecordedIndex):
        judge(node.evidence(), expecting)


def test_an_altered_record_is_refused(node, expecting):
    recording = node.records[ONE]
    data = bytearray(recording.data)
    data[data.index(b"web-1")] ^= 1
    node.data[ONE] = bytes(data)
    with pytest.raises(AlteredRecord):
        judge(node.evidence(), expecting)


def test_a_record_cut_at_its_end_is_refused(node, expecting):
    recording = node.records[ONE]
    node.data[ONE] = recording.data[: recording.places[-2]]
    with pytest.raises(UnexplainedRecord):
        judge(node.evidence(), expecting)


def test_the_record_of_another_tenant_is_refused(node, expecting):
    node.data[ONE] = node.records[TWO].data
    with pytest.raises(ForeignRecord, match="0x01800f01"):
        judge(node.evidence(), expecting)


def test_a_record_for_a_pcr_in_an_index_is_refused(node, expecting):
    node.records[ONE] = Recording(base={SHA256: FIRST.base}).begun()
    with pytest.raises(ForeignRecord):
        judge(node.evidence(), expecting)


# What the PCR says -------------------------------------------------------------------------

SEALS = {
    "one of two": sealed(ONE),
    "in another order": sealed(TWO, ONE),
    "one more": sealed(ONE, TWO, TWO + 1),
    "something else": tuple(bank.digest(b"x") for bank in BANKS),
    "twice": tuple(
        bank.digest(value + bank.digest(seal_event((ONE, TWO))))
        for bank, value in zip(BANKS, sealed(ONE, TWO), strict=True)
    ),
}


@pytest.mark.parametrize("seal", SEALS.values(), ids=SEALS)
def test_a_seal_of_other_indices_is_refused(node, expecting, seal):
    node.seal = seal
    with pytest.raises(UnexplainedSeal):
        judge(node.evidence(), expecting)


def test_indices_that_nothing_seals_are_refused(node, expecting):
    node.seal = UNSEALED
    with pytest.raises(UnsealedIndex):
        judge(node.evidence(), expecting)


def test_indices_that_are_being_opened_hold_nothing_yet(boot, expecting):
    """The agent may come between a gate's first write and its seal."""
    opening = Node(boot, {ONE: None, TWO: None}, seal=UNSEALED)
    found = judge(opening.evidence(), expecting)
    assert (found.verdict, found.boot.indexed) == ("trusted", ())
    opening.bent[TWO] = {"value": SHA256.digest(b"x")}
    with pytest.raises(UnsealedIndex):
        judge(opening.evidence(), expecting)
    opening.bent[TWO] = {"name": SECOND.public(written=False).name()}
    with pytest.raises(AlteredIndex):
        judge(opening.evidence(), expecting)


def test_a_seal_does_not_explain_what_the_firmwares_log_says_of_the_pcr(boot, node, expecting):
    """Events that the log invents for the sealing PCR would otherwise be taken for measured ones."""
    node.boot = forged.rebuilt(boot, lambda events: [*events, forged.measured(15, 0xD, b"x")])
    with pytest.raises(UnexplainedSeal):
        judge(node.evidence(), expecting)


def test_a_record_in_the_pcr_where_indices_are_expected_is_refused(boot, expecting):
    recording = Recording().begun().create("hidden", publisher="guest")
    values = tuple(recording.values[bank] for bank in BANKS)
    hidden = Node(boot, {}, seal=values)
    with pytest.raises(UnexplainedSeal):
        judge(hidden.evidence(), expecting)
    shown = Exchange(replace(boot, containers=recording.data, container_values=values))
    with pytest.raises(ForeignRecord):
        judge(shown.evidence(), expecting)


def test_an_index_where_a_record_in_the_pcr_is_expected_is_refused(boot, node):
    references = references_of(boot, container_policies=(POLICY,))
    with pytest.raises(UnexplainedPcr):
        judge(node.evidence(), references)
    node.seal = UNSEALED
    with pytest.raises(UnexpectedIndex):
        judge(node.evidence(), references)


def test_an_index_that_nobody_expects_is_refused(boot, node, expecting):
    node.records[TWO + 1] = None
    with pytest.raises(UnexpectedIndex, match="0x01800f02"):
        judge(node.evidence(), expecting)


def test_indices_are_judged_by_the_bank_that_seals_them(node, expecting):
    node.bank = SHA384
    with pytest.raises(IndexBank):
        judge(node.evidence(), expecting)


# The manifest ------------------------------------------------------------------------------


def test_two_records_of_one_index_are_refused(node, expecting):
    node.more = (log_entry("containers", b"", ONE),)
    with pytest.raises(RepeatedLog):
        judge(node.evidence(), expecting)


def test_no_index_holds_another_log(node, expecting):
    node.more = (log_entry("ima", b"", TWO + 1),)
    with pytest.raises(MisplacedLog):
        judge(node.evidence(), expecting)


def test_a_record_is_bound_to_its_index(node):
    """Moving a record to another index changes what the quote has to be made for."""
    first, second = node.evidence().manifest[-2:]
    swapped = (replace(first, nv_index=TWO), replace(second, nv_index=ONE))
    plain = (replace(first, nv_index=None), second)
    assert len({qualifying_data(b"n", b"k", one) for one in [(first, second), swapped, plain]}) == 3
