"""Where an image is, as people write it.

=========================  ==============================================================
``registry/name:tag``      in a registry; ``@sha256:…`` instead of or beside the tag
``oci:FOLDER:NAME``        in an OCI layout; NAME as it is there, a whole reference or a tag
``aci:FILE``               an ACI, its signature in ``FILE.asc``
=========================  ==============================================================
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from catena.containers.images.acifile import AciFile
from catena.containers.images.layout import Layout
from catena.containers.images.registry import Registry
from catena.containers.images.source import ImageSource, ImageStore
from catena.containers.images.transport import Credentials, Transport
from catena.errors import FormatError, Refusal, UsageError
from catena.formats import oci

LAYOUT = "oci:"
ACI = "aci:"
MAX_AUTH_FILE = 256 * 1024


class NoRepository(UsageError):
    """An image in a folder, whose name there does not say which repository is meant."""

    code = "no-repository"
    remedy = "Say which repository is meant: --repository registry/name."


class BadAuthFile(FormatError):
    """A file with credentials that cannot be read."""

    code = "auth-file-malformed"
    remedy = "Make it with `skopeo login --authfile FILE registry`."


class ExposedAuthFile(Refusal):
    """A file with credentials that others may read."""

    code = "exposed-auth-file"
    remedy = "Run `chmod 600` on the file, and change the password if anyone read it."


@dataclass(frozen=True, slots=True)
class Access:
    """How registries are reached."""

    plain_http: bool = False
    auth_file: Path | None = None
    ca: Path | None = None


S_co = TypeVar("S_co", bound=ImageSource, covariant=True)


@dataclass(frozen=True, slots=True)
class OpenImage(Generic[S_co]):
    """A source, the image's name in it, and the repository and tag that are meant."""

    store: S_co
    name: str
    repository: str
    tag: str

    @property
    def reference(self) -> str:
        """``registry/name`` with the tag, if there is one: what is verified."""
        return f"{self.repository}:{self.tag}" if self.tag else self.repository


@contextmanager
def opened_source(
    image: str, access: Access, repository: str | None = None
) -> Iterator[OpenImage[ImageSource]]:
    """Open what the table of this module says, to be read. Raises as ``opened``."""
    if image.startswith(ACI):
        file = AciFile(Path(image.removeprefix(ACI)))
        meant = oci.parse_reference(repository or file.name)
        yield OpenImage(file, image, meant.repository, meant.tag)
        return
    with opened(image, access, repository) as found:
        yield OpenImage(found.store, found.name, found.repository, found.tag)


@contextmanager
def opened(
    image: str, access: Access, repository: str | None = None
) -> Iterator[OpenImage[ImageStore]]:
    """Open a registry or a layout, to be written as well; ``repository`` is for layouts.

    Raises ``NoRepository``, ``FormatError``, or what opening a registry raises.
    """
    if image.startswith(LAYOUT):
        folder, _, name = image.removeprefix(LAYOUT).partition(":")
        yield _in_layout(Layout(Path(folder)), name, repository)
        return
    reference = oci.parse_reference(image)
    with Transport(
        reference.registry,
        plain_http=access.plain_http,
        credentials=_credentials(access.auth_file, reference.registry),
        ca=access.ca,
    ) as transport:
        tag = reference.tag or ("" if reference.digest else "latest")
        name = str(reference) if reference.digest else f"{reference.repository}:{tag}"
        store = Registry(transport, reference.repository)
        yield OpenImage(store, name, repository or reference.repository, tag)


def _in_layout(layout: Layout, name: str, repository: str | None) -> OpenImage[ImageStore]:
    if repository is not None:
        meant = oci.parse_reference(repository)
        return OpenImage(layout, name, meant.repository, meant.tag)
    try:
        meant = oci.parse_reference(name)
    except FormatError as error:
        raise NoRepository(
            "name in the layout is no whole reference", got=ascii(name[:80])
        ) from error
    return OpenImage(layout, name, meant.repository, meant.tag)


class _Auth(msgspec.Struct, frozen=True):
    auth: str = ""


class _AuthFile(msgspec.Struct, frozen=True):
    auths: dict[str, _Auth] = {}


def _credentials(file: Path | None, registry: str) -> Credentials | None:
    """What a file of the form of Docker's ``config.json`` has for a registry."""
    if file is None:
        return None
    with file.open("rb") as opened_file:
        if os.fstat(opened_file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ExposedAuthFile(f"{file.name} is readable by others")
        content = opened_file.read(MAX_AUTH_FILE)
    try:
        entry = msgspec.json.decode(content, type=_AuthFile).auths.get(registry)
        if entry is None:
            return None
        user, colon, password = base64.b64decode(entry.auth, validate=True).decode().partition(":")
    except (msgspec.DecodeError, binascii.Error, ValueError, RecursionError):
        raise BadAuthFile(f"{file.name} is no file of credentials") from None  # it may hold secrets
    if not colon:
        raise BadAuthFile(f"{file.name} has no name and password for the registry")
    return Credentials(user, password)
