"""The wrapper as files: the program that asks, and the one line that names its settings."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from catena.errors import NotFound, UsageError

NAME = "catena-runc"
CLIENT = "gate-client"
MAX_LINE = 255
"""Linux reads no more of a program's first line (``BINPRM_BUF_SIZE``), and says nothing."""
_PLAIN = re.compile(r"/[A-Za-z0-9_./+-]{1,200}\Z")


class UnusablePath(UsageError):
    """A path that cannot stand in the wrapper's line."""

    code = "wrapper-path-unusable"
    remedy = "Give short absolute paths of letters, digits, and `_./+-`."


class ClientMissing(NotFound):
    """The program that asks the gate was not built into this installation."""

    code = "gate-client-missing"
    remedy = "Install catena from a wheel, or run `python setup.py build_ext --inplace` with gcc."


def line(folder: Path, *, runtime: Path, gate: Path) -> bytes:
    """``catena-runc`` for these places. Raises ``UnusablePath``."""
    places = {"client": folder / CLIENT, "runtime": runtime, "gate": gate}
    for name, place in places.items():
        if not _PLAIN.match(str(place)):
            raise UnusablePath(f"{name} is no usable path", got=ascii(str(place)[:80]))
    text = f"#!{' '.join(map(str, places.values()))}\n"
    if len(text) > MAX_LINE:
        raise UnusablePath(
            "the wrapper's paths are too long together",
            expected=f"at most {MAX_LINE} characters",
            got=f"{len(text)}",
        )
    return text.encode()


def is_wrapper(program: bytes) -> bool:
    """Whether this is a ``catena-runc``, from any folder."""
    head, _, _ = program[:MAX_LINE].partition(b"\n")
    return head.startswith(b"#!/") and f"/{CLIENT} ".encode() in head


def client() -> bytes:
    """The program. Raises ``ClientMissing``."""
    try:
        return resources.files("catena.containers.wrapper").joinpath(CLIENT).read_bytes()
    except FileNotFoundError as error:
        raise ClientMissing("the program that asks the gate is missing", got=CLIENT) from error


def parts(folder: Path, *, runtime: Path, gate: Path) -> dict[Path, bytes]:
    """All files of the wrapper, by path, all to be executable.

    Raises ``UnusablePath`` or ``ClientMissing``.
    """
    return {folder / CLIENT: client(), folder / NAME: line(folder, runtime=runtime, gate=gate)}


def write(folder: Path, *, runtime: Path, gate: Path) -> Path:
    """Write the wrapper into ``folder`` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in parts(folder, runtime=runtime, gate=gate).items():
        path.write_bytes(content)
        path.chmod(0o755)
    return folder / NAME
