from __future__ import annotations

import pytest

from catena.ids import HashAlg
from catena.tpm.extender import open_pcr
from catena.tpm.failure import TpmFailed, TpmUnavailable
from swtpm import SoftwareTpm, needs_swtpm

pytestmark = [pytest.mark.tpm, needs_swtpm]


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
