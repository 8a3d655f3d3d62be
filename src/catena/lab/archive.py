"""Packages of other Debian releases, unpacked beside the system and never installed.

A prediction must hold for boot loaders newer than this system's. The archive and its proxy are
those that apt uses here anyway; only the suite is another.
"""

from __future__ import annotations

from pathlib import Path

from catena.errors import Unavailable
from catena.lab import tools
from catena.lab.tree import Cache, Progress
from catena.osimage.tool import ToolFailed

_SECONDS = 300.0
_TARGETS = ("indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
"""Debian's own keys: what is downloaded is checked against these, whatever else apt trusts."""

_SECURITY = "security"


class NoSuchPackage(Unavailable):
    """A suite of the archive that cannot be had, or does not have a package."""

    code = "no-such-package"
    remedy = "The archive that apt uses must carry this suite; check with `apt-get update`."


def unpacked(cache: Cache, suite: str, package: str, progress: Progress) -> Path:
    """The package of another suite, unpacked in the cache. Raises ``NoSuchPackage``."""
    place = cache.folder / f"{suite}-{package}"
    if place.exists():
        return place
    progress(f"download {package} of {suite} (once)")
    with cache.scratch("archive-") as room:
        if not place.exists():
            try:
                _fetch(room, suite, package)
            except ToolFailed as error:
                raise NoSuchPackage(f"cannot get {package} of {suite}", got=error.got) from error
            (room / "unpacked").replace(place)
    return place


def _fetch(room: Path, suite: str, package: str) -> None:
    """Download with apt's own checks (signed index, digests) from lists of our own."""
    (room / "lists/partial").mkdir(parents=True)
    (room / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {_archive()} {suite} main\n")
    options = (
        *("-o", f"Dir::Etc::sourcelist={room}/sources.list"),
        *("-o", "Dir::Etc::sourceparts=-"),
        *("-o", f"Dir::State::lists={room}/lists"),
        *("-o", "APT::Sandbox::User=root", "-q"),
    )
    tools.run(tools.APT_GET, (*options, "update"), seconds=_SECONDS, cwd=room)
    tools.run(tools.APT_GET, (*options, "download", package), seconds=_SECONDS, cwd=room)
    deb = next(room.glob("*.deb"))
    tools.run(tools.DPKG_DEB, ("-x", deb, room / "unpacked"), seconds=_SECONDS)


def _archive() -> str:
    """Where apt gets Debian's packages from."""
    told = tools.run(tools.APT_GET, _TARGETS, seconds=_SECONDS).split()
    found = next((one for one in told if _SECURITY not in one), None)
    if found is None:
        raise NoSuchPackage("apt has no archive of Debian's packages")
    return found
