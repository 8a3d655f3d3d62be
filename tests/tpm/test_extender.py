from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from tpm2_pytss.constants import TPM2_ALG, TPMA_NV
from tpm2_pytss.ESAPI import ESAPI
from tpm2_pytss.types import TPM2B_NV_PUBLIC, TPMS_ATTEST, TPMS_NV_PUBLIC

from catena.formats.tpm2 import parse_public, parse_signature
from catena.ids import HashAlg
from catena.tpm.device import connected, open_tpm
from catena.tpm.extender import (
    NV_LAST,
    NvIndexOutOfRange,
    NvIndexTaken,
    open_nv,
    open_pcr,
)
from catena.tpm.failure import TpmFailed, TpmUnavailable
from catena.tpm.wire import unmarshal
from swtpm import SoftwareTpm, needs_swtpm

pytestmark = [pytest.mark.tpm, needs_swtpm]

INDEX = 0x01800F15
DIGEST = hashlib.sha256(b"event").digest()


def digests_of(content: bytes, banks) -> dict[HashAlg, bytes]:
    return {bank: bank.digest(content) for bank in banks}


def test_every_bank_is_extended_by_one_command(machine: SoftwareTpm):
    with open_pcr(machine.tcti, 14) as pcr:
        before = {bank: pcr.read(bank) for bank in pcr.banks()}
        digests = digests_of(b"event", pcr.banks())
        pcr.extend(digests)
        assert pcr.banks() == (HashAlg.SHA256, HashAlg.SHA384)
        for bank, value in before.items():
            assert pcr.read(bank) == bank.digest(value + digests[bank])


def test_an_extender_extends_its_own_pcr_only(machine: SoftwareTpm):
    others = [pcr for pcr in range(24) if pcr != 14]
    with open_pcr(machine.tcti, 14) as pcr:
        before = pcr._tpm.read_pcrs(HashAlg.SHA256, others)
        pcr.extend(digests_of(b"event", pcr.banks()))
        assert pcr._tpm.read_pcrs(HashAlg.SHA256, others) == before


def test_a_tpm_that_is_gone_says_so(own_machine: SoftwareTpm):
    with open_pcr(own_machine.tcti) as pcr:
        own_machine.stop()
        with pytest.raises(TpmUnavailable):
            pcr.extend(digests_of(b"event", pcr.banks()))


def test_a_pcr_that_software_may_not_extend_says_so(machine: SoftwareTpm):
    with open_pcr(machine.tcti, 17) as pcr, pytest.raises(TpmFailed):
        pcr.extend(digests_of(b"event", pcr.banks()))


def test_an_nv_index_is_defined_and_extends_like_a_pcr(own_machine: SoftwareTpm):
    with open_nv(own_machine.tcti, INDEX) as nv:
        assert nv.banks() == (HashAlg.SHA256,)
        assert nv.read(HashAlg.SHA256) == bytes(32)
        nv.extend({HashAlg.SHA256: DIGEST})
        nv.extend({HashAlg.SHA256: DIGEST})
        once = hashlib.sha256(bytes(32) + DIGEST).digest()
        assert nv.read(HashAlg.SHA256) == hashlib.sha256(once + DIGEST).digest()


def test_an_nv_index_is_found_again_with_its_value(own_machine: SoftwareTpm):
    with open_nv(own_machine.tcti, INDEX) as nv:
        nv.extend({HashAlg.SHA256: DIGEST})
        value = nv.read(HashAlg.SHA256)
    with open_nv(own_machine.tcti, INDEX) as nv:
        assert nv.read(HashAlg.SHA256) == value
        nv.extend({HashAlg.SHA256: DIGEST})
        assert nv.read(HashAlg.SHA256) == hashlib.sha256(value + DIGEST).digest()


@pytest.mark.parametrize("orderly", [True, False])
def test_an_nv_index_begins_again_at_every_boot(own_machine: SoftwareTpm, orderly):
    with open_nv(own_machine.tcti, INDEX) as nv:
        nv.extend({HashAlg.SHA256: DIGEST})
        if orderly:
            nv._esys.shutdown(0)
    own_machine.power_cycle()
    with open_nv(own_machine.tcti, INDEX) as nv:
        assert nv.read(HashAlg.SHA256) == bytes(32)


def test_two_tenants_have_two_indices(own_machine: SoftwareTpm):
    with open_nv(own_machine.tcti, INDEX) as nv:
        nv.extend({HashAlg.SHA256: DIGEST})
    with open_nv(own_machine.tcti, INDEX + 1) as nv:
        assert nv.read(HashAlg.SHA256) == bytes(32)


def define(esys: ESAPI, **changes) -> None:
    """An NV index of somebody else, at the place of ours."""
    public = TPMS_NV_PUBLIC(
        nvIndex=INDEX,
        nameAlg=TPM2_ALG.SHA256,
        attributes=TPMA_NV.AUTHREAD | TPMA_NV.AUTHWRITE,
        dataSize=32,
    )
    for name, value in changes.items():
        setattr(public, name, value)
    esys.nv_define_space(b"", TPM2B_NV_PUBLIC(nvPublic=public))


def test_an_index_that_can_be_overwritten_is_refused(own_machine: SoftwareTpm):
    with connected(own_machine.tcti) as esys:
        define(esys)
    with pytest.raises(NvIndexTaken), open_nv(own_machine.tcti, INDEX):
        pass


@pytest.mark.parametrize("index", [0x01C00002, 0x017FFFFF, NV_LAST + 1, 15])
def test_an_index_of_the_platform_is_refused(index):
    with pytest.raises(NvIndexOutOfRange), open_nv("device:/dev/null", index):
        pass


def test_a_wrong_owner_authorisation_defines_nothing(own_machine: SoftwareTpm):
    with pytest.raises(TpmFailed), open_nv(own_machine.tcti, INDEX, owner=b"guess"):
        pass


def test_the_value_of_an_nv_index_is_certified_by_the_attestation_key(own_machine: SoftwareTpm):
    with open_nv(own_machine.tcti, INDEX) as nv:
        nv.extend({HashAlg.SHA256: DIGEST})
        value = nv.read(HashAlg.SHA256)
        attest, signature = nv.certify(b"nonce")
        _, name = nv._esys.nv_read_public(nv._handle)
    with open_tpm(own_machine.tcti) as tpm:
        key = parse_public(tpm.ak_public()).key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(parse_signature(signature).signature_bytes(), attest, ec.ECDSA(hashes.SHA256()))
    certified = unmarshal(TPMS_ATTEST, attest)
    assert bytes(certified.extraData) == b"nonce"
    assert bytes(certified.attested.nv.nvContents) == value
    assert bytes(certified.attested.nv.indexName) == bytes(name)


def test_an_index_without_a_value_is_not_certified(own_machine: SoftwareTpm):
    with open_nv(own_machine.tcti, INDEX) as nv, pytest.raises(TpmFailed):
        nv.certify(b"nonce")
