"""The identity of a root file system, from its files alone.

::

    layer tars (formats.layertar) ─ layer ─┐
                                           ├─ tree ─ fit ─ identification ─► RootIdentity
    folders on disk ─ walk ─ fingerprints ─┘
"""

from __future__ import annotations

from catena.containers.rootfs.identification import identify

__all__ = ["identify"]
