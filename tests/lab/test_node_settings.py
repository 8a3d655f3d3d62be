"""What the lab's node is told, held against what its parts do when they are told nothing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import msgspec

import catena.lab
from catena.agent.gate.config import GateConfig, load
from catena.containers.install import FOLDER
from catena.containers.launch.generate import DEFAULT_CAPABILITIES
from catena.containers.wrapper import files
from catena.lab import tree

NODE = Path(catena.lab.__file__).parent / "node"
SETTINGS = tree.NodeSettings(
    server_url="https://10.0.2.100:8443",
    cluster_ca=b"",
    interval=3,
    container_policy=b"policy",
    release_key=b"key",
)


def orders():
    spec = importlib.util.spec_from_file_location("node_orders", NODE / "orders.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_agent_wrapper_and_orders_mean_the_gate_that_runs():
    gate = GateConfig(policy=Path("/p"), policy_keys=(Path("/k"),))
    assert gate.socket == tree.GATE_SOCKET
    assert gate.record == tree.CONTAINER_RECORD == orders().RECORD
    assert gate.runtime == tree.RUNC
    assert Path(orders().RUNTIME) == FOLDER / files.NAME


def test_orders_know_what_engines_give_and_need_nothing_that_is_installed():
    assert orders().CTR_CAPABILITIES == DEFAULT_CAPABILITIES
    isolated = [
        sys.executable,
        "-IS",
        "-c",
        "import runpy, sys; runpy.run_path(sys.argv[1], run_name='x')",
    ]
    subprocess.run([*isolated, NODE / "orders.py"], check=True, timeout=20)


def test_gate_toml_is_one_that_the_gate_reads_and_names_what_the_tree_holds():
    gate = load(NODE / "gate.toml")
    assert {gate.policy, *gate.policy_keys} == {
        Path("/etc/catena/containers/policy.dsse.json"),
        Path("/etc/catena/containers/release.pub"),
    }
    assert gate.images == (orders().DATA / "images",)


def test_agent_is_told_where_the_record_is():
    told = msgspec.toml.decode(tree._agent_toml(SETTINGS))
    assert told["container_record"] == str(tree.CONTAINER_RECORD)
