from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import catena
from catena.cli.main import run
from catena.lab import requirements, tools
from catena.osimage import tool
from catena.osimage.tool import BUILD_TOOLS, Tool

ROOT = Path(__file__).resolve().parents[2]
ALWAYS_INSTALLED = {"apt", "dpkg", "tar", "util-linux"}
"""Packages without which there is no Debian."""


def examined(capsys, *words: str) -> tuple[int, dict]:
    status = run(["doctor", *words, "-o", "json"])
    return status, json.loads(capsys.readouterr().out)


def named_tools() -> set[Tool]:
    """Every ``Tool`` that a module of the package defines."""
    return {
        value
        for module in (tool, tools)
        for value in vars(module).values()
        if isinstance(value, Tool)
    }


def test_every_check_has_the_same_shape(capsys):
    status, diagnosis = examined(capsys)
    assert diagnosis.keys() == {"ok", "checks", "remedies"}
    assert status == (0 if diagnosis["ok"] else 1)
    for check in diagnosis["checks"]:
        assert check.keys() == {"name", "purpose", "ok", "found", "remedy"}
        assert check["remedy"] or check["ok"]
    assert {"python", "debian", "root", "tpm2-pytss", "disk space"} <= {
        check["name"] for check in diagnosis["checks"]
    }


def test_every_tool_that_code_names_is_checked_once():
    checked = [needed for group in requirements.GROUPS.values() for needed in group]
    assert set(checked) == named_tools()
    assert len(checked) == len(set(checked))
    assert set(BUILD_TOOLS) < set(tools.RELEASE_TOOLS)


def test_tools_are_defined_in_their_two_modules_only():
    home = Path(catena.__file__).parent
    defining = {
        str(path.relative_to(home))
        for path in home.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"Tool", "tool.Tool", "tools.Tool"}
    }
    assert defining == {"osimage/tool.py", "lab/tools.py"}


def test_set_up_installs_the_package_of_every_tool():
    lines = (ROOT / "scripts/apt-packages.txt").read_text().splitlines()
    listed = {line.partition("#")[0].strip() for line in lines} - {""}
    assert {needed.package for needed in named_tools()} - ALWAYS_INSTALLED <= listed


def test_one_command_installs_all_that_is_missing(capsys, monkeypatch):
    monkeypatch.setattr(tool, "_SYSTEM_FOLDERS", ())
    monkeypatch.setenv("PATH", "/nonexistent")
    status, diagnosis = examined(capsys)
    assert (status, diagnosis["ok"]) == (1, False)
    installs = [remedy for remedy in diagnosis["remedies"] if remedy.startswith("apt-get")]
    packages = sorted({needed.package for needed in named_tools() if needed.name[0] != "/"})
    assert installs == [f"apt-get install --no-install-recommends {' '.join(packages)}"]
    missing = {check["name"]: check["remedy"] for check in diagnosis["checks"] if not check["ok"]}
    assert missing["swtpm"] == "apt-get install --no-install-recommends swtpm"


def test_table_lists_remedies_last_and_quiet_only_what_is_missing(capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert run(["doctor", "--quiet"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("MISSING  swtpm_setup") for line in lines)
    assert not any(line.startswith("ok ") for line in lines)
    assert lines[-1].startswith("remedy: ")


def test_quiet_says_nothing_when_nothing_is_missing(capsys, monkeypatch):
    nothing = requirements.Diagnosis(ok=True, checks=(), remedies=())
    monkeypatch.setattr(requirements, "examine", lambda _: nothing)
    assert run(["doctor", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_too_little_space_is_said_with_the_place(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(requirements, "FREE_MIB", 1 << 40)
    status, diagnosis = examined(capsys, "--dir", str(tmp_path / "not/yet/there"))
    assert status == 1
    space = next(check for check in diagnosis["checks"] if check["name"] == "disk space")
    assert space["found"].endswith(f"MiB free in {tmp_path}")
    assert any("--cache" in remedy for remedy in diagnosis["remedies"])


def test_library_that_does_not_load_counts_as_missing(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tpm2_pytss", None)
    status, diagnosis = examined(capsys)
    assert status == 1
    library = next(check for check in diagnosis["checks"] if check["name"] == "tpm2-pytss")
    assert library["found"].startswith("missing")


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming nobody needs root")
def test_unprivileged_user_is_told_that_root_is_needed(tmp_path):
    """Also when the folder is one that this user may not look into."""
    (tmp_path / "closed").mkdir(mode=0o700)
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    command = [*nobody, sys.executable, "-m", "catena.cli.main"]
    probe = subprocess.run([*command, "--version"], capture_output=True, check=False, cwd="/")
    if probe.returncode != 0:
        pytest.skip("this checkout is not readable for other users")
    place = str(tmp_path / "closed/lab")
    done = subprocess.run(
        [*command, "doctor", "--dir", place, "-o", "json"],
        capture_output=True,
        check=False,
        cwd="/",
    )
    assert (done.returncode, done.stderr) == (1, b"")
    diagnosis = json.loads(done.stdout)
    root = next(check for check in diagnosis["checks"] if check["name"] == "root")
    assert (root["ok"], root["found"]) == (False, "user 65534")
    assert root["remedy"] in diagnosis["remedies"]
