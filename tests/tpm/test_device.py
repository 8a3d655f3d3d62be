from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from tpm2_pytss.constants import TPM2_CAP
from tpm2_pytss.ESAPI import ESAPI
from tpm2_pytss.types import TPM2B_NAME, TPMT_PUBLIC
from tpm2_pytss.utils import make_credential

from catena.errors import FormatError
from catena.formats.tpm2 import (
    RH_ENDORSEMENT,
    TPM_GENERATED_VALUE,
    TPM_ST_ATTEST_QUOTE,
    PcrSelection,
    TpmaObject,
    parse_attest,
    parse_public,
    parse_signature,
    primary_qualified_name,
)
from catena.ids import QUOTED_PCRS, HashAlg
from catena.tpm.device import PcrQuote, Tpm, open_tpm
from catena.tpm.failure import (
    BankMissing,
    ForeignSeal,
    TpmFailed,
    TpmUnavailable,
    UnsteadyPcrs,
)
from swtpm import SoftwareTpm, needs_swtpm, process_is_gone, software_tpm

pytestmark = [pytest.mark.tpm, needs_swtpm]

QUALIFYING = hashlib.sha256(b"qualifying").digest()
TRANSIENT_OBJECTS = 0x80000000
LOADED_SESSIONS = 0x02000000


def challenge(tpm: Tpm, secret: bytes = b"secret" * 5) -> tuple[bytes, bytes]:
    """A credential challenge made by the TPM library, independently of ``keys.protect``."""
    ek, _ = TPMT_PUBLIC.unmarshal(tpm.ek_public())
    name = parse_public(tpm.ak_public()).name()
    blob, seed = make_credential(ek, secret, TPM2B_NAME(name))
    return blob.marshal(), seed.marshal()


def test_both_keys_survive_a_power_cycle(own_machine: SoftwareTpm):
    with open_tpm(own_machine.tcti) as tpm:
        before = tpm.ek_public(), tpm.ak_public()
    own_machine.power_cycle()
    with open_tpm(own_machine.tcti) as tpm:
        assert (tpm.ek_public(), tpm.ak_public()) == before


def test_two_tpms_have_different_keys(tpm: Tpm, own_machine: SoftwareTpm):
    with open_tpm(own_machine.tcti) as other:
        assert other.ek_public() != tpm.ek_public()
        assert other.ak_public() != tpm.ak_public()


def test_attestation_key_is_restricted_and_cannot_leave_the_tpm(tpm: Tpm):
    attributes = parse_public(tpm.ak_public()).attributes
    assert TpmaObject.RESTRICTED | TpmaObject.SIGN_ENCRYPT in attributes
    assert TpmaObject.FIXED_TPM | TpmaObject.FIXED_PARENT in attributes
    assert TpmaObject.SENSITIVE_DATA_ORIGIN in attributes
    assert TpmaObject.DECRYPT not in attributes


def test_endorsement_certificate_is_for_the_endorsement_key(tpm: Tpm, machine: SoftwareTpm):
    certificate, *_ = tpm.ek_certificates()
    leaf = x509.load_der_x509_certificate(certificate)
    assert leaf.public_key() == parse_public(tpm.ek_public()).key()
    issuers = [
        x509.load_pem_x509_certificate(path.read_bytes()) for path in machine.root_ca_pem_paths
    ]
    assert leaf.issuer in {issuer.subject for issuer in issuers}


def test_tpm_without_certificates_gives_none(tmp_path: Path):
    with software_tpm(tmp_path / "bare", certificates=False) as bare, open_tpm(bare.tcti) as tpm:
        assert tpm.ek_certificates() == ()


def test_quote_is_signed_by_the_attestation_key_over_exactly_what_was_asked(tpm: Tpm):
    attest, signature = tpm.quote(QUALIFYING, HashAlg.SHA256, QUOTED_PCRS)
    ak = parse_public(tpm.ak_public())
    key = ak.key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(parse_signature(signature).signature_bytes(), attest, ec.ECDSA(hashes.SHA256()))
    quoted = parse_attest(attest)
    assert (quoted.magic, quoted.type) == (TPM_GENERATED_VALUE, TPM_ST_ATTEST_QUOTE)
    assert quoted.extra_data == QUALIFYING
    assert quoted.qualified_signer == primary_qualified_name(ak.name(), RH_ENDORSEMENT)
    assert quoted.quote is not None
    assert quoted.quote.selections == (PcrSelection(HashAlg.SHA256, QUOTED_PCRS),)


@pytest.mark.parametrize("bank", [HashAlg.SHA256, HashAlg.SHA384])
def test_quoted_values_hash_to_the_quoted_digest(tpm: Tpm, bank: HashAlg):
    quote = tpm.quote_pcrs(QUALIFYING, bank, QUOTED_PCRS)
    info = parse_attest(quote.attest).quote
    assert info is not None
    assert info.pcr_digest == hashlib.sha256(b"".join(quote.values)).digest()
    assert {len(value) for value in quote.values} == {bank.size}


class BusyTpm(Tpm):
    """A TPM in a machine that extends PCR 10 after each of the first reads."""

    extensions = 0

    def read_pcrs(self, bank, pcrs):
        values = super().read_pcrs(bank, pcrs)
        if self.extensions > 0:
            self.extensions -= 1
            self.extend(10, {bank: hashlib.sha256(b"file").digest()})
        return values


def quote_while_extending(machine: SoftwareTpm, extensions: int) -> PcrQuote:
    with open_tpm(machine.tcti) as opened:
        busy = BusyTpm(opened._esys)
        busy.extensions = extensions
        return busy.quote_pcrs(QUALIFYING, HashAlg.SHA256, QUOTED_PCRS)


def test_quote_is_repeated_when_a_pcr_changed_meanwhile(machine: SoftwareTpm):
    quote = quote_while_extending(machine, 2)
    info = parse_attest(quote.attest).quote
    assert info is not None
    assert info.pcr_digest == hashlib.sha256(b"".join(quote.values)).digest()


def test_quote_gives_up_when_pcrs_never_rest(machine: SoftwareTpm):
    with pytest.raises(UnsteadyPcrs):
        quote_while_extending(machine, 1000)


def test_all_pcrs_are_read_in_order(tpm: Tpm):
    tpm.extend(15, {HashAlg.SHA256: bytes(range(32))})
    whole = tpm.read_pcrs(HashAlg.SHA256, range(24))
    assert len(whole) == 24
    assert whole[15:16] == tpm.read_pcrs(HashAlg.SHA256, [15])
    assert whole[17] == b"\xff" * 32


def test_extend_follows_the_formula_in_each_bank(tpm: Tpm):
    banks = (HashAlg.SHA256, HashAlg.SHA384)
    digests = {bank: bank.digest(b"measured") for bank in banks}
    before = {bank: tpm.read_pcrs(bank, [14])[0] for bank in banks}
    tpm.extend(14, digests)
    for bank in banks:
        assert tpm.read_pcrs(bank, [14]) == (bank.digest(before[bank] + digests[bank]),)


def test_allocated_banks_are_listed(tpm: Tpm):
    assert tpm.banks() == (HashAlg.SHA256, HashAlg.SHA384)


def test_bank_that_is_not_allocated_is_refused(tpm: Tpm):
    with pytest.raises(BankMissing):
        tpm.quote_pcrs(QUALIFYING, HashAlg.SHA1, QUOTED_PCRS)


def test_credential_made_for_this_tpm_is_activated(tpm: Tpm):
    assert tpm.activate_credential(*challenge(tpm)) == b"secret" * 5


def test_credential_made_for_another_tpm_is_refused(tpm: Tpm, own_machine: SoftwareTpm):
    with open_tpm(own_machine.tcti) as other, pytest.raises(ForeignSeal):
        other.activate_credential(*challenge(tpm))


def test_truncated_or_padded_challenge_is_malformed(tpm: Tpm):
    blob, seed = challenge(tpm)
    for cut in range(len(blob)):
        with pytest.raises(FormatError):
            tpm.activate_credential(blob[:cut], seed)
    for cut in range(len(seed)):
        with pytest.raises(FormatError):
            tpm.activate_credential(blob, seed[:cut])
    with pytest.raises(FormatError):
        tpm.activate_credential(blob + b"\0", seed)


def test_malformed_sealed_object_is_refused_before_the_tpm_sees_it(tpm: Tpm):
    with pytest.raises(FormatError):
        tpm.unseal(public=b"\0", duplicate=b"", seed=b"", bank=HashAlg.SHA256, pcrs=[0])


def test_nothing_stays_loaded_after_successes_and_refusals(machine: SoftwareTpm):
    with open_tpm(machine.tcti) as tpm:
        blob, seed = challenge(tpm)
        altered = blob[:-1] + bytes([blob[-1] ^ 1])
        for _ in range(5):
            tpm.quote(QUALIFYING, HashAlg.SHA256, QUOTED_PCRS)
            assert tpm.activate_credential(blob, seed)
            with pytest.raises(ForeignSeal):
                tpm.activate_credential(altered, seed)
        assert loaded_handles(tpm._esys) == 0


def loaded_handles(esys: ESAPI) -> int:
    count = 0
    for first in (TRANSIENT_OBJECTS, LOADED_SESSIONS):
        # Kept in a variable: its parts are views of memory that dies with it.
        _, capability = esys.get_capability(TPM2_CAP.HANDLES, first, 16)
        count += len(capability.data.handles)
    return count


def test_refusal_by_the_tpm_names_command_and_response_code(tpm: Tpm):
    with pytest.raises(TpmFailed) as caught:
        tpm.extend(99, {HashAlg.SHA256: bytes(32)})
    assert caught.value.command == "TPM2_PCR_Extend"
    assert "0x" in str(caught.value)


def test_tpm_that_dies_is_unavailable(own_machine: SoftwareTpm):
    with open_tpm(own_machine.tcti) as tpm:
        own_machine.stop()
        with pytest.raises(TpmUnavailable):
            tpm.ak_public()


@pytest.mark.parametrize("tcti", ["swtpm:port=1", "device:/nonexistent", "nonsense", ""])
def test_tpm_that_is_not_there_is_unavailable(tcti: str):
    with pytest.raises(TpmUnavailable), open_tpm(tcti):
        pass


def test_software_tpm_leaves_no_process_behind(tmp_path: Path):
    pids = []

    def fail_while_it_runs():
        with software_tpm(tmp_path / "short", certificates=False) as short:
            pids.append(short.pid)
            raise KeyError

    with pytest.raises(KeyError):
        fail_while_it_runs()
    assert process_is_gone(pids[0])
