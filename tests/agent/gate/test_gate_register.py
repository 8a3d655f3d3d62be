"""Where a gate's record lives: NV indices of tenants, with real gates over a real TPM."""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass

import pytest
from node import APP, Node
from standing import needs_runc
from tpm2_pytss.constants import ESYS_TR

import small_indices
from catena.agent.gate import register
from catena.agent.gate.config import load
from catena.agent.gate.register import (
    ExposedOwnerAuth,
    OwnerAuthUnreadable,
    SealLockUnusable,
    open_register,
    space_of,
)
from catena.containers.record.replay import replay, start_of
from catena.ids import HashAlg
from catena.tpm.device import connected, open_tpm
from catena.tpm.failure import TpmFailed
from catena.tpm.nvindex import open_nv
from small_indices import FIRST, ONE, SECOND, TWO
from swtpm import needs_swtpm, software_tpm
from tpmswitch import switch

pytestmark = [needs_runc, needs_swtpm, pytest.mark.tpm]

SHA256 = HashAlg.SHA256


@dataclass
class Shared:
    """A TPM behind a TCTI that several programs use."""

    tcti: str


@pytest.fixture
def tenants(room, tmp_path):
    """Two gates' worth of a node, each with its own everything, and one TPM."""
    with software_tpm(tmp_path / "tpm", certificates=False) as tpm, switch(tpm) as tcti:
        made = []
        for name, index in (("one", ONE), ("two", TWO)):
            (room / name).mkdir()
            settings = {
                "nv_index": index,
                "nv_indices": [ONE, TWO],
                "seal_lock": str(room / "lock"),
            }
            made.append(Node(room / name, Shared(tcti), settings))
        yield made
        for one in made:
            one.clean()


def in_index(node: Node, index) -> bool:
    """Whether the record of ``node`` replays to the value of ``index``."""
    with open_nv(node.tpm.tcti, space_of(index.index, 15)) as nv:
        value = nv.read(SHA256)
    events = node.events()
    assert start_of(events)[SHA256] == index.base
    return replay(events, SHA256, index.base)[-1] == value


def test_two_gates_serve_two_tenants_at_once(tenants):
    one, two = tenants
    bundles = [node.bundle(APP) for node in tenants]
    with one.gate(), two.gate():
        done = []

        def run(node, bundle, container):
            done.append(node.call("run", "--bundle", bundle, container).returncode)

        threads = [
            threading.Thread(target=run, args=(node, bundle, name))
            for node, bundle, name in zip(tenants, bundles, ("c1", "c2"), strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert done == [0, 0]
        for node in tenants:
            node.await_kind("exit")
    for node, container in zip(tenants, ("c1", "c2"), strict=True):
        assert node.kinds() == ["gate-start", "policy", "create", "exit"]
        assert node.events()[2].event.container == container
    assert in_index(one, FIRST)
    assert in_index(two, SECOND)


def test_gates_that_start_at_the_same_moment_seal_once(tenants):
    started = []
    threads = [
        threading.Thread(target=lambda node=node: started.append(node.start_gate()))
        for node in tenants
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in started:
        process.send_signal(signal.SIGTERM)
    assert [process.wait(30) for process in started] == [0, 0]
    assert in_index(tenants[0], FIRST)
    assert in_index(tenants[1], SECOND)


def test_a_gate_that_was_killed_goes_on_in_its_index(tenants):
    one, _ = tenants
    bundle = one.bundle(APP, "/bin/true")
    with one.gate() as process:
        assert one.call("run", "--bundle", bundle, "c1").returncode == 0
        process.kill()
        process.wait()
    with one.gate():
        assert one.call("run", "--bundle", bundle, "c2").returncode == 0
        one.await_kind("exit", 2)
    assert one.kinds().count("gate-start") == 2
    assert in_index(one, FIRST)


def test_an_index_that_is_removed_under_a_gate_stops_it(tenants):
    one, _ = tenants
    bundle = one.bundle(APP)
    with one.gate() as process:
        with connected(one.tpm.tcti) as esys:
            esys.nv_undefine_space(esys.tr_from_tpmpublic(ONE))
        assert one.call("run", "--bundle", bundle, "c1").returncode == 1
        assert not (bundle / "rootfs/ran").exists()
        assert process.wait(30) != 0
    with pytest.raises(AssertionError, match="nv-index-lost"):
        one.start_gate()


def test_a_gate_with_other_indices_does_not_serve(tenants):
    one, two = tenants
    with one.gate():
        two.settings["nv_indices"] = [TWO, ONE]
        two.write_config()
        with pytest.raises(AssertionError, match="nv-seal-pcr-used"):
            two.start_gate()


def test_the_agent_certifies_what_gates_extend_meanwhile(tenants):
    one, _ = tenants
    bundle = one.bundle(APP)
    with one.gate(), open_tpm(one.tpm.tcti) as tpm:
        before = tpm.certify_nv(ONE, b"n")
        assert one.call("run", "--bundle", bundle, "c1").returncode == 0
        one.await_kind("exit")
        assert before != tpm.certify_nv(ONE, b"n")


# Settings ----------------------------------------------------------------------------------


def opened(node: Node) -> None:
    with open_register(load(node.config)):
        pass


def test_the_owner_authorisation_comes_from_a_private_file(tenants, room):
    one, _ = tenants
    with connected(one.tpm.tcti) as esys:
        esys.hierarchy_change_auth(ESYS_TR.OWNER, b"owner")
    with pytest.raises(TpmFailed):
        opened(one)
    secret = room / "owner"
    one.settings["owner_auth"] = str(secret)
    one.write_config()
    with pytest.raises(OwnerAuthUnreadable):
        opened(one)
    secret.write_bytes(b"owner\n")
    secret.chmod(0o640)
    with pytest.raises(ExposedOwnerAuth) as caught:
        opened(one)
    assert "owner\n" not in str(caught.value)
    secret.chmod(0o600)
    opened(one)


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * 65])
def test_an_authorisation_that_is_none_is_refused(tenants, room, content):
    one, _ = tenants
    secret = room / "owner"
    secret.write_bytes(content)
    secret.chmod(0o600)
    one.settings["owner_auth"] = str(secret)
    one.write_config()
    with pytest.raises(OwnerAuthUnreadable):
        opened(one)


def test_a_lock_that_cannot_be_had_says_so(tenants, room):
    one, _ = tenants
    one.settings["seal_lock"] = str(room / "nowhere/lock")
    one.write_config()
    with pytest.raises(SealLockUnusable):
        opened(one)


def test_spaces_are_what_the_tests_use():
    assert (space_of(ONE, 15), space_of(TWO, 15)) == small_indices.SPACES
    assert register.space_of(ONE, 14) != register.space_of(ONE, 15)
