"""What changed since the last trusted boot: one real TPM, started twice."""

from __future__ import annotations

import pytest

from appraise.forged import measured, rebuilt
from catena.formats.tcglog import EventType
from catena.tpm.device import open_tpm
from service.fixtures import make_server
from service.machine import Machine
from swtpm import software_tpm

LINE = "init=/bin/sh"


@pytest.fixture
def own_tpm(tmp_path, tpm_ca):
    with software_tpm(tmp_path / "tpm", ca=tpm_ca) as tpm:
        yield tpm


@pytest.fixture
def trusting_own(tmp_path, keys, own_tpm, boot):
    roots = tuple(f"software={path}" for path in own_tpm.root_ca_pem_paths)
    server = make_server(tmp_path / "trusting", keys, roots)
    server.import_references(boot)
    yield server
    server.opened.close()


def with_a_line(events):
    """The stub measures an overriding command line after everything else."""
    data = (LINE + "\0").encode("utf-16-le")
    return [*events, measured(12, EventType.EV_IPL, data)]


def test_the_next_boot_is_compared_with_the_last_trusted_one(trusting_own, own_tpm, boot):
    server = trusting_own
    with open_tpm(own_tpm.tcti) as tpm:
        machine = Machine(tpm, boot)
        machine.measure()
        server.admit(machine)
        assert machine.attest(server.call).verdict == "trusted"
    assert server.service.nodes.explain("n1").since is None

    own_tpm.stop()
    own_tpm.start()
    with open_tpm(own_tpm.tcti) as tpm:
        again = Machine(tpm, rebuilt(boot, with_a_line), key=machine.key, node_id=machine.node_id)
        again.measure()
        for _ in range(2):  # a second untrusted verdict must not replace the trusted boot
            assert again.attest(server.call).verdict == "untrusted"
    found = server.service.nodes.explain("n1")
    (change,) = found.since.changes
    assert (change.pcr, change.how) == (12, "added")
    assert any(LINE in line for line in change.details)
    assert found.since.changed_pcrs == (12,)
