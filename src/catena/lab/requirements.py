"""What this machine needs, checked one by one: the content of ``catena doctor``."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from catena.lab import tools

FREE_MIB = 4096
"""Disk space that a demo with an empty cache needs."""

PYTHON = (3, 11)


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing looked at; ``remedy`` is a command or an instruction when it is not ``ok``."""

    name: str
    purpose: str
    ok: bool
    found: str
    remedy: str = ""


def checks(folder: Path) -> tuple[Check, ...]:
    """Look at this machine: Python, privileges, libraries, tools, space in ``folder``."""
    return (
        _python(),
        _debian(),
        _root(),
        _library("tpm2_pytss", "talk to a TPM", "scripts/setup as root (compiles tpm2-pytss)"),
        *_tools("build releases", tools.RELEASE_TOOLS),
        *_tools("boot machines", tools.MACHINE_TOOLS),
        *_tools("make the lab's root file system", tools.TREE_TOOLS),
        _space(folder),
    )


def _python() -> Check:
    version = sys.version_info
    return Check(
        name="python",
        purpose="run catena",
        ok=version >= PYTHON,
        found=f"{version.major}.{version.minor}.{version.micro}",
        remedy="apt-get install python3 python3-venv (3.11 or newer)",
    )


def _debian() -> Check:
    release = Path("/etc/os-release")
    fields = dict(
        line.split("=", 1)
        for line in (release.read_text().splitlines() if release.exists() else ())
        if "=" in line
    )
    system = fields.get("PRETTY_NAME", "unknown").strip('"')
    kin = f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".replace('"', "").split()
    return Check(
        name="debian",
        purpose="install packages and make the lab's root file system",
        ok="debian" in kin,
        found=system,
        remedy="run the lab on Debian 12; everything but `catena lab` works on other systems",
    )


def _root() -> Check:
    name = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    return Check(
        name="root",
        purpose="make file systems with device nodes and foreign owners",
        ok=os.geteuid() == 0,
        found=name,
        remedy="sudo make demo",
    )


def _library(module: str, purpose: str, remedy: str) -> Check:
    present = importlib.util.find_spec(module) is not None
    return Check(
        name=module,
        purpose=purpose,
        ok=present,
        found="installed" if present else "missing",
        remedy=remedy,
    )


def _tools(purpose: str, needed: Iterable[tools.Tool]) -> Sequence[Check]:
    return [_tool(tool, purpose) for tool in needed]


def _tool(tool: tools.Tool, purpose: str) -> Check:
    try:
        found, remedy = str(tool.path()), ""
    except tools.MissingTool as error:
        found, remedy = "missing", error.remedy
    return Check(
        name=Path(tool.name).name, purpose=purpose, ok=not remedy, found=found, remedy=remedy
    )


def _space(folder: Path) -> Check:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free // 2**20
    return Check(
        name="disk space",
        purpose="hold packages, images and machines",
        ok=free >= FREE_MIB,
        found=f"{free} MiB free in {there}",
        remedy=f"free {FREE_MIB} MiB, or choose another folder with --cache and --dir",
    )
