"""The whole way of a machine with each kind of key: enrolled, attested, given a secret."""

from __future__ import annotations

import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from catena.tpm.device import open_tpm
from catena.tpm.kinds import KeyKind, NodeKeys
from service.fixtures import PASSWORD, make_server, put_secret
from service.machine import Machine
from service.vendor import request
from swtpm import needs_swtpm, software_tpm

pytestmark = [pytest.mark.tpm, needs_swtpm]


@pytest.fixture(scope="module")
def high(tmp_path_factory, boot):
    """A TPM with certificates for P-384 and RSA-3072, which measured the boot."""
    with software_tpm(tmp_path_factory.mktemp("high"), rsa_bits=3072) as tpm:
        with open_tpm(tpm.tcti) as opened:
            Machine(opened, boot).measure()
        yield tpm


@pytest.mark.parametrize(
    ("endorsement", "attestation"),
    [
        (KeyKind.ECC_P384, KeyKind.ECC_P384),
        (KeyKind.RSA_3072, KeyKind.RSA_3072),
        (KeyKind.RSA_3072, KeyKind.RSA_2048),
    ],
    ids=str,
)
def test_a_certified_machine_is_trusted_and_opens_its_secret(
    server, high, boot, endorsement, attestation
):
    server.import_references(boot)
    files = (path.read_bytes() for path in high.root_ca_pem_paths)
    ders = [x509.load_pem_x509_certificate(one).public_bytes(Encoding.DER) for one in files]
    server.service.endorsements.accept(request(*ders, vouches="software"), "alice")
    put_secret(server.service, "db-password", "web")
    with open_tpm(high.tcti, NodeKeys(endorsement, attestation)) as tpm:
        machine = Machine(tpm, boot)
        server.admit(machine)
        result = machine.attest(server.call)
        assert (result.verdict, result.state) == ("trusted", "trusted")
        assert machine.open(result.secrets[0]) == PASSWORD


def test_a_pinned_p256_ek_needs_no_certificate(tmp_path, keys, high, boot):
    chosen = NodeKeys(KeyKind.ECC_P256, KeyKind.ECC_P256)
    with open_tpm(high.tcti, chosen) as tpm:
        machine = Machine(tpm, boot)
        assert machine.enrolment().ek_certificates == ()
        server = make_server(tmp_path / "pinning", keys, pinned_eks=(_node_id(tpm),))
        machine.enrol(server.call)
        shown = server.service.nodes.show(machine.node_id)
        assert (shown.endorsed_by, shown.tpm.type) == ("pinned:pinned", "unknown")
        server.opened.close()


def _node_id(tpm) -> str:
    return hashlib.sha256(tpm.ek_public()).hexdigest()
