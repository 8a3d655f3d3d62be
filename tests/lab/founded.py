"""Fixtures: a lab with keys and a trust service, a TPM to copy; nothing to boot from."""

from __future__ import annotations

import shutil
import socket

import pytest

from catena.lab import swtpm, tools
from catena.lab.operator import Operator
from catena.lab.running import Lab
from catena.lab.swtpm import Vendor
from catena.lab.tree import Cache
from catena.lab.workspace import Workspace
from living import processes_naming

__all__ = ["founded", "lab", "manufactured", "nothing_left"]

MISSING = [tool.name for tool in tools.MACHINE_TOOLS if tool.find() is None]


@pytest.fixture
def nothing_left(tmp_path):
    """After the test, no process names its folder."""
    yield
    left = processes_naming(tmp_path)
    assert left == {}


@pytest.fixture(scope="session")
def manufactured(tmp_path_factory):
    """A TPM state and its vendor, to be copied."""
    if MISSING:
        pytest.skip(f"not installed: {', '.join(MISSING)}")
    folder = tmp_path_factory.mktemp("manufactured")
    vendor = Vendor(folder / "vendor")
    swtpm.manufacture(folder / "tpm", vendor)
    return folder


@pytest.fixture(scope="session")
def founded(tmp_path_factory):
    """A lab folder with keys and a trust service, and nothing to boot."""
    folder = tmp_path_factory.mktemp("founded") / "lab"
    workspace = Workspace(folder, Cache(folder))
    workspace.found()
    operator = Operator(workspace.profile)
    operator.run("keys", "init", workspace.keys)
    operator.run(
        "server", "init", workspace.server, "--keys", workspace.keys, "--name", "127.0.0.1"
    )
    return folder


@pytest.fixture
def lab(founded, tmp_path, nothing_left):
    """The founded lab as one's own copy, on a free port."""
    folder = tmp_path / "lab"
    shutil.copytree(founded, folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = folder / "server/server.toml"
    settings.write_text(settings.read_text().replace(":8440", f":{port}"))
    workspace = Workspace(folder, Cache(tmp_path / "cache"))
    made = Lab(workspace, Operator(workspace.profile))
    yield made
    made.stop_started()
    made.down()
