"""Which namespaces are the host's own: the one question about a launch that its texts do not answer.

A namespace is the host's if the first process has it, or this one, or if it has the inode number
that the kernel keeps for initial namespaces (include/linux/proc_ns.h). The first process's may be
hidden from one with fewer capabilities; then its own have to do, so a gate without
CAP_SYS_PTRACE must not have a network namespace to itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from catena.containers.launch.refusals import LaunchNamespace, shown

_HOST = (Path("/proc/1/ns"), Path("/proc/self/ns"))
_FILES = {"network": "net"}
_INITIAL = {
    "ipc": 0xEFFFFFFF,
    "uts": 0xEFFFFFFE,
    "user": 0xEFFFFFFD,
    "pid": 0xEFFFFFFC,
    "cgroup": 0xEFFFFFFB,
    "time": 0xEFFFFFFA,
    "network": 0xEFFFFFF9,
}
"""Before Linux 6.18 the initial network namespace has any number."""

IsHost = Callable[[str, str], bool]
"""Asked with a namespace's type and the path to join."""


def is_host_namespace(kind: str, path: str, host: tuple[Path, ...] = _HOST) -> bool:
    """Whether ``path`` is the namespace of type ``kind`` that the host itself runs in.

    Raises ``LaunchNamespace`` if that cannot be told.
    """
    try:
        joined = Path(path).stat()
    except (OSError, ValueError) as error:
        raise LaunchNamespace(
            f"cannot look at a {shown(kind)} namespace to join", got=shown(path)
        ) from error
    own = set(_own(kind, host))
    if not own:
        raise LaunchNamespace(f"cannot look at the host's {shown(kind)} namespace")
    return (joined.st_dev, joined.st_ino) in own or joined.st_ino == _INITIAL.get(kind)


def _own(kind: str, host: tuple[Path, ...]) -> Iterator[tuple[int, int]]:
    for folder in host:
        try:
            found = (folder / _FILES.get(kind, kind)).stat()
        except OSError:
            continue
        yield found.st_dev, found.st_ino
