"""The private copy of a checked configuration: the same, but it may be read from another folder.

The runtime resolves relative paths against the bundle's folder: ``root.path``, and the sources of bind
mounts (runc 1.1.5, ``specconv``, createLibcontainerMount). In the copy they are absolute.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

_BINDS = frozenset({"bind", "rbind"})


def private_config(config: bytes, bundle: Path) -> bytes:
    """A configuration that was checked, with absolute paths.

    ``config`` has to be a document that ``formats.runtime`` accepts: then no key in it has a
    second spelling that the runtime would prefer.
    """
    document: dict[str, Any] = msgspec.json.decode(config)
    root = document["root"]
    root["path"] = os.fspath(bundle / root["path"])
    for mount in document.get("mounts") or ():
        source = mount.get("source")
        if source and (
            mount.get("type") == "bind" or not _BINDS.isdisjoint(mount.get("options") or ())
        ):
            mount["source"] = os.fspath(bundle / source)
    return msgspec.json.encode(document)
