"""The wrapper as files: the shell half with its settings filled in, the lean half compiled beside it."""

from __future__ import annotations

import py_compile
import re
from importlib import resources
from pathlib import Path

from catena.errors import UsageError

NAME = "catena-runc"
PYTHON = Path("/usr/bin/python3")
_PLAIN = re.compile(r"/[A-Za-z0-9_./+-]{1,200}\Z")


class UnusablePath(UsageError):
    """A path that does not go into a shell script as it is."""

    code = "wrapper-path-unusable"
    remedy = "Give an absolute path of letters, digits, and `_./+-`."


def shell_half(folder: Path, *, runtime: Path, python: Path, gate: Path) -> bytes:
    """``catena-runc`` for these places. Raises ``UnusablePath``."""
    text = _resource(f"{NAME}.sh")
    places = {"RUNTIME": runtime, "PYTHON": python, "GATE": gate, "FOLDER": folder}
    for name, place in places.items():
        if not _PLAIN.match(str(place)):
            raise UnusablePath(f"{name.lower()} is no usable path", got=ascii(str(place)[:80]))
        text = text.replace(f"@{name}@", str(place))
    return text.encode()


def lean_half() -> bytes:
    """``client.py``."""
    return _resource("client.py").encode()


def compiled(source: Path) -> Path:
    """Compile the lean half for the Python that runs this; another one reads the source.

    Unchecked, so that a start does not look at the source: whoever may change this file may
    change the other.
    """
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    made = py_compile.compile(str(source), doraise=True, optimize=0, invalidation_mode=mode)
    return Path(str(made))


def write(folder: Path, *, runtime: Path, python: Path, gate: Path) -> Path:
    """Write the wrapper into ``folder`` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "client.py"
    source.write_bytes(lean_half())
    compiled(source)
    wrapper = folder / NAME
    wrapper.write_bytes(shell_half(folder, runtime=runtime, python=python, gate=gate))
    wrapper.chmod(0o755)
    return wrapper


def _resource(name: str) -> str:
    return resources.files("catena.containers.wrapper").joinpath(name).read_text()
