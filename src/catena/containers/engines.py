"""What has to stand in the configuration of a container engine so that it starts the wrapper.

==============  =========================================  =====================================
engine          file                                       says
==============  =========================================  =====================================
``containerd``  ``/etc/containerd/config.toml``            ``BinaryName`` of every runc runtime of CRI
                ``/usr/local/sbin/runc``                   the wrapper, first on the PATH
``podman``      ``/etc/containers/containers.conf.d/…``    ``runc`` and ``crun`` are the wrapper
``docker``      ``/etc/docker/daemon.json``                ``default-runtime``
                ``/usr/local/sbin/runc``                   as for containerd
``crio``        ``/etc/crio/crio.conf.d/…``                ``runc`` and ``crun`` are the wrapper
==============  =========================================  =====================================

``BinaryName`` reaches what kubelets start. ``ctr``, ``nerdctl`` and Docker's own ``runc`` name no path:
the shim looks for ``runc`` on the PATH of containerd, and ``/usr/local/sbin`` comes first in it.
What ``nerdctl`` asks for is refused: its hooks have variables (``launch.isolation``).

Pure: text in, text out. An edit is made in the text, so that comments and order stay, and is only
believed if the parsed file then differs in exactly what was to be set.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from catena.errors import UsageError

Key = tuple[str, ...]
_CRI = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}
_RUNC_TYPES = frozenset({"io.containerd.runc.v2", "io.containerd.runc.v1"})
_HEAD = "# Written by `catena container install`; `catena container uninstall` removes it.\n"


class Engine(StrEnum):
    """Whose configuration is changed."""

    CONTAINERD = "containerd"
    PODMAN = "podman"
    DOCKER = "docker"
    CRIO = "crio"


class ConfigNotUnderstood(UsageError):
    """A configuration that cannot be changed without changing more than was meant."""

    code = "engine-config-not-understood"
    remedy = "Set the runtime by hand as the manual shows; then nothing needs to be undone, either."


class FileTaken(UsageError):
    """A file that would be written belongs to somebody else."""

    code = "engine-file-taken"
    remedy = "Move the file away. A real runc there: move it and name it with --real-runc."


@dataclass(frozen=True, slots=True)
class Edit:
    """One file to be written; ``make`` gets what it holds now (None if there is none)."""

    path: Path
    make: Callable[[bytes | None], bytes]
    mode: int = 0o644


def new_file(path: Path, content: bytes, mode: int = 0o644) -> Edit:
    """A file that must not be there yet; making it raises ``FileTaken``."""
    return Edit(path, lambda old: _new(old, content, path), mode)


def edits(engine: Engine, wrapper: Path, script: bytes) -> tuple[Edit, ...]:
    """All files of an engine; ``script`` is the wrapper's own text."""
    shadow = new_file(Path("/usr/local/sbin/runc"), script, 0o755)
    match engine:
        case Engine.CONTAINERD:
            path = Path("/etc/containerd/config.toml")
            return (Edit(path, lambda old: containerd_config(old, wrapper)), shadow)
        case Engine.DOCKER:
            path = Path("/etc/docker/daemon.json")
            return (Edit(path, lambda old: docker_config(old, wrapper)), shadow)
        case Engine.PODMAN:
            path = Path("/etc/containers/containers.conf.d/99-catena.conf")
            return (new_file(path, podman_drop_in(wrapper)),)
        case Engine.CRIO:
            path = Path("/etc/crio/crio.conf.d/99-catena.conf")
            return (new_file(path, crio_drop_in(wrapper)),)


def containerd_config(old: bytes | None, wrapper: Path) -> bytes:
    """Containerd's file (version 2 or 3) with the wrapper as binary of every runc runtime of CRI.

    Raises ``ConfigNotUnderstood``.
    """
    text = "version = 2\n" if old is None else _decoded(old)
    document = _toml(text)
    plugin = _CRI.get(document.get("version", 1))
    if plugin is None:
        raise ConfigNotUnderstood("containerd's configuration", expected="version = 2 or 3")
    runtimes: Key = ("plugins", plugin, "containerd", "runtimes")
    known = _at(document, runtimes)
    for name in sorted({"runc", *_of_runc(known)}):
        if "runtime_type" not in known.get(name, {}):
            text = set_toml(text, (*runtimes, name, "runtime_type"), "io.containerd.runc.v2")
        text = set_toml(text, (*runtimes, name, "options", "BinaryName"), str(wrapper))
    return text.encode()


def podman_drop_in(wrapper: Path) -> bytes:
    """A drop-in for containers.conf(5): whichever of the names is asked for, it is the wrapper."""
    return (
        f'{_HEAD}[engine]\nruntime = "runc"\n\n'
        f'[engine.runtimes]\nrunc = ["{wrapper}"]\ncrun = ["{wrapper}"]\n'
    ).encode()


def crio_drop_in(wrapper: Path) -> bytes:
    """A drop-in for crio.conf(5)."""
    tables = "".join(
        f'\n[crio.runtime.runtimes.{name}]\nruntime_path = "{wrapper}"\n'
        'runtime_type = "oci"\nruntime_root = "/run/runc"\n'
        for name in ("runc", "crun")
    )
    return f'{_HEAD}[crio.runtime]\ndefault_runtime = "runc"\n{tables}'.encode()


def docker_config(old: bytes | None, wrapper: Path) -> bytes:
    """daemon.json with the wrapper as the default runtime. Raises ``ConfigNotUnderstood``."""
    try:
        document = msgspec.json.decode(old or b"{}", type=dict[str, Any])
        runtimes = msgspec.convert(document.get("runtimes", {}), dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigNotUnderstood(f"daemon.json: {error}") from error
    document["runtimes"] = runtimes | {"catena": {"path": str(wrapper)}}
    document["default-runtime"] = "catena"
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def uncovered(engine: Engine, old: bytes | None) -> tuple[str, ...]:
    """What an engine can still be told to start past the wrapper, by its present configuration."""
    if old is None:
        return ()
    match engine:
        case Engine.CONTAINERD:
            document = _toml(_decoded(old))
            plugin = _CRI.get(document.get("version", 1), "")
            known = _at(document, ("plugins", plugin, "containerd", "runtimes"))
            others = sorted(known.keys() - set(_of_runc(known)) - {"runc"})
            return tuple(f"runtime {name} of CRI is not runc's" for name in others)
        case Engine.DOCKER:
            document = msgspec.json.decode(old, type=dict[str, Any])
            return tuple(
                f"runtime {name} of Docker can still be asked for"
                for name in sorted(document.get("runtimes", {}))
            )
        case _:
            return ()


# TOML, changed in its text --------------------------------------------------------------------


def set_toml(text: str, key: Key, value: str) -> str:
    """The text with ``key`` set to a string. Raises ``ConfigNotUnderstood``."""
    before = _toml(text)
    *table, name = key
    line = f"{name} = {msgspec.json.encode(value).decode()}\n"
    lines = text.splitlines(keepends=True)
    start = next((at for at, found in _headers(lines) if found == tuple(table)), None)
    if start is None:
        ending = "" if text.endswith("\n") or not text else "\n"
        changed = f"{text}{ending}\n[{'.'.join(map(_quoted, table))}]\n  {line}"
    else:
        changed = "".join(_in_table(lines, start, name, line))
    if _toml(changed) != _with(before, key, value):
        raise ConfigNotUnderstood("cannot set " + ".".join(key), expected="a table of its own")
    return changed


def _in_table(lines: Sequence[str], start: int, name: str, line: str) -> Iterator[str]:
    """The lines with ``name`` set in the table that begins at ``start``."""
    end = next((at for at, _ in _headers(lines) if at > start), len(lines))
    present = [at for at in range(start + 1, end) if lines[at].partition("=")[0].strip() == name]
    indent = lines[start][: len(lines[start]) - len(lines[start].lstrip())] + "  "
    for at, old in enumerate(lines):
        if at in present:
            yield indent + line
        else:
            yield old if old.endswith("\n") else old + "\n"
        if at == start and not present:
            yield indent + line


def _headers(lines: Sequence[str]) -> Iterator[tuple[int, Key]]:
    """Lines that look like a table's head, and which table."""
    for at, line in enumerate(lines):
        if line.lstrip().startswith("["):
            try:
                head = tomllib.loads(line)
            except tomllib.TOMLDecodeError:
                continue
            yield at, _only_path(head)


def _only_path(document: object) -> Key:
    path: list[str] = []
    while isinstance(document, dict) and document:
        name, document = next(iter(document.items()))
        path.append(name)
    return tuple(path)


def _with(document: Mapping[str, Any], key: Key, value: str) -> dict[str, Any]:
    name, *rest = key
    inner = value if not rest else _with(document.get(name, {}), tuple(rest), value)
    return {**document, name: inner}


def _at(document: Mapping[str, Any], key: Key) -> Mapping[str, Any]:
    for name in key:
        inner = document.get(name, {})
        if not isinstance(inner, dict):
            raise ConfigNotUnderstood(f"{name} is no table")
        document = inner
    return document


def _of_runc(runtimes: Mapping[str, Any]) -> list[str]:
    return [name for name, one in runtimes.items() if one.get("runtime_type") in _RUNC_TYPES]


def _quoted(name: str) -> str:
    return msgspec.json.encode(name).decode() if "." in name else name


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigNotUnderstood(f"not TOML: {error}") from error


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigNotUnderstood("not text in UTF-8") from error


def _new(old: bytes | None, content: bytes, path: Path) -> bytes:
    if old is not None:
        raise FileTaken(f"{path} is there already")
    return content
