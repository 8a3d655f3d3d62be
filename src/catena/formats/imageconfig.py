"""OCI image configuration (image-spec 1.1, "config.md"): how an image wants to be started, and its layers.

=====================  =================================================================
``config.Entrypoint``  the program, and arguments that stay
``config.Cmd``         further arguments, which a start may replace
``config.Env``         ``NAME=value``
``config.User``        ``user``, ``uid``, ``user:group``, ``uid:gid`` or empty
``config.WorkingDir``  where the program starts; empty is ``/``
``config.Volumes``     folders that engines mount an empty volume on
``rootfs.diff_ids``    digests of the uncompressed layers, bottom first
=====================  =================================================================

Unknown members are ignored, as the specification says. A key that occurs twice, or in another
spelling than a known one, is an error: engines read with a reader that folds case.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from catena.errors import FormatError
from catena.formats.unambiguous import Spelling, check_spelling, read_once
from catena.ids import DiffId

MAX_IMAGE_CONFIG = 4 * 1024 * 1024
MAX_LAYERS = 1024
_WHAT = "the image configuration"

_DiffId = Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]
_Texts = tuple[str, ...] | None


class AmbiguousImageConfig(FormatError):
    """An image configuration that an engine might understand in another way than this reader."""

    code = "image-config-ambiguous"
    remedy = (
        "Build the image again with a tool that writes each key once, as the specification has it."
    )


class _Settings(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    user: str = ""
    env: _Texts = None
    entrypoint: _Texts = None
    cmd: _Texts = None
    working_dir: str = ""
    volumes: dict[str, dict[str, str]] | None = None
    labels: dict[str, str] | None = None


class _Layers(msgspec.Struct, frozen=True, kw_only=True):
    type: str
    diff_ids: Annotated[tuple[_DiffId, ...], msgspec.Meta(max_length=MAX_LAYERS)]


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a configuration that decide what runs. *Untrusted* until its digest is checked."""

    architecture: str
    os: str
    rootfs: _Layers
    config: _Settings | None = None

    @property
    def settings(self) -> _Settings:
        """``config``, empty if there is none."""
        return self.config or _Settings()

    @property
    def entrypoint(self) -> tuple[str, ...]:
        """The program, and arguments that stay."""
        return self.settings.entrypoint or ()

    @property
    def argv(self) -> tuple[str, ...]:
        """What the image starts if nobody says otherwise."""
        return self.entrypoint + (self.settings.cmd or ())

    @property
    def env(self) -> tuple[tuple[str, str], ...]:
        """Names and values."""
        pairs = (one.partition("=") for one in self.settings.env or ())
        return tuple((name, value) for name, _, value in pairs)

    @property
    def user(self) -> str:
        """Whose rights the image wants; empty is root."""
        return self.settings.user

    @property
    def working_directory(self) -> str:
        """Where the program starts."""
        return self.settings.working_dir or "/"

    @property
    def volumes(self) -> tuple[str, ...]:
        """Folders for volumes, sorted."""
        return tuple(sorted(self.settings.volumes or ()))

    @property
    def diff_ids(self) -> tuple[DiffId, ...]:
        """The layers, bottom first."""
        return tuple(map(DiffId, self.rootfs.diff_ids))


def parse(data: bytes) -> ImageConfig:
    """Read an image configuration. Raises ``AmbiguousImageConfig`` or ``FormatError``."""
    if len(data) > MAX_IMAGE_CONFIG:
        raise FormatError(f"{_WHAT} is too large", expected=f"at most {MAX_IMAGE_CONFIG}")
    _check_keys(read_once(data, _WHAT, AmbiguousImageConfig))
    try:
        image = msgspec.json.decode(data, type=ImageConfig)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"not an image configuration: {error}") from error
    if image.rootfs.type != "layers":
        raise FormatError(f"{_WHAT} has no layers", expected="rootfs of type layers")
    return image


def _check_keys(tree: object) -> None:
    check_spelling(tree, _TOP, _WHAT, AmbiguousImageConfig)
    if isinstance(tree, dict):
        check_spelling(tree.get("config"), _SETTINGS, _WHAT, AmbiguousImageConfig)
        check_spelling(tree.get("rootfs"), _LAYERS, _WHAT, AmbiguousImageConfig)


def _names(kind: type[msgspec.Struct]) -> Spelling:
    return Spelling(field.encode_name for field in msgspec.structs.fields(kind))


_TOP, _SETTINGS, _LAYERS = _names(ImageConfig), _names(_Settings), _names(_Layers)
