"""Where a server is, which CA to trust and where the token lies, as the command line knows it.

They come from options, from ``CATENA_SERVER``, ``CATENA_CA`` and ``CATENA_TOKEN_FILE``, or from a
profile that ``catena server init`` wrote. A token is only ever read from a file, never from an argument.
"""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import msgspec

from catena.audit.folder import replace_file
from catena.errors import Refusal, UsageError

PROFILE_FILE = "admin.toml"
_MAX_TOKEN_FILE = 1024


class NoServerNamed(UsageError):
    """A command that needs a server without being told which."""

    code = "no-server-named"
    remedy = "Give --profile DIR/admin.toml (written by `catena server init`) or --server."


class NoToken(UsageError):
    """An admin command without a usable token file."""

    code = "no-token"
    remedy = "Save the token that `catena server init` printed, mode 0600, and name it with --token-file."


class ExposedToken(Refusal):
    """A token file that others may read."""

    code = "exposed-token"
    remedy = "Run `chmod 600` on the token file, and replace the token if anyone read it."


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a server is and how to talk to it; relative paths are beside the profile."""

    server: str
    ca: str
    token_file: str | None = None


def load_profile(path: Path) -> Profile:
    """Read a profile; its paths come back absolute. Raises ``NoServerNamed``."""
    try:
        profile = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Profile)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise NoServerNamed(f"cannot use profile {path}: {error}") from error
    folder = path.parent.resolve()
    token = None if profile.token_file is None else str(folder / profile.token_file)
    return Profile(server=profile.server, ca=str(folder / profile.ca), token_file=token)


def read_token(path: Path) -> str:
    """The token in a file that only its owner may touch. Raises ``NoToken``, ``ExposedToken``."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            text = file.read(_MAX_TOKEN_FILE)
    except OSError as error:
        raise NoToken(f"cannot read token file {path}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ExposedToken("the token file is open to others", expected="0600", got=f"{mode:04o}")
    token = text.decode("ascii", errors="replace").strip()
    if not token.isascii() or not token.isprintable() or not token:
        raise NoToken(f"{path} holds no token")
    return token


def write_token(path: Path, token: str) -> None:
    """Put a token into a file of mode 0600, in place of what is there. Raises ``OSError``."""
    path.with_name(f"{path.name}.new").unlink(missing_ok=True)  # whatever its mode was
    replace_file(path, f"{token}\n".encode(), mode=0o600)
