"""``catena agent`` as a person, a script and systemd see it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from stand_in import StandIn

from catena.agent import status
from catena.agent.config import AgentConfig
from catena.agent.status import AgentStatus, Failure
from catena.cli.main import run
from catena.errors import ExitCode
from catena.formats.nodeapi import Reason
from swtpm import needs_swtpm

TOO_HEAVY_FOR_A_NODE = {
    "asn1crypto",
    "catena.server",
    "catena.service",
    "catena.store",
    "cel",
    "httptools",
    "httpx",
    "rich",
    "sqlalchemy",
    "starlette",
    "uvicorn",
    "uvloop",
    "virt",
}


@pytest.fixture
def config_file(config: AgentConfig, tmp_path: Path) -> Path:
    return write_config(tmp_path, config)


def write_config(folder: Path, config: AgentConfig) -> Path:
    path = folder / "agent.toml"
    settings = {
        "server": config.server,
        "ca": config.ca,
        "tcti": config.tcti,
        "runtime_dir": config.runtime_dir,
        "event_log": config.event_log,
        "ima_log": config.ima_log,
    }
    path.write_text("".join(f'{name} = "{value}"\n' for name, value in settings.items()))
    return path


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A configuration whose runtime directory takes a status."""
    config = AgentConfig(
        server="https://127.0.0.1:1",
        ca=tmp_path / "ca.crt",
        tcti="swtpm:port=1",
        runtime_dir=tmp_path,
    )
    return write_config(tmp_path, config)


@contextmanager
def running(config_file: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The agent as a process of its own."""
    command = [sys.executable, *options, "-m", "catena.cli.main", "agent", "run"]
    process = subprocess.Popen(
        [*command, "--config", str(config_file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def next_event(process: subprocess.Popen[str]) -> dict:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


@pytest.mark.tpm
@needs_swtpm
class TestWithTpm:
    def test_join_tells_who_has_to_do_what(self, config_file, service: StandIn, capsys):
        service.state = "pending"
        assert run(["agent", "join", "--config", str(config_file)]) == ExitCode.OK
        (node,) = service.enrolled
        assert capsys.readouterr().out == (
            f"node   {node}\n"
            "name   (not yet named)\n"
            "state  pending\n"
            f"next   a person runs: catena node approve {node[:16]}\n"
        )

    def test_join_prints_one_json_document(self, config_file, service: StandIn, capsys):
        assert run(["agent", "join", "--config", str(config_file), "-o", "json"]) == ExitCode.OK
        (node,) = service.enrolled
        assert json.loads(capsys.readouterr().out) == {
            "node_id": node,
            "state": "trusted",
            "name": None,
        }

    def test_run_attests_and_ends_cleanly_when_systemd_says_so(
        self, config_file, service: StandIn, config: AgentConfig
    ):
        with running(config_file) as process:
            events = [next_event(process) for _ in range(3)]
            assert [event["event"] for event in events] == ["started", "enrolled", "attested"], (
                events
            )
            assert (config.runtime_dir / "current/node.key").exists()
            process.send_signal(signal.SIGTERM)
            rest, errors = process.communicate(timeout=20)
        assert [json.loads(line)["event"] for line in rest.splitlines()] == ["withdrawn", "stopped"]
        assert (process.returncode, errors) == (0, "")
        assert {path.name for path in config.runtime_dir.iterdir()} <= {"receipts", "status.json"}


def test_run_imports_nothing_that_a_node_does_not_need(tmp_path, memory_folder):
    config = AgentConfig(
        server="https://127.0.0.1:1",
        ca=tmp_path / "ca.crt",
        tcti="swtpm:port=1",
        runtime_dir=memory_folder,
    )
    with running(write_config(tmp_path, config), "-X", "importtime") as process:
        assert next_event(process)["event"] == "started"
        assert next_event(process)["code"] == "tpm-unavailable"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    imported = set(re.findall(r"^import time:.*\| +([\w.]+)$", errors, re.MULTILINE))
    assert "catena.agent.daemon" in imported
    assert {name for name in imported if in_any(name, TOO_HEAVY_FOR_A_NODE)} == set()


def in_any(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_help_needs_no_tpm_library():
    code = "import sys; from catena.cli.main import run; run(['agent', 'run', '--help'])"
    check = "; assert 'tpm2_pytss' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code + check], capture_output=True, text=True, check=True
    )
    assert "one JSON line per event" in done.stdout


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"verdict": "untrusted", "state": "untrusted"}, ExitCode.UNTRUSTED),
        ({"verdict": "trusted", "state": "trusted"}, ExitCode.STALE),
        ({"verdict": "untrusted", "state": "pending"}, ExitCode.UNKNOWN_NODE),
        (
            {
                "verdict": "trusted",
                "state": "trusted",
                "certificate_until": datetime.now(UTC) + timedelta(hours=1),
            },
            ExitCode.OK,
        ),
    ],
)
def test_exit_code_of_status_is_the_verdict(stored, tmp_path, capsys, fields, code):
    status.write(tmp_path, AgentStatus(updated_at=datetime.now(UTC), **fields))
    assert run(["agent", "status", "--config", str(stored), "-o", "json"]) == code
    assert json.loads(capsys.readouterr().out)["verdict"] == fields["verdict"]


def test_status_shows_reasons_and_the_last_failure(stored, tmp_path, capsys):
    reason = Reason(code="unclaimed-event", message="PCR 4: no reference claims this loader")
    failure = Failure(code="server-unreachable", message="no answer")
    status.write(
        tmp_path,
        AgentStatus(
            updated_at=datetime.now(UTC),
            verdict="untrusted",
            state="untrusted",
            reasons=(reason,),
            failure=failure,
        ),
    )
    assert run(["agent", "status", "--config", str(stored)]) == ExitCode.UNTRUSTED
    lines = capsys.readouterr().out.splitlines()
    assert "verdict            untrusted" in lines
    assert "certificate until  -" in lines
    assert lines[-2].endswith("no reference claims this loader [unclaimed-event]")
    assert lines[-1].endswith("no answer [server-unreachable]")


def test_status_without_an_agent_is_not_found(stored, capsys):
    assert run(["agent", "status", "--config", str(stored), "-o", "json"]) == ExitCode.NOT_FOUND
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "agent-not-running"


@pytest.mark.parametrize("verb", ["join", "run", "status"])
def test_missing_configuration_is_not_found(verb, tmp_path, capsys):
    arguments = ["agent", verb, "--config", str(tmp_path / "absent.toml")]
    assert run(arguments) == ExitCode.NOT_FOUND
    assert "agent-config-missing" in capsys.readouterr().err


def test_join_without_a_tpm_says_what_is_missing(stored, capsys):
    assert run(["agent", "join", "--config", str(stored)]) == ExitCode.INTERNAL
    assert "tpm-unavailable" in capsys.readouterr().err
