"""Every kind of endorsement and attestation key, in a real TPM, judged as a server judges."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from catena.appraise.attestation_key import check_attestation_key
from catena.appraise.ek_template import UnknownEkTemplate, check_ek_template
from catena.appraise.endorsement import EndorsementKind, TrustRoot, TrustRoots, endorse
from catena.appraise.quote import (
    ForgedQuote,
    check_pcr_digest,
    check_signature,
    check_signer,
    check_structure,
)
from catena.formats.tpm2 import parse_attest, parse_public, parse_signature
from catena.ids import QUOTED_PCRS, HashAlg
from catena.keys.protect import make_credential, seal_to_tpm
from catena.tpm.device import open_tpm
from catena.tpm.failure import ForeignSeal, PcrPolicyUnmet
from catena.tpm.kinds import KeyKind, NodeKeys
from changed import replace
from swtpm import needs_swtpm, software_tpm

pytestmark = [pytest.mark.tpm, needs_swtpm]

QUALIFYING = hashlib.sha256(b"qualifying").digest()
EK_KINDS = pytest.mark.parametrize("kind", KeyKind, ids=str)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A TPM without certificates: nobody says which EK it has."""
    with software_tpm(tmp_path_factory.mktemp("kinds"), certificates=False) as tpm:
        yield tpm


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    with software_tpm(tmp_path_factory.mktemp("elsewhere"), certificates=False) as tpm:
        yield tpm


def keys(endorsement: KeyKind | None, attestation: KeyKind = KeyKind.ECC_P256) -> NodeKeys:
    return NodeKeys(endorsement, attestation)


@EK_KINDS
def test_each_ek_is_of_its_template_and_opens_what_was_made_for_it(bare, kind):
    with open_tpm(bare.tcti, keys(kind)) as tpm:
        ek, ak = parse_public(tpm.ek_public()), parse_public(tpm.ak_public())
        check_ek_template(ek)
        assert ek.name_alg is kind.hash
        secret = os.urandom(32)
        seed = os.urandom(kind.hash.size)
        assert tpm.activate_credential(*make_credential(ek, ak.name(), secret, seed=seed)) == secret
        other = bytes([*ak.name()[:-1], ak.name()[-1] ^ 1])
        with pytest.raises(ForeignSeal):
            tpm.activate_credential(*make_credential(ek, other, secret, seed=os.urandom(len(seed))))


@EK_KINDS
def test_no_other_tpm_opens_what_was_made_for_an_ek(bare, elsewhere, kind):
    with open_tpm(bare.tcti, keys(kind)) as tpm:
        ek, name = parse_public(tpm.ek_public()), parse_public(tpm.ak_public()).name()
    challenge = make_credential(ek, name, b"secret", seed=os.urandom(kind.hash.size))
    with open_tpm(elsewhere.tcti, keys(kind)) as tpm, pytest.raises(ForeignSeal):
        tpm.activate_credential(*challenge)


@EK_KINDS
def test_secrets_are_sealed_to_each_ek_and_boot_state(bare, kind):
    with open_tpm(bare.tcti, keys(kind)) as tpm:
        (value,) = tpm.read_pcrs(HashAlg.SHA256, (23,))
        sealed = seal_to_tpm(
            parse_public(tpm.ek_public()),
            b"payload",
            name="disk",
            version=1,
            bank=HashAlg.SHA256,
            pcr_values={23: value},
            random=os.urandom,
        )
        arguments = {
            "public": sealed.public,
            "duplicate": sealed.duplicate,
            "seed": sealed.seed,
            "bank": HashAlg.SHA256,
            "pcrs": sealed.pcrs,
        }
        assert len(tpm.unseal(**arguments)) == 32
        tpm.extend(23, {HashAlg.SHA256: bytes(32)})
        with pytest.raises(PcrPolicyUnmet):
            tpm.unseal(**arguments)


@pytest.mark.parametrize("bank", [HashAlg.SHA256, HashAlg.SHA384], ids=str)
@EK_KINDS
def test_each_attestation_key_quotes_and_is_verified(bare, kind, bank):
    with open_tpm(bare.tcti, keys(None, kind)) as tpm:
        ak = parse_public(tpm.ak_public())
        quote = tpm.quote_pcrs(QUALIFYING, bank, QUOTED_PCRS)
    check_attestation_key(ak)
    attest, signature = parse_attest(quote.attest), parse_signature(quote.signature)
    info = check_structure(attest)
    check_signer(attest, ak)
    check_signature(quote.attest, signature, ak)
    assert signature.hash is kind.hash
    check_pcr_digest(info, quote.values, bank, signature.hash)
    assert attest.firmware_version >> 32
    with pytest.raises(ForgedQuote):
        check_signature(quote.attest + b"\0", signature, ak)


def test_a_tpm_without_certificates_uses_the_first_kind(bare):
    with open_tpm(bare.tcti) as tpm:
        assert tpm.ek_kind is KeyKind.RSA_2048
        assert tpm.ek_certificates() == ()


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    """A TPM whose vendor certified an RSA-3072 and a P-384 EK, and no other."""
    folder = tmp_path_factory.mktemp("certified")
    with software_tpm(folder, rsa_bits=3072) as tpm:
        yield tpm


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (None, KeyKind.ECC_P384),
        (KeyKind.ECC_P384, KeyKind.ECC_P384),
        (KeyKind.RSA_3072, KeyKind.RSA_3072),
    ],
)
def test_the_ek_that_the_vendor_certified_is_used_and_endorsed(certified, asked, found):
    roots = TrustRoots(
        roots=tuple(
            TrustRoot(path.name, EndorsementKind.SOFTWARE, _der(path))
            for path in certified.root_ca_pem_paths
        )
    )
    with open_tpm(certified.tcti, keys(asked)) as tpm:
        assert tpm.ek_kind is found
        ek, certificates = parse_public(tpm.ek_public()), tpm.ek_certificates()
        endorsed = endorse(certificates, ek, roots, datetime.now(UTC))
        assert (endorsed.tpm.type, endorsed.tpm.tolerances) == ("virtual", ())
        challenge = make_credential(
            ek, parse_public(tpm.ak_public()).name(), b"s", seed=os.urandom(found.hash.size)
        )
        assert tpm.activate_credential(*challenge) == b"s"


def _der(path) -> bytes:
    return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)


def test_a_kind_that_the_vendor_did_not_certify_has_no_certificate(certified):
    with open_tpm(certified.tcti, keys(KeyKind.RSA_2048)) as tpm:
        assert tpm.ek_certificates() == ()


@EK_KINDS
def test_no_ek_has_a_second_public_area(bare, kind):
    """The same numbers under another template's hash or attributes."""
    with open_tpm(bare.tcti, keys(kind)) as tpm:
        ek = parse_public(tpm.ek_public())
    other = HashAlg.SHA256 if kind.is_high else HashAlg.SHA384
    with pytest.raises(UnknownEkTemplate):
        check_ek_template(replace(ek, name_alg=other))
    with pytest.raises(UnknownEkTemplate):
        check_ek_template(replace(ek, auth_policy=bytes(len(ek.auth_policy))))


@EK_KINDS
def test_individual_keys_are_of_the_same_templates_and_no_two_alike(bare, kind):
    """As nodes have them that share a TPM; what is made for one of them opens for none of the others."""
    seen = []
    for individual in (b"", b"1", b"2"):
        with open_tpm(bare.tcti, NodeKeys(kind, individual=individual)) as tpm:
            seen.append((tpm.ek_public(), tpm.ak_public()))
            check_ek_template(parse_public(seen[-1][0]))
            check_attestation_key(parse_public(seen[-1][1]))
    assert len({ek for ek, _ in seen}) == len({ak for _, ak in seen}) == len(seen)
    ek, ak = (parse_public(one) for one in seen[1])
    blob, secret = make_credential(ek, ak.name(), b"secret", seed=os.urandom(ek.name_alg.size))
    with open_tpm(bare.tcti, NodeKeys(kind, individual=b"1")) as tpm:
        assert tpm.activate_credential(blob, secret) == b"secret"
    with open_tpm(bare.tcti, NodeKeys(kind, individual=b"2")) as tpm, pytest.raises(ForeignSeal):
        tpm.activate_credential(blob, secret)
