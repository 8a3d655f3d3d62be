"""The wrapper as files: the shell half with its settings filled in, the lean half compiled beside it."""

from __future__ import annotations

import py_compile
import re
import tempfile
from importlib import resources
from importlib.util import cache_from_source
from pathlib import Path

from catena.errors import UsageError

NAME = "catena-runc"
_LEAN = "client.py"
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
    """The client's source."""
    return _resource(_LEAN).encode()


def compiled() -> bytes:
    """The lean half, compiled for the Python that runs this; another one reads the source.

    Unchecked, so that a start does not look at the source: whoever may change one of the two
    files may change the other.
    """
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / _LEAN, Path(folder) / "made"
        source.write_bytes(lean_half())
        py_compile.compile(
            str(source), str(made), _LEAN, doraise=True, optimize=0, invalidation_mode=mode
        )
        return made.read_bytes()


def parts(folder: Path, *, runtime: Path, python: Path, gate: Path) -> dict[Path, bytes]:
    """All files of the wrapper, by path. Raises ``UnusablePath``."""
    source = folder / _LEAN
    return {
        folder / NAME: shell_half(folder, runtime=runtime, python=python, gate=gate),
        source: lean_half(),
        Path(cache_from_source(str(source))): compiled(),
    }


def write(folder: Path, *, runtime: Path, python: Path, gate: Path) -> Path:
    """Write the wrapper into ``folder`` and return its path."""
    for path, content in parts(folder, runtime=runtime, python=python, gate=gate).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    wrapper = folder / NAME
    wrapper.chmod(0o755)
    return wrapper


def _resource(name: str) -> str:
    return resources.files("catena.containers.wrapper").joinpath(name).read_text()
