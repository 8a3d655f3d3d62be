"""The systemd unit: what systemd itself says of it, and that it leaves the server its time."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from catena.errors import ExitCode
from catena.server import cosigning, exporting
from catena.server.config import Config

UNIT = Path(__file__).parents[2] / "deploy/catena-server.service"
EXPOSURE = 1.1
"""What remains: it speaks to the network, and its root is the machine's."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here"
)


def service() -> dict[str, str]:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text())
    return dict(parser["Service"])


@needs_systemd
def test_systemd_finds_it_little_exposed():
    options = ["--offline=true", f"--threshold={int(EXPOSURE * 10)}"]
    done = subprocess.run(
        ["systemd-analyze", "security", *options, str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
    assert f"service: {EXPOSURE} OK" in done.stdout


@needs_systemd
def test_systemd_understands_every_line(tmp_path):
    copy = tmp_path / UNIT.name
    copy.write_text(
        UNIT.read_text().replace("/usr/bin/catena ", "/bin/true ").replace("=catena\n", "=root\n")
    )
    done = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", str(copy)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert UNIT.name not in done.stderr, done.stderr


def test_the_server_has_its_time_to_stop_and_is_watched():
    unit = service()
    defaults = Config(
        listen="127.0.0.1:1",
        names=("x",),
        trust_domain="x",
        log_origin="x",
        ca_key="x",
        ca_certificate="x",
        log_key="x",
    )
    closing = exporting.GRACE + cosigning.GRACE
    assert int(unit["TimeoutStopSec"]) > defaults.drain_delay + defaults.grace + closing
    assert unit["Type"] == "notify"
    assert int(unit["WatchdogSec"]) > 0


def test_what_another_start_does_not_mend_is_not_started_again():
    codes = {int(code) for code in service()["RestartPreventExitStatus"].split()}
    assert codes == {
        ExitCode.USAGE,
        ExitCode.NOT_FOUND,
        ExitCode.UNTRUSTED,
        ExitCode.POLICY,
        ExitCode.MALFORMED,
        ExitCode.LOG_INCONSISTENT,
    }
