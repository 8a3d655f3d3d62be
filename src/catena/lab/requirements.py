"""What this machine needs, checked one by one: the content of ``catena doctor``."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from catena.lab import tools
from catena.osimage.tool import Tool, install_command

FREE_MIB = 4096
"""Disk space that a demo with an empty cache needs."""

PYTHON = (3, 11)

GROUPS = {
    "build releases": tools.RELEASE_TOOLS,
    "boot machines": tools.MACHINE_TOOLS,
    "make the lab's root file system": tools.TREE_TOOLS,
    "compare predicted PCRs with real ones": tools.PROBE_TOOLS,
}
"""Programs and files of other projects, by what they are needed for."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing looked at; ``remedy`` is a command or an instruction when it is not ``ok``."""

    name: str
    purpose: str
    ok: bool
    found: str
    remedy: str = ""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """The whole examination; ``ok`` only if every check is.

    ``remedies`` is the shortest list that repairs everything: one command for all packages.
    """

    ok: bool
    checks: tuple[Check, ...]
    remedies: tuple[str, ...]


def examine(folder: Path) -> Diagnosis:
    """Look at this machine: Python, privileges, libraries, tools, space in ``folder``."""
    surroundings = (_python(), _debian(), _root(), _tpm_library(), _space(folder))
    needed = [(tool, purpose) for purpose, group in GROUPS.items() for tool in group]
    found = [_tool(tool, purpose) for tool, purpose in needed]
    missing = [tool for (tool, _), check in zip(needed, found, strict=True) if not check.ok]
    checks = (*surroundings, *found)
    return Diagnosis(
        ok=all(check.ok for check in checks),
        checks=checks,
        remedies=_remedies(surroundings, missing),
    )


def _remedies(checks: Sequence[Check], missing: Sequence[Tool]) -> tuple[str, ...]:
    others = [check.remedy for check in checks if not check.ok]
    return (*([install_command(missing)] if missing else []), *others)


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
        remedy="run as root: sudo make demo",
    )


def _tpm_library() -> Check:
    try:
        importlib.import_module("tpm2_pytss")
        found = "works"
    except (ImportError, OSError, RuntimeError) as error:  # missing, or without its C libraries
        found = f"missing ({type(error).__name__})"
    return Check(
        name="tpm2-pytss",
        purpose="talk to a TPM",
        ok=found == "works",
        found=found,
        remedy="scripts/setup as root (compiles tpm2-pytss)",
    )


def _tool(tool: Tool, purpose: str) -> Check:
    found = tool.find()
    return Check(
        name=Path(tool.name).name,
        purpose=purpose,
        ok=found is not None,
        found=str(found or "missing"),
        remedy="" if found else install_command([tool]),
    )


def _space(folder: Path) -> Check:
    # os.path.exists, unlike Path.exists, takes a folder that may not be looked into for absent.
    there = next(place for place in (folder, *folder.parents) if os.path.exists(place))  # noqa: PTH110
    free = shutil.disk_usage(there).free // 2**20
    return Check(
        name="disk space",
        purpose="hold packages, images and machines",
        ok=free >= FREE_MIB,
        found=f"{free} MiB free in {there}",
        remedy=f"free {FREE_MIB} MiB, or choose another folder with --cache and --dir",
    )
