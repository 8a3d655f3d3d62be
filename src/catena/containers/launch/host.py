"""Which namespaces are the host's own: the one question about a launch that its texts do not answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from catena.containers.launch.refusals import LaunchNamespace, shown

_INIT = Path("/proc/1/ns")
"""Of the first process, not of this one: a service manager may have given this one its own."""
_FILES = {"network": "net"}

IsHost = Callable[[str, str], bool]
"""Asked with a namespace's type and the path to join."""


def is_host_namespace(kind: str, path: str, init: Path = _INIT) -> bool:
    """Whether ``path`` is the namespace of type ``kind`` that the host itself runs in.

    Raises ``LaunchNamespace`` if that cannot be told.
    """
    try:
        joined = Path(path).stat()
        own = (init / _FILES.get(kind, kind)).stat()
    except (OSError, ValueError) as error:
        raise LaunchNamespace(
            f"cannot tell whose {shown(kind)} namespace it is", got=shown(path)
        ) from error
    return (joined.st_dev, joined.st_ino) == (own.st_dev, own.st_ino)
