"""Why a root file system is refused.

::

    RootRefused
    ├── UnknownLayers    no image that is known here consists of these files
    ├── AlteredLayer     a known layer or image, but for the paths that are named
    ├── WrittenUpper     something was written on top of the image before the start
    ├── ForeignMount     mounted in a way that does not show what the layers hold
    ├── UnsteadyTree     the files change while they are read
    ├── AlteredBlob      (images.blobs) a layer's blob does not have its digest
    └── AmbiguousLayer   a layer that runtimes unpack in different ways
"""

from __future__ import annotations

from catena.containers.rootfs.identity import RootRefused


class UnknownLayers(RootRefused):
    """The files are not those of any known image."""

    code = "root-unknown-layers"
    remedy = "Fetch the image into the store so that its layers are known, or remove the container."


class AlteredLayer(RootRefused):
    """The files are those of a known layer or image, except for some."""

    code = "root-altered-layer"


class WrittenUpper(RootRefused):
    """The container's own layer holds more than the places where runtimes mount."""

    code = "root-written"
    remedy = "Create the container anew from its image; its writable layer is not part of what was signed."


class ForeignMount(RootRefused):
    """The root is mounted so that its files are not simply those of its layers."""

    code = "root-foreign-mount"
    remedy = (
        "Use a snapshotter or storage driver on a local file system, without further mounts inside."
    )


class UnsteadyTree(RootRefused):
    """The files changed while they were read."""

    code = "root-unsteady"
    remedy = "Find out what writes to the image's files; start the container when nothing does."


class UnfitDiffId(RootRefused):
    """A layer's content does not have the DiffID that the image's configuration gives it."""

    code = "layer-diff-id"
    remedy = "The image contradicts itself: do not use it."


class AmbiguousLayer(RootRefused):
    """A layer means different files to different runtimes."""

    code = "layer-ambiguous"
    remedy = (
        "Build the image with a tool that writes each path once and names no path through a link."
    )


class UnreadableLayer(RootRefused):
    """A layer is packed in a way that cannot be read here."""

    code = "layer-unreadable"
    remedy = "Install `zstd`, or publish the image with layers packed by gzip."


class UnfitImage(RootRefused):
    """A manifest or configuration that describes no image of layers."""

    code = "image-unfit"
    remedy = "Only images of tar layers can be run; check what the name refers to."
