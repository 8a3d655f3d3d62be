"""Steps a to e: each hostile quote meets its own refusal, and none of an outsider blames the node."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from forged import (
    AK_ATTRIBUTES,
    AK_KEY,
    AK_PUBLIC,
    CSR,
    NODE,
    NONCE_KEY,
    NOW,
    SHA1,
    SHA256,
    SHA384,
    Exchange,
    corpus_boot,
    csr,
    ecc_public,
    judge,
    key,
    known_node,
    qualified_signer,
    resign,
    signature,
    spki,
)

from catena.appraise import csr as requests
from catena.appraise import nonce as nonces
from catena.appraise import quote as q
from catena.appraise.quote import ClockState
from catena.appraise.refusal import is_authenticated
from catena.appraise.verdict import KnownNode
from catena.errors import FormatError, Refusal
from catena.evidence import log_entry, qualifying_data
from catena.formats import tpm2
from catena.formats.tpm2 import Public, Scheme, TpmAlg
from catena.ids import NodeId
from changed import replace

SELECT_ALL = tpm2.encode_pcr_selection(SHA256, range(16))


@pytest.fixture
def refused(references):
    """Checks that evidence meets exactly this refusal, and whom the refusal blames."""

    def check(evidence, refusal: type[Refusal], *, blames_node: bool, **changes) -> Refusal:
        with pytest.raises(refusal) as caught:
            judge(evidence, references, **changes)
        assert type(caught.value) is refusal
        assert is_authenticated(caught.value) is blames_node
        assert caught.value.step
        assert caught.value.remedy
        return caught.value

    return check


@pytest.fixture
def bent(exchange):
    """Evidence whose attestation structure has some fields changed, properly signed."""

    def make(**changes):
        return replace(exchange, attest=replace(exchange.attest, **changes)).evidence()

    return make


def test_an_honest_quote_is_accepted(exchange, references):
    assert judge(exchange.evidence(), references).clock == ClockState(7, 0, 1_000_000)


# Step a, structure and signer -----------------------------------------


def test_a_wrong_magic_is_refused(bent, refused):
    refused(bent(magic=0xFF544348), q.NotTpmGenerated, blames_node=False)


@pytest.mark.parametrize("kind", [0x8017, 0x8014, 0x0000])
def test_a_wrong_type_is_refused(bent, refused, kind):
    refused(bent(type=kind), q.NotAQuote, blames_node=False)


def test_trailing_bytes_are_malformed(bent, references):
    with pytest.raises(FormatError):
        judge(bent(tail=b"\0"), references)


def test_a_quote_truncated_at_any_byte_is_malformed(exchange, references):
    evidence = exchange.evidence()
    for size in range(len(evidence.quote)):
        with pytest.raises(FormatError):
            judge(msgspec.structs.replace(evidence, quote=evidence.quote[:size]), references)


def test_the_ak_of_another_tpm_is_refused(exchange, refused):
    other = key(77)
    signer = qualified_signer(ecc_public(other))
    hostile = replace(exchange, attest=replace(exchange.attest, signer=signer), private=other)
    refused(hostile.evidence(), q.ForeignSigner, blames_node=False)


def test_a_key_of_another_hierarchy_is_refused(bent, refused):
    """The name alone is not enough: firmware counters are obfuscated for owner keys."""
    signer = qualified_signer(hierarchy=tpm2.RH_OWNER)
    refused(bent(signer=signer), q.ForeignSigner, blames_node=False)


# Step b, signature -----------------------------------------


def test_another_key_behind_the_enrolled_name_is_refused(exchange, refused):
    hostile = replace(exchange, private=key(77))
    refused(hostile.evidence(), q.ForgedQuote, blames_node=False)


def test_no_bit_of_a_quote_can_be_changed(exchange, references):
    """Every flip is refused; nearly all of them by the signature."""
    evidence = exchange.evidence()
    for position in range(len(evidence.quote)):
        changed = bytearray(evidence.quote)
        changed[position] ^= 1 << position % 8
        with pytest.raises((q.UnauthenticatedRefusal, FormatError)):
            judge(msgspec.structs.replace(evidence, quote=bytes(changed)), references)


def test_a_signature_truncated_at_any_byte_is_malformed(exchange, references):
    evidence = exchange.evidence()
    for size in range(len(evidence.signature)):
        shorter = msgspec.structs.replace(evidence, signature=evidence.signature[:size])
        with pytest.raises(FormatError):
            judge(shorter, references)


@pytest.mark.parametrize("alg", [SHA1, SHA384])
def test_another_signature_hash_is_refused(exchange, refused, alg):
    evidence = exchange.evidence()
    weak = msgspec.structs.replace(evidence, signature=signature(evidence.quote, alg=alg))
    refused(weak, q.WrongSignatureHash, blames_node=False)


def test_another_signature_scheme_is_refused(exchange, refused):
    rsassa = TpmAlg.RSASSA.to_bytes(2, "big") + SHA256.tpm_id.to_bytes(2, "big")
    changed = msgspec.structs.replace(
        exchange.evidence(), signature=rsassa + tpm2.sized2b(bytes(256))
    )
    refused(changed, q.WrongSignatureScheme, blames_node=False)


@pytest.mark.parametrize("scheme", [TpmAlg.RSASSA, TpmAlg.RSAPSS])
def test_an_rsa_attestation_key_is_verified(exchange, references, refused, scheme):
    private = rsa.generate_private_key(65537, 2048)
    public = tpm2.encode_public(
        Public(
            kind="rsa",
            name_alg=SHA256,
            attributes=AK_ATTRIBUTES,
            auth_policy=b"",
            symmetric=None,
            scheme=Scheme(scheme, SHA256),
            key_bits=2048,
            raw=b"",
            exponent=65537,
            modulus=private.public_key().public_numbers().n.to_bytes(256, "big"),
        )
    )
    attest = replace(exchange.attest, signer=qualified_signer(public))
    evidence = replace(exchange, attest=attest).evidence()
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    how = padding.PKCS1v15() if scheme is TpmAlg.RSASSA else pss
    raw = private.sign(evidence.quote, how, hashes.SHA256())
    head = scheme.to_bytes(2, "big") + SHA256.tpm_id.to_bytes(2, "big")
    node = KnownNode(id=NODE, ak_public=public, clock=None)
    good = msgspec.structs.replace(evidence, signature=head + tpm2.sized2b(raw))
    assert judge(good, references, node=node).verdict == "trusted"
    bad = msgspec.structs.replace(evidence, signature=head + tpm2.sized2b(raw[::-1]))
    refused(bad, q.ForgedQuote, blames_node=False, node=node)


# Step c, binding and freshness -----------------------------------------


def test_a_relayed_quote_certifies_no_other_key(exchange, refused):
    relayed = msgspec.structs.replace(exchange.evidence(), csr=csr(key(99)))
    refused(relayed, q.UnboundQuote, blames_node=False)


def test_a_recorded_quote_with_a_fresh_nonce_is_refused(exchange, refused):
    fresh = nonces.make_nonce(NONCE_KEY, NODE, NOW, b"s" * 16)
    replayed = msgspec.structs.replace(exchange.evidence(), nonce=fresh)
    refused(replayed, q.UnboundQuote, blames_node=False)


def test_a_quote_does_not_cover_another_log(exchange, refused):
    evidence = exchange.evidence()
    other = (*evidence.manifest[:1], log_entry("ima", b""))
    refused(msgspec.structs.replace(evidence, manifest=other), q.UnboundQuote, blames_node=False)


def test_a_fixed_nonce_is_refused(exchange, refused):
    fixed = replace(exchange, nonce=bytes(nonces.NONCE_SIZE))
    refused(fixed.evidence(), nonces.ForgedNonce, blames_node=False)


def test_another_nodes_nonce_is_refused(exchange, refused):
    foreign = nonces.make_nonce(NONCE_KEY, NodeId("77" * 32), NOW, b"r" * 16)
    refused(replace(exchange, nonce=foreign).evidence(), nonces.ForgedNonce, blames_node=False)


def test_a_stale_nonce_is_refused(exchange, refused):
    later = NOW + nonces.LIFETIME + timedelta(seconds=1)
    refused(exchange.evidence(), nonces.StaleNonce, blames_node=False, now=later)


def test_a_nonce_of_the_future_is_refused(exchange, refused):
    earlier = NOW - timedelta(minutes=1)
    refused(exchange.evidence(), nonces.PrematureNonce, blames_node=False, now=earlier)


def test_a_request_that_its_key_did_not_sign_is_refused(exchange, refused):
    forged = bytearray(CSR)
    forged[-1] ^= 1
    evidence = msgspec.structs.replace(exchange.evidence(), csr=bytes(forged))
    refused(evidence, requests.UnprovenCsrKey, blames_node=False)


def test_a_request_signed_in_an_unknown_way_is_refused(exchange, refused):
    ecdsa_with_sha256 = bytes.fromhex("2a8648ce3d040302")
    odd = CSR.replace(ecdsa_with_sha256, ecdsa_with_sha256[:-1] + b"\x09")
    evidence = msgspec.structs.replace(exchange.evidence(), csr=odd)
    refused(evidence, requests.UnprovenCsrKey, blames_node=False)


def test_a_request_for_another_kind_of_key_is_refused(exchange, refused):
    private = rsa.generate_private_key(65537, 2048)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    der = builder.sign(private, hashes.SHA256()).public_bytes(Encoding.DER)
    evidence = msgspec.structs.replace(exchange.evidence(), csr=der)
    refused(evidence, requests.WrongCsrKey, blames_node=False)


def test_a_request_truncated_at_any_byte_is_malformed(exchange, references):
    evidence = exchange.evidence()
    for size in range(len(CSR)):
        with pytest.raises(FormatError):
            judge(msgspec.structs.replace(evidence, csr=CSR[:size]), references)


# Step d, selection and digest -----------------------------------------


@pytest.mark.parametrize("bank", ["sha1", "sm3_256", "md5", "", "sha256\n"])
def test_a_weak_or_unknown_bank_is_refused(exchange, refused, bank):
    evidence = msgspec.structs.replace(exchange.evidence(), bank=bank)
    refused(evidence, q.WeakBank, blames_node=True)


@pytest.mark.parametrize("bank", [SHA384, SHA1])
def test_a_relabelled_pcr_selection_is_refused(bent, refused, bank):
    selection = tpm2.encode_pcr_selection(bank, range(16))
    refused(bent(selection=selection), q.RelabelledPcrSelection, blames_node=True)


def test_a_selection_of_an_unknown_bank_is_refused(bent, refused):
    selection = SELECT_ALL.replace(b"\x00\x0b", b"\x00\x12")
    refused(bent(selection=selection), q.RelabelledPcrSelection, blames_node=True)


def test_evidence_that_renames_the_quoted_bank_is_refused(exchange, refused):
    evidence = msgspec.structs.replace(exchange.evidence(), bank="sha384")
    refused(evidence, q.RelabelledPcrSelection, blames_node=True)


@pytest.mark.parametrize("pcrs", [range(15), range(1, 16), (), (7,)])
def test_a_narrowed_pcr_selection_is_refused(bent, refused, pcrs):
    selection = tpm2.encode_pcr_selection(SHA256, pcrs)
    refused(bent(selection=selection), q.NarrowedPcrSelection, blames_node=True)


@pytest.mark.parametrize("pcrs", [range(17), range(24)])
def test_a_widened_pcr_selection_is_refused(bent, refused, pcrs):
    selection = tpm2.encode_pcr_selection(SHA256, pcrs)
    refused(bent(selection=selection), q.WidenedPcrSelection, blames_node=True)


@pytest.mark.parametrize(
    "selection",
    [
        bytes(4),
        b"\0\0\0\2" + SELECT_ALL[4:] * 2,
        b"\0\0\0\2" + SELECT_ALL[4:] + tpm2.encode_pcr_selection(SHA1, range(16))[4:],
    ],
)
def test_a_selection_of_no_or_several_banks_is_refused(bent, refused, selection):
    refused(bent(selection=selection), q.SeveralBanks, blames_node=True)


def test_values_that_were_not_quoted_are_refused(exchange, refused):
    evidence = exchange.evidence()
    values = (*evidence.pcrs[:15], b"\1" * 32)
    refused(msgspec.structs.replace(evidence, pcrs=values), q.PcrDigestMismatch, blames_node=True)


def test_values_that_only_concatenate_to_the_quoted_ones_are_refused(exchange, refused):
    evidence = exchange.evidence()
    values = (evidence.pcrs[0] + evidence.pcrs[1][:1], evidence.pcrs[1][1:], *evidence.pcrs[2:])
    refused(msgspec.structs.replace(evidence, pcrs=values), q.PcrDigestMismatch, blames_node=True)


def test_a_sha384_bank_under_a_sha256_signature_is_accepted(references):
    """TPM2_Quote digests the values with the hash of the signature, not of the bank."""
    selection = tpm2.encode_pcr_selection(SHA384, range(16))
    boot = replace(corpus_boot("B_sb_own_uki", SHA384), values=None)
    exchange = Exchange(boot, bank=SHA384)
    evidence = replace(exchange, attest=replace(exchange.attest, selection=selection)).evidence()
    appraisal = judge(evidence, references)
    assert (appraisal.verdict, appraisal.facts.bank) == ("trusted", "sha384")


# Step e, clock -----------------------------------------


@pytest.mark.parametrize(
    "before",
    [
        None,
        ClockState(7, 0, 999_999),
        ClockState(6, 9, 999_999_999),
    ],
)
def test_a_clock_that_went_forward_is_accepted(exchange, references, before):
    judge(exchange.evidence(), references, node=known_node(before))


def test_the_same_quote_again_is_refused_and_not_held_against_the_node(exchange, refused):
    node = known_node(ClockState(7, 0, 1_000_000))
    refused(exchange.evidence(), q.ReplayedQuote, blames_node=False, node=node)


def test_a_new_boot_may_fall_back_in_its_clock_and_restarts(bent, references):
    evidence = bent(resets=8, restarts=0, clock=5, safe=0)
    found = judge(evidence, references, node=known_node(ClockState(7, 4, 1_000_000)))
    assert found.clock == ClockState(8, 0, 5)
    assert not found.facts.clock_safe


@pytest.mark.parametrize(
    ("before", "refusal"),
    [
        (ClockState(8, 0, 0), q.ResetCountRollback),
        (ClockState(7, 1, 0), q.RestartCountRollback),
        (ClockState(7, 0, 1_000_001), q.ClockRollback),
    ],
)
def test_a_clock_that_went_back_is_refused(exchange, refused, before, refusal):
    node = known_node(before)
    refused(exchange.evidence(), refusal, blames_node=True, node=node)


# helpers of these tests are honest


def test_resigned_evidence_is_still_honest(exchange, references):
    evidence = exchange.evidence()
    assert judge(resign(evidence, AK_KEY), references).csr_spki == spki()
    assert qualifying_data(evidence.nonce, spki(), evidence.manifest) in evidence.quote
    assert tpm2.parse_public(AK_PUBLIC).attributes == AK_ATTRIBUTES
