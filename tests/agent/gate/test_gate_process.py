"""What the gate makes of an exec's command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from catena.agent.gate.process import process_document
from catena.containers.launch.refusals import LaunchPrivileges
from catena.containers.wrapper.command import parse_command


@pytest.mark.parametrize("words", [("/bin/echo",), ("--process", "p.json")])
@pytest.mark.parametrize("cgroup", ["..", "a/../../b", "cpu,memory:../x"])
def test_a_cgroup_outside_the_containers_own_is_refused(cgroup, words):
    options = words if words[0].startswith("-") else ()
    rest = () if options else words
    command = parse_command(["exec", "--cgroup", cgroup, *options, "c1", *rest])
    with pytest.raises(LaunchPrivileges):
        process_document(Path("/nowhere"), command, b"")
