"""NV indices over a real TPM: opened and sealed once a boot, and never again in it."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPMA_NV
from tpm2_pytss.ESAPI import ESAPI
from tpm2_pytss.types import TPM2B_NV_PUBLIC, TPMS_NV_PUBLIC

from catena.formats.tpm2 import parse_attest, parse_public, parse_signature
from catena.formats.tpm2nv import parse_nv_certify_info
from catena.ids import HashAlg
from catena.tpm import nvindex
from catena.tpm.device import connected, open_tpm
from catena.tpm.extender import open_pcr
from catena.tpm.failure import TpmFailed
from catena.tpm.nvindex import NvIndexLost, NvIndexTaken, SealPcrUsed, open_nv, seal_spaces
from catena.tpm.wire import unmarshal
from small_indices import FIRST, ONE, PCR, SEAL, SECOND, SPACES, TWO, seal
from swtpm import SoftwareTpm, needs_swtpm

pytestmark = [pytest.mark.tpm, needs_swtpm]

SHA256 = HashAlg.SHA256
DIGEST = hashlib.sha256(b"event").digest()
SEALED = SHA256.digest(bytes(32) + SHA256.digest(SEAL))


def after(value: bytes, *digests: bytes) -> bytes:
    for digest in digests:
        value = SHA256.digest(value + digest)
    return value


@pytest.fixture
def sealed(own_machine: SoftwareTpm) -> SoftwareTpm:
    seal(own_machine.tcti)
    return own_machine


def value_of(tcti: str, space=SPACES[0]) -> bytes:
    with open_nv(tcti, space) as nv:
        return nv.read(SHA256)


def seal_of(tcti: str) -> bytes:
    with open_pcr(tcti, PCR) as pcr:
        return pcr.read(SHA256)


def test_every_tenant_has_an_index_and_the_pcr_has_the_seal(sealed):
    assert (value_of(sealed.tcti), value_of(sealed.tcti, SPACES[1])) == (FIRST.base, SECOND.base)
    assert seal_of(sealed.tcti) == SEALED


def test_sealing_again_changes_nothing(sealed):
    with open_nv(sealed.tcti, SPACES[0]) as nv:
        nv.extend({SHA256: DIGEST})
    seal(sealed.tcti)
    assert value_of(sealed.tcti) == after(FIRST.base, DIGEST)
    assert seal_of(sealed.tcti) == SEALED


def test_an_index_extends_like_a_pcr_and_keeps_its_value(sealed):
    with open_nv(sealed.tcti, SPACES[0]) as nv:
        assert nv.banks() == (SHA256,)
        nv.extend({SHA256: DIGEST})
        nv.extend({SHA256: bytes(32)})
        assert nv.read(SHA256) == after(FIRST.base, DIGEST, bytes(32))
    assert value_of(sealed.tcti) == after(FIRST.base, DIGEST, bytes(32))
    assert value_of(sealed.tcti, SPACES[1]) == SECOND.base


@pytest.mark.parametrize("orderly", [True, False])
def test_everything_begins_again_at_the_next_boot(sealed, orderly):
    with open_nv(sealed.tcti, SPACES[0]) as nv:
        nv.extend({SHA256: DIGEST})
        if orderly:
            nv._esys.shutdown(0)
    sealed.power_cycle()
    with open_tpm(sealed.tcti) as tpm:
        assert tpm.certify_nv(ONE, b"") is None
    with pytest.raises(NvIndexLost), open_nv(sealed.tcti, SPACES[0]):
        pass
    seal(sealed.tcti)
    assert (value_of(sealed.tcti), seal_of(sealed.tcti)) == (FIRST.base, SEALED)


# An owner who removes an index -------------------------------------------------------------


def undefine(tcti: str, index: int = ONE) -> None:
    with connected(tcti) as esys:
        esys.nv_undefine_space(esys.tr_from_tpmpublic(index))


def define(esys: ESAPI, **changes) -> None:
    """Exactly the index that was there, or another in its place."""
    public = unmarshal(TPMS_NV_PUBLIC, SPACES[0].public)
    for name, value in changes.items():
        setattr(public, name, value)
    esys.nv_define_space(b"", TPM2B_NV_PUBLIC(nvPublic=public))


def test_an_index_that_was_defined_again_can_never_be_written(sealed):
    with open_nv(sealed.tcti, SPACES[0]) as nv:
        nv.extend({SHA256: DIGEST})
    undefine(sealed.tcti)
    with connected(sealed.tcti) as esys:
        define(esys)
        handle = esys.tr_from_tpmpublic(ONE)
        for pcr in (None, PCR):
            with pytest.raises(TpmFailed):
                nvindex._write(esys, handle, SPACES[0], FIRST.opening, pcr=pcr)
        with pytest.raises(Exception, match="auth"):
            esys.nv_extend(handle, DIGEST, auth_handle=handle)
        with pytest.raises(Exception, match="auth"):
            esys.nv_extend(handle, DIGEST, auth_handle=ESYS_TR.OWNER)
    with open_tpm(sealed.tcti) as tpm:
        assert tpm.certify_nv(ONE, b"") is None


@pytest.mark.parametrize("back", [False, True])
def test_a_lost_index_is_lost_until_the_next_boot(sealed, back):
    undefine(sealed.tcti)
    if back:
        with connected(sealed.tcti) as esys:
            define(esys)
    with pytest.raises(NvIndexLost):
        seal(sealed.tcti)
    with pytest.raises(NvIndexLost), open_nv(sealed.tcti, SPACES[0]):
        pass
    sealed.power_cycle()
    seal(sealed.tcti)
    assert value_of(sealed.tcti) == FIRST.base


@pytest.mark.parametrize("back", [False, True])
def test_an_extender_whose_index_goes_away_says_so(sealed, back):
    with open_nv(sealed.tcti, SPACES[0]) as nv:
        nv._esys.clear(ESYS_TR.LOCKOUT)  # takes every index of the owner with it
        if back:
            define(nv._esys)
        with pytest.raises(NvIndexLost):
            nv.extend({SHA256: DIGEST})
        with pytest.raises(NvIndexLost):
            nv.read(SHA256)


def test_an_index_in_its_place_has_another_name(sealed):
    undefine(sealed.tcti)
    attributes = TPMA_NV.AUTHREAD | TPMA_NV.AUTHWRITE | TPMA_NV(4 << 4)
    with connected(sealed.tcti) as esys:
        define(esys, attributes=attributes, authPolicy=b"")
        handle = esys.tr_from_tpmpublic(ONE)
        esys.nv_extend(handle, FIRST.opening, auth_handle=handle)
    with open_tpm(sealed.tcti) as tpm:
        attest, _ = tpm.certify_nv(ONE, b"nonce")
    info = parse_nv_certify_info(parse_attest(attest).body)
    assert (info.contents, info.name == FIRST.public(written=True).name()) == (FIRST.base, False)
    with pytest.raises(NvIndexTaken):
        seal(sealed.tcti)


def test_an_index_of_somebody_else_is_refused_before_the_seal(own_machine):
    with connected(own_machine.tcti) as esys:
        define(esys, attributes=TPMA_NV.AUTHREAD | TPMA_NV.AUTHWRITE, authPolicy=b"")
    with pytest.raises(NvIndexTaken):
        seal(own_machine.tcti)
    assert seal_of(own_machine.tcti) == bytes(32)


def test_an_index_of_another_hash_is_refused(own_machine):
    with connected(own_machine.tcti) as esys:
        define(esys, nameAlg=TPM2_ALG.SHA384, authPolicy=bytes(48), dataSize=48)
    with pytest.raises(NvIndexTaken):
        seal(own_machine.tcti)


def test_a_pcr_that_something_else_extended_cannot_seal(own_machine):
    with open_pcr(own_machine.tcti, PCR) as pcr:
        pcr.extend({bank: bank.digest(b"machine-id") for bank in pcr.banks()})
    with pytest.raises(SealPcrUsed):
        seal(own_machine.tcti)


def test_a_pcr_that_was_extended_in_one_bank_only_cannot_seal(own_machine):
    with open_pcr(own_machine.tcti, PCR) as pcr:
        pcr.extend({HashAlg.SHA384: HashAlg.SHA384.digest(SEAL)})
    with pytest.raises(SealPcrUsed):
        seal(own_machine.tcti)


def test_a_gate_with_other_indices_is_refused(sealed):
    with pytest.raises(SealPcrUsed):
        seal_spaces(sealed.tcti, PCR, b"others", SPACES[:1])


# Owner authorisation, crashes --------------------------------------------------------------


def test_the_owner_authorisation_is_needed_to_define(own_machine):
    with pytest.raises(TpmFailed):
        seal(own_machine.tcti, b"guess")
    with connected(own_machine.tcti) as esys:
        esys.hierarchy_change_auth(ESYS_TR.OWNER, b"owner")
    with pytest.raises(TpmFailed):
        seal(own_machine.tcti)
    seal(own_machine.tcti, b"owner")
    own_machine.power_cycle()
    seal(own_machine.tcti)  # it is defined, and nobody is asked again
    assert value_of(own_machine.tcti) == FIRST.base


class Dead(Exception):
    """The process is gone."""


STEPS = ("first define", "first write", "second define", "second write", "seal")


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("step", range(len(STEPS)), ids=STEPS)
def test_a_gate_that_dies_between_two_steps_is_followed_by_one_that_completes_them(
    own_machine, monkeypatch, step, before
):
    done = iter(range(99))

    def dying(real):
        def call(*words, **named):
            last = next(done) == step
            if last and before:
                raise Dead
            result = real(*words, **named)
            if last:
                raise Dead
            return result

        return call

    with monkeypatch.context() as patch:
        for name in ("_defined", "_write"):
            patch.setattr(nvindex, name, dying(getattr(nvindex, name)))
        patch.setattr(nvindex.Tpm, "extend", dying(nvindex.Tpm.extend))
        with pytest.raises(Dead):
            seal(own_machine.tcti)
    seal(own_machine.tcti)
    assert (value_of(own_machine.tcti), value_of(own_machine.tcti, SPACES[1])) == (
        FIRST.base,
        SECOND.base,
    )
    assert seal_of(own_machine.tcti) == SEALED


# Certificates ------------------------------------------------------------------------------


def test_the_attestation_key_certifies_name_and_value(sealed):
    with open_nv(sealed.tcti, SPACES[1]) as nv:
        nv.extend({SHA256: DIGEST})
    with open_tpm(sealed.tcti) as tpm:
        attest, signature = tpm.certify_nv(TWO, b"nonce")
        key = parse_public(tpm.ak_public()).key()
        clock = parse_attest(tpm.quote(b"", SHA256, [PCR])[0]).clock
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(parse_signature(signature).signature_bytes(), attest, ec.ECDSA(hashes.SHA256()))
    certified = parse_attest(attest)
    info = parse_nv_certify_info(certified.body)
    assert certified.extra_data == b"nonce"
    assert (certified.clock.reset_count, certified.clock.restart_count) == (
        clock.reset_count,
        clock.restart_count,
    )
    assert (info.name, info.offset) == (SECOND.public(written=True).name(), 0)
    assert info.contents == after(SECOND.base, DIGEST)


def test_an_index_that_is_not_there_is_not_certified(own_machine):
    with open_tpm(own_machine.tcti) as tpm:
        assert tpm.certify_nv(ONE, b"") is None


def test_no_slot_of_the_tpm_is_used_up(sealed):
    with open_nv(sealed.tcti, SPACES[0]) as nv:
        for _ in range(20):
            nv.extend({SHA256: DIGEST})
    with open_tpm(sealed.tcti) as tpm:
        for _ in range(5):
            assert tpm.certify_nv(ONE, b"")
