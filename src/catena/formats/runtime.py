r"""OCI runtime configuration: ``config.json`` and the process of an exec (runtime-spec 1.0 to 1.3).

A runtime of the Go family reads the first JSON value of the file, ignores members that it does not
know, takes the last of two equal keys and folds their case. What is judged here is started
there, so this reader takes one document, without unknown members (``UnknownSetting``) and
without anything that could be understood differently (``AmbiguousConfig``).

============  =================================================================================
``process``   what is executed: arguments, environment, user, capabilities (``Process``)
``root``      the files, ``mounts`` on top of them
``hooks``     programs that the runtime calls, most of them outside of the container
``linux``     namespaces, devices, cgroups, seccomp, paths of /proc and /sys
others        ``solaris``, ``windows``, ``vm``, ``zos``, ``freebsd``: ``foreign`` names those present
============  =================================================================================

Environment values are secrets: nothing here shows them, ``repr`` included.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TypeVar

import msgspec

from catena.errors import FormatError
from catena.formats import runtimespec as spec
from catena.formats.runtimespec import IdMappings, Map, Section, Texts, Uint32
from catena.formats.unambiguous import read_once

MAX_CONFIG = 1024 * 1024
MAX_MOUNT = 64 * 1024
NO_OPTIONS = "-"

_UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`(?: - at `([^`]*)`)?\Z", re.DOTALL)
_ESCAPED = re.compile(r"[^!-+\--\[\]-~]+")
_OCTAL = re.compile(r"(?:\\[0-7]{3})+")
_SANDBOX = ("io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID")
_KIND = ("io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType")
_IMAGES = (
    "io.kubernetes.cri.image-name",
    "io.kubernetes.cri-o.ImageName",
    "io.kubernetes.cri-o.Image",
    "org.opencontainers.image.ref.name",
)


class AmbiguousConfig(FormatError):
    """A configuration that the runtime might understand in another way than this reader."""

    code = "launch-ambiguous-config"
    remedy = "Find out who wrote this configuration: no container engine repeats or respells keys."


class UnknownSetting(FormatError):
    """A configuration with a setting that nobody could have judged."""

    code = "launch-unknown-setting"
    remedy = "Remove the setting, or update catena if it is part of a newer specification."


class User(Section, frozen=True, kw_only=True):
    """Whose rights the process has."""

    uid: Uint32 = 0
    gid: Uint32 = 0
    umask: Uint32 | None = None
    additional_gids: tuple[Uint32, ...] | None = None
    username: str = ""


class Capabilities(Section, frozen=True, kw_only=True):
    """The five sets of a process (capabilities(7))."""

    bounding: Texts = None
    effective: Texts = None
    inheritable: Texts = None
    permitted: Texts = None
    ambient: Texts = None

    @property
    def all(self) -> frozenset[str]:
        """What is in any of the sets."""
        sets = (self.bounding, self.effective, self.inheritable, self.permitted, self.ambient)
        return frozenset(name for one in sets for name in one or ())


class Process(Section, frozen=True, kw_only=True):
    """``process``, or the whole of an exec's ``process.json``."""

    terminal: bool = False
    console_size: spec.Box | None = None
    user: User = User()
    args: Texts = None
    command_line: str = ""
    env: Texts = None
    cwd: str = ""
    capabilities: Capabilities | None = None
    rlimits: tuple[spec.Rlimit, ...] | None = None
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    oom_score_adj: int | None = None
    scheduler: spec.Scheduler | None = None
    selinux_label: str = ""
    io_priority: spec.IoPriority | None = None
    exec_cpu_affinity: spec.CpuAffinity | None = msgspec.field(name="execCPUAffinity", default=None)

    def __repr__(self) -> str:
        """Without arguments or environment, which may hold secrets."""
        return f"Process(user={self.user_text!r})"

    @property
    def argv(self) -> tuple[str, ...]:
        """The arguments, the program first."""
        return self.args or ()

    @property
    def env_pairs(self) -> tuple[tuple[str, str], ...]:
        """Names and values in order. The values are secrets."""
        pairs = (one.partition("=") for one in self.env or ())
        return tuple((name, value) for name, _, value in pairs)

    @property
    def user_text(self) -> str:
        """``uid:gid``."""
        return f"{self.user.uid}:{self.user.gid}"

    @property
    def capability_names(self) -> tuple[str, ...]:
        """What is in any of the five sets, sorted."""
        return tuple(sorted(self.capabilities.all)) if self.capabilities else ()


class Root(Section, frozen=True, kw_only=True):
    """Where the files are."""

    path: str
    readonly: bool = False


class Mount(Section, frozen=True, kw_only=True):
    """One mount on top of the root."""

    destination: str
    type: str = ""
    source: str = ""
    options: Texts = None
    uid_mappings: IdMappings = None
    gid_mappings: IdMappings = None

    @property
    def is_bind(self) -> bool:
        """Whether a host path is mounted: an option says so whatever the type is."""
        return self.type == "bind" or not {"bind", "rbind"}.isdisjoint(self.options or ())

    @property
    def text(self) -> str:
        r"""``TYPE SOURCE DESTINATION OPTIONS`` as in /proc/mounts (``\040`` for a space)."""
        words = (self.type or "none", self.source or "none", self.destination)
        options = ",".join(map(_escape, self.options or ())) or NO_OPTIONS
        return " ".join((*map(_escape, words), options))


class Hook(Section, frozen=True, kw_only=True):
    """A program that the runtime calls."""

    path: str
    args: Texts = None
    env: Texts = None
    timeout: int | None = None


HookList = tuple[Hook, ...] | None


class Hooks(Section, frozen=True, kw_only=True):
    """All kinds of hooks; all but ``start_container`` run with the host's files."""

    prestart: HookList = None
    create_runtime: HookList = None
    create_container: HookList = None
    start_container: HookList = None
    poststart: HookList = None
    poststop: HookList = None

    @property
    def all(self) -> tuple[Hook, ...]:
        """Every hook."""
        kinds = (
            self.prestart,
            self.create_runtime,
            self.create_container,
            self.start_container,
            self.poststart,
            self.poststop,
        )
        return tuple(hook for kind in kinds for hook in kind or ())


class Namespace(Section, frozen=True, kw_only=True):
    """A namespace to make or, with a path, to join."""

    type: str
    path: str = ""


class Device(Section, frozen=True, kw_only=True):
    """A device node to make."""

    path: str
    type: str
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    uid: Uint32 | None = None
    gid: Uint32 | None = None

    @property
    def numbers(self) -> str:
        """``c 1:3``."""
        return f"{self.type} {self.major}:{self.minor}"


class Linux(Section, frozen=True, kw_only=True):
    """``linux``."""

    uid_mappings: IdMappings = None
    gid_mappings: IdMappings = None
    sysctl: Map = None
    resources: spec.Resources | None = None
    cgroups_path: str = ""
    namespaces: tuple[Namespace, ...] | None = None
    devices: tuple[Device, ...] | None = None
    net_devices: dict[str, spec.NetDevice] | None = None
    seccomp: spec.Seccomp | None = None
    rootfs_propagation: str = ""
    masked_paths: Texts = None
    readonly_paths: Texts = None
    mount_label: str = ""
    intel_rdt: spec.IntelRdt | None = None
    memory_policy: spec.MemoryPolicy | None = None
    personality: spec.Personality | None = None
    time_offsets: dict[str, spec.TimeOffset] | None = None


class RuntimeConfig(Section, frozen=True, kw_only=True):
    """One ``config.json``. Annotations are the engine's word and called *untrusted* where they are used."""

    oci_version: str
    process: Process | None = None
    root: Root | None = None
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] | None = None
    hooks: Hooks | None = None
    annotations: Map = None
    linux: Linux | None = None
    solaris: dict[str, object] | None = None
    windows: dict[str, object] | None = None
    vm: dict[str, object] | None = None
    zos: dict[str, object] | None = None
    freebsd: spec.FreeBsd | None = None

    @property
    def started(self) -> Process:
        """The process; an empty one, which no policy allows, if there is none."""
        return self.process or Process()

    @property
    def argv(self) -> tuple[str, ...]:
        """The arguments, the program first."""
        return self.started.argv

    @property
    def env(self) -> tuple[tuple[str, str], ...]:
        """Names and values. The values are secrets."""
        return self.started.env_pairs

    @property
    def user(self) -> str:
        """``uid:gid``."""
        return self.started.user_text

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What is in any of the capability sets, sorted."""
        return self.started.capability_names

    @property
    def mount_texts(self) -> tuple[str, ...]:
        """The mounts as ``parse_mount`` reads them."""
        return tuple(mount.text for mount in self.mounts or ())

    @property
    def foreign(self) -> tuple[str, ...]:
        """Sections of other platforms that are present."""
        names = ("solaris", "windows", "vm", "zos", "freebsd")
        return tuple(name for name in names if getattr(self, name) is not None)

    @property
    def sandbox(self) -> str:
        """The pod that the engine says this belongs to, *untrusted*; empty if it says none."""
        return self._annotation(_SANDBOX)

    @property
    def container_type(self) -> str:
        """``sandbox`` or ``container`` in a pod, *untrusted*; empty elsewhere."""
        return self._annotation(_KIND)

    @property
    def image_names(self) -> tuple[str, ...]:
        """Names that the engine says the image has, *untrusted*."""
        notes = self.annotations or {}
        return tuple(dict.fromkeys(notes[name] for name in _IMAGES if notes.get(name)))

    def _annotation(self, names: tuple[str, ...]) -> str:
        notes = self.annotations or {}
        return next((notes[name] for name in names if notes.get(name)), "")


S = TypeVar("S", bound=Section)


def parse_config(data: bytes) -> RuntimeConfig:
    """Read a ``config.json``.

    Raises ``AmbiguousConfig``, ``UnknownSetting`` or ``FormatError``.
    """
    return _parse(data, RuntimeConfig, "the runtime configuration")


def parse_process(data: bytes) -> Process:
    """Read an exec's ``process.json``. Raises as ``parse_config``."""
    return _parse(data, Process, "the process to execute")


def parse_mount(text: str) -> Mount:
    """Read a mount back from its ``text``. Raises ``FormatError``."""
    words = text.split(" ") if len(text) <= MAX_MOUNT else ()
    if len(words) != 4:
        raise FormatError("not a mount", expected="TYPE SOURCE DESTINATION OPTIONS")
    kind, source, destination = map(_unescape, words[:3])
    options = () if words[3] == NO_OPTIONS else tuple(map(_unescape, words[3].split(",")))
    return Mount(destination=destination, type=kind, source=source, options=options)


def private_copy(data: bytes, bundle: Path) -> bytes:
    """The configuration as one canonical document that means the same outside of its bundle.

    The root's path and the relative sources of bind mounts become absolute. Nothing is left out,
    and what a runtime reads is exactly what ``parse_config`` read. Raises as ``parse_config``.
    """
    config = parse_config(data)
    document = msgspec.json.decode(data)
    if config.root is not None:
        document["root"]["path"] = _absolute(config.root.path, bundle)
    for mount, member in zip(config.mounts or (), document.get("mounts") or (), strict=True):
        if mount.is_bind:
            member["source"] = _absolute(mount.source, bundle)
    return msgspec.json.encode(document)


def _absolute(path: str, bundle: Path) -> str:
    return path if path.startswith("/") else str(PurePosixPath(bundle.absolute()) / path)


def _parse(data: bytes, kind: type[S], what: str) -> S:
    if len(data) > MAX_CONFIG:
        raise FormatError(
            f"{what} is too large", expected=f"at most {MAX_CONFIG}", got=f"{len(data)}"
        )
    read_once(data, what, AmbiguousConfig)
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise _complaint(str(error), what) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{what} is not JSON") from error


def _complaint(message: str, what: str) -> FormatError:
    """What msgspec says, as one of this module's errors: it names members, never values."""
    unknown = _UNKNOWN.match(message)
    if unknown is None:
        return FormatError(f"{what} breaks the specification: {ascii(message[:200])[1:-1]}")
    name, place = ascii(unknown[1][:80]), (unknown[2] or "$")[:80]
    if unknown[1].casefold() in _spellings(RuntimeConfig, set()):
        return AmbiguousConfig(f"{what} has a key in another spelling or place: {name} at {place}")
    return UnknownSetting(f"{what} has a setting that is not known: {name} at {place}")


def _spellings(kind: object, seen: set[object]) -> set[str]:
    """The names of all members, case folded. Walked only when something is refused."""
    if kind in seen:
        return set()
    seen.add(kind)
    names = set[str]()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        for field in msgspec.structs.fields(kind):
            names |= {field.encode_name.casefold()} | _spellings(field.type, seen)
    for part in getattr(kind, "__args__", ()):
        names |= _spellings(part, seen)
    return names


def _escape(word: str) -> str:
    return _ESCAPED.sub(lambda found: "".join(f"\\{one:03o}" for one in found[0].encode()), word)


def _unescape(word: str) -> str:
    return _OCTAL.sub(_characters, word)


def _characters(found: re.Match[str]) -> str:
    values = (int(one, 8) for one in found[0][1:].split("\\"))
    try:
        return bytes(values).decode()
    except ValueError as error:
        raise FormatError("not a mount", expected="octal escapes of UTF-8") from error
